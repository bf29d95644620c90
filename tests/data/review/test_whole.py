"""What stands out from the rest, and rows that are too much alike."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from runner.data.review import Finding
from runner.data.review.whole import surely_above, usual_lengths
from tests.data.review.rows import (
    PROSE,
    example,
    ordinary,
    reviewed,
    with_answers,
)


def test_lengths_far_from_the_rest_stand_out_by_the_robust_spread() -> None:
    rows = [example("oak " * 3000, "How many oaks are on the hill?", 1), example("Yes, of course.", row=2)]
    found = reviewed([*ordinary(200, first=9), *rows])["data/length"]
    assert found.rows == ("rows.jsonl:1", "rows.jsonl:2") and "usual are " in found.what
    assert "data/length" not in reviewed([*ordinary(17, first=9), *rows])


@pytest.mark.parametrize("lengths", [[], [5] * 19, list(range(1, 19))])
def test_few_rows_have_no_usual_lengths(lengths: list[int]) -> None:
    assert usual_lengths(np.array(lengths, dtype=np.uint32)) == (0.0, math.inf)


def test_equal_lengths_leave_room_for_others() -> None:
    low, high = usual_lengths(np.array([100] * 50, dtype=np.uint32))
    assert (round(low, 2), round(high, 2)) == (28.65, 349.03)


SILENT = (".", "...", "ok", " ok \n", "None", "nan", "N/A", "–")


@pytest.mark.parametrize("answer", SILENT)
def test_an_answer_that_says_nothing_is_found_where_others_are_long(answer: str) -> None:
    found = reviewed([*ordinary(30, first=2), example(answer)])
    assert found["data/short-answer"].rows == ("rows.jsonl:1",) and "data/length" not in found
    assert "data/short-answer" not in reviewed([example(answer)] * 3)


@pytest.mark.parametrize("answer", ["no", "3", "42", "B", "yes", "是的", "Nobody", "😀 yes"])
def test_a_short_answer_may_be_the_right_one(answer: str) -> None:
    assert "data/short-answer" not in reviewed([*ordinary(30), example(answer)])


def test_a_question_of_two_characters_is_short_where_others_are_long() -> None:
    rows = [example(PROSE, "?", 90), example(PROSE, "why", 91)]
    assert reviewed([*ordinary(30), *rows])["data/short-prompt"].rows == ("rows.jsonl:90",)
    assert "data/short-prompt" not in reviewed([*ordinary(2), *([rows[0]] * 5)])


def test_answers_that_begin_alike_are_found_and_json_must() -> None:
    def rows(begin: str, num_rows: int) -> dict[str, Finding]:
        draw = [begin + row.expected for row in ordinary(num_rows)]
        return reviewed(with_answers([*draw, *(row.expected for row in ordinary(100 - num_rows, seed=2))]))

    found = rows("Sure, I will say: ", 45)["data/same-opening"]
    assert found.count == 45 and ": 'sure, i will'" in found.what
    assert rows("Sure, I will say: ", 35) == {} and rows('{"my own answer": ', 45) == {}


def test_one_answer_to_many_questions_is_found_once() -> None:
    rows = with_answers([*([PROSE.strip()] * 45), *(row.expected for row in ordinary(55, seed=2))])
    found = reviewed(rows)
    assert set(found) == {"data/same-answer"} and found["data/same-answer"].count == 45


def test_questions_that_all_begin_alike_are_noted() -> None:
    rows = [example(row.expected, f"Say of this: {row.prompt[0].content}", i) for i, row in enumerate(ordinary(60))]
    found = reviewed(rows)
    assert (
        found["data/few-openings"].severity == "note" and "different beginnings: 1 " in found["data/few-openings"].what
    )
    assert "data/few-openings" not in reviewed(rows[:49])
    assert "data/few-openings" not in reviewed([*rows, *ordinary(5)])


def test_answers_made_of_few_phrases_are_noted() -> None:
    rows = with_answers([" ".join(draw) for draw in (random.Random(i).choices("ab", k=30) for i in range(60))])
    assert "data/few-words" in reviewed(rows) and "data/few-words" not in reviewed(rows[:49])


@pytest.mark.parametrize(
    ("count", "total", "above"),
    [(30, 100, False), (38, 100, False), (41, 100, True), (1, 1, False), (31_000, 100_000, True)],
)
def test_a_share_is_surely_above_only_beyond_chance(count: int, total: int, above: bool) -> None:
    assert surely_above(count, total, 0.3) is above
