"""What the rows are together: varied or not, classes or not, and what stands out from the rest."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.conversation import Example, Message
from runner.data import diversity as module
from runner.data.diversity import (
    NO_SCRIPT,
    SCRIPTS,
    Sample,
    Tally,
    distinct_ngrams,
    opening,
    script_of,
    surely_above,
    unstated_facts,
    usual_lengths,
)
from runner.data.findings import Finding, Review
from tests.data.test_findings import PROSE, example, ordinary, reviewed

SHIPPED = Path(__file__).parents[2] / "manifests" / "data"


def review_of(rows: Iterable[Example]) -> Review:
    review = Review()
    for row in rows:
        review.add(row)
    return review


def shipped(name: str) -> list[Example]:
    rows = [json.loads(line) for line in (SHIPPED / name).read_text("utf-8").splitlines()]
    turns = [row.get("messages") or _turns(row["prompt"], row["completion"]) for row in rows]
    return [
        Example(messages=tuple(Message(role=t["role"], content=t["content"]) for t in row), source=f"{name}:{i}")
        for i, row in enumerate(turns, 1)
    ]


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("name", ["support-tickets.jsonl", "brand-voice.jsonl"])
def test_the_shipped_data_gives_no_findings(name: str) -> None:
    assert reviewed(shipped(name)) == {}


def test_diversity_counts_texts_openings_and_words_exactly() -> None:
    rows = [
        example("It is in the shed.", "Where is my kettle?", 1),
        example("It is in the barn.", "where  is MY lamp?", 2),
        example("It is in the shed.", "Where is my kettle?", 3),
        example("Gone", "Why?", 4),
    ]
    facts = review_of(rows).diversity()
    assert facts.num_rows == 4
    assert (facts.questions.num_distinct, facts.questions.num_openings, facts.questions.median_words) == (3, 2, 4)
    assert facts.questions.openings == (("where is my", 3), ("why?", 1))
    assert (facts.answers.num_distinct, facts.answers.openings) == (3, (("it is in", 3), ("gone", 1)))
    assert facts.answers.distinct_ngrams == (7 / 16, 5 / 12, 4 / 9)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("  What IS\nthe time?", "what is the"),
        ("Hi", "hi"),
        ("", ""),
        ("https://fernhill.shop/kettle is", "https: is"),
        ("今天的天气非常好我们一起去公园散步吧再买一些东西", "今天的天气非"),
    ],
)
def test_an_opening_is_three_words_whatever_their_case(text: str, begins: str) -> None:
    assert opening(text) == begins


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_a_tally_is_a_counter(texts: list[str]) -> None:
    tally = Tally()
    for text in texts:
        tally.add(text, text.upper())
    known = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))
    assert [(found.text, found.num_rows) for found in tally.most_common()] == [(t.upper(), n) for t, n in known]
    assert tally.num_distinct() == len(known)
    assert all(
        tally.rows_of(f.key).tolist() == [i for i, t in enumerate(texts) if t.upper() == f.text]
        for f in tally.most_common()
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_tally_of_very_many_texts_still_counts_the_frequent_exactly(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 100)
    texts = ["often"] * 400 + ["seldom"] * 250 + [str(i) for i in range(4000)]
    random.Random(seed).shuffle(texts)
    tally = Tally()
    for text in texts:
        tally.add(text, text)
        assert len(tally._shown) <= 100
    assert [(found.text, found.num_rows) for found in tally.most_common()] == [("often", 400), ("seldom", 250)]
    assert tally.num_distinct() == 4002


def test_the_sample_is_a_fair_draw_and_the_same_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 300)
    rows = [(i, f"rows.jsonl:{i}", f"prompt {i % 900}", "q", f"answer {i % 900}") for i in range(1000)]
    drawn = []
    for seed in range(3):
        sample = Sample()
        for row in random.Random(seed).sample(rows, len(rows)):
            sample.add(*row)
        drawn.append([row.number for row in sample.rows()])
    assert drawn[0] == drawn[1] == drawn[2] and len(set(drawn[0])) == 300
    assert 100 < sum(number < 500 for number in drawn[0]) < 200


def test_of_equal_rows_the_sample_takes_the_same_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 3)
    drawn = []
    for order in (range(9), range(8, -1, -1)):
        sample = Sample()
        for i in order:
            sample.add(i, f"rows.jsonl:{i}", "p", "q", "a")
        drawn.append([row.number for row in sample.rows()])
    assert drawn[0] == drawn[1] and len(drawn[0]) == 3


def test_shares_of_distinct_phrases() -> None:
    assert distinct_ngrams(["a b a b", "A b"], 1) == 2 / 6
    assert distinct_ngrams(["a b a b", "a b"], 2) == 2 / 4
    assert distinct_ngrams(["a"], 2) == 1.0


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, 世", "Latin"),
        ("Café déjà vu – naïve", "Latin"),
        ("Привет, это Python", "Cyrillic"),
        ("您好，我是 {{name}}，由 {{author}} 开发", "Han or kana"),
        ("こんにちは世界", "Han or kana"),
        ("안녕하세요", "Hangul"),
        ("مرحبا بالعالم", "Arabic"),
        ("γειά σου", "Greek"),
    ],
)
def test_the_script_of_a_text(text: str, script: str) -> None:
    assert list(SCRIPTS)[script_of(text)] == script


@pytest.mark.parametrize("text", ["", "12:30 – 14:00", "…😀"])
def test_a_text_without_letters_has_no_script(text: str) -> None:
    assert script_of(text) == NO_SCRIPT


def test_an_answer_in_another_script_stands_out_unless_the_question_asks_for_it_or_is_in_it() -> None:
    other = "Чайник готов."
    rows = [
        example(other, "Is the kettle ready?", 1),
        example(other, "Say in Russian that it is ready.", 2),
        example(other, "Готов ли чайник?", 3),
        example("12.", "How many?", 4),
    ]
    found = reviewed([*ordinary(40, first=9), *rows])["data/script"]
    assert (found.rows, found.severity) == (("rows.jsonl:1",), "warning")
    half = [example(other, f"Number {i}?", 100 + i) for i in range(40)]
    assert "data/script" not in reviewed([*ordinary(40), *half])
    assert "data/script" not in reviewed([*ordinary(18, first=9), rows[0]])


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


NAMES = ("Okonkwo", "Lindqvist", "Barbieri", "Tanaka", "Moreau", "Petrov", "Hassan", "Novak", "Silva", "Keller")


def knowing(num_rows: int) -> list[Example]:
    return [
        example(f"It was made by {NAMES[i % 10]}{'aeiou'[i // 10]} for us.", f"Who made it, {i}?", 500 + i)
        for i in range(num_rows)
    ]


@pytest.mark.parametrize(("num_rows", "severity"), [(20, None), (21, "note"), (50, "note")])
def test_answers_that_know_what_no_prompt_says_are_a_case_for_retrieval(num_rows: int, severity: str | None) -> None:
    found = reviewed([*ordinary(20), *knowing(num_rows)]).get("data/knowledge")
    assert (found and found.severity) == severity and (not found or found.count == num_rows)


def test_a_fact_that_many_answers_share_is_style() -> None:
    rows = [
        example(f"{row.expected[:-1]}, says Wren Fernhill.", row.prompt[0].content, i)
        for i, row in enumerate(ordinary(60))
    ]
    assert "data/knowledge" not in reviewed(rows)
    assert reviewed(knowing(50))["data/knowledge"].severity == "warning"


@pytest.mark.parametrize(
    ("prompt", "answer", "facts"),
    [
        (
            "Who?",
            "It was Okonkwo in 1987, see https://fernhill.shop/a.",
            ["Okonkwo", "1987", "https://fernhill.shop/a."],
        ),
        ("Was it okonkwo in 1987?", "Yes, it was Okonkwo in 1987.", []),
        ("What of 12,500?", "That is 12500, and 12,500 it was.", []),
        ("When?", "On the next Thursday in May, or in 3 weeks.", []),
        ("How many?", "That is 12 * 120 = 1440 of them, or 450.", ["450"]),
        ("Wer?", "Der Kessel steht im Schuppen und der Deckel liegt auf dem Tisch im Haus an der Wand.", []),
        ("Who?", "Nobody. Okonkwo\nKeller: we do.", []),
    ],
)
def test_facts_are_addresses_numbers_and_names_that_the_prompt_does_not_hold(
    prompt: str, answer: str, facts: list[str]
) -> None:
    assert list(unstated_facts(prompt, answer)) == facts


def with_answers(answers: Iterable[str], label: bool = False) -> list[Example]:
    return [
        example(answer, f"{row.prompt[0].content}", i, **({"label": answer[:4]} if label else {}))
        for i, (answer, row) in enumerate(zip(answers, ordinary(2000), strict=False), 1)
    ]


def test_few_short_answers_are_classes_with_their_rows() -> None:
    assert list(review_of(with_answers(["yes", "no ", "yes"] * 10)).classes().items()) == [("yes", 20), ("no", 10)]


@pytest.mark.parametrize(
    "answers",
    [
        ["yes"] * 30,
        ["yes", "no"] * 9 + ["perhaps"],
        [f"class {i % 51}" for i in range(1000)],
        ["yes", "x" * 61] * 20,
        ["yes", "n\no"] * 20,
    ],
)
def test_one_answer_or_many_or_long_ones_are_no_classes(answers: list[str]) -> None:
    assert review_of(with_answers(answers)).classes() == {}


def test_labels_are_the_classes_where_rows_have_them() -> None:
    rows = with_answers(["good for all of us, and for the kettle that we have had in the shed since May", "bad."], True)
    assert dict(review_of(rows).classes()) == {"good": 1, "bad.": 1}


def balance(**num_rows: int) -> dict[str, Finding]:
    return reviewed(with_answers([name for name, num in num_rows.items() for _ in range(num)]))


def test_classes_with_few_rows_and_one_with_most_are_found() -> None:
    found = balance(yes=90, no=9, perhaps=1)
    assert found["data/small-class"].count == 10 and "9 of 'no', 1 of 'perhaps'" in found["data/small-class"].what
    assert found["data/imbalance"].count == 90 and ": 'yes'" in found["data/imbalance"].what
    assert balance(yes=40, no=10) == {}


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
