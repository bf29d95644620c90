"""Parts of the test rows, by class, length and source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from runner.conversation import Example, Message
from runner.evaluate.slices import MAX_SLICES, Slice, slice_rows
from runner.scoring import Scored, Scoring, mean_of
from tests.evaluate.sides import rows_of, scoring_of, side
from tests.fakes import question

EXACT = scoring_of("exact_match")


def sides_of(
    rows: Sequence[Example],
    base: Sequence[str | None],
    tuned: Sequence[str | None],
    scoring: Scoring = EXACT,
    losses: Sequence[float] | None = None,
) -> dict[str, Scored]:
    return {"base": side(scoring, rows, base, losses), "tuned": side(scoring, rows, tuned, losses)}


def sliced(sides: dict[str, Scored], by: str, scoring: Scoring = EXACT) -> dict[str, Slice]:
    return {found.name: found for found in slice_rows(sides, scoring, 0.02) if found.by == by}


def labelled(labels: Sequence[str | None]) -> list[Example]:
    """Rows whose answers are no classes, with these labels of the data."""
    rows = rows_of([f"answer number {i}" for i in range(len(labels))])
    return [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]


def test_each_class_has_its_scores_and_the_difference() -> None:
    rows = labelled(["warm"] * 8 + ["cold"] * 6)
    right = [row.expected for row in rows]
    found = sliced(sides_of(rows, ["?"] * 14, right[:8] + ["?"] * 6), "class")
    assert list(found) == ["cold", "warm"]
    assert {name: one.num_rows for name, one in found.items()} == {"cold": 6, "warm": 8}
    assert found["warm"].scores == {"base": 0, "tuned": 1}
    assert (found["warm"].difference, found["cold"].difference) == (1, 0)
    assert found["warm"].ci_low is not None and found["warm"].ci_low > 0
    assert (found["cold"].ci_low, found["cold"].ci_high) != (None, None)


def test_the_slices_of_one_way_are_all_rows_and_no_row_twice() -> None:
    rows = [
        replace(row, source=f"{'ab'[i % 2]}.jsonl:{i}", label="xyz"[i % 3])
        for i, row in enumerate(rows_of([f"answer {i}" for i in range(30)]))
    ]
    found = slice_rows(sides_of(rows, ["?"] * 30, [row.expected for row in rows]), EXACT, 0.02)
    for by in ("class", "source", "length"):
        assert sum(one.num_rows for one in found if one.by == by) == 30


def test_without_labels_the_expected_answers_are_the_classes_where_they_are_some() -> None:
    rows = rows_of(["Tea", "tea", "Milk."] * 5)
    found = sliced(sides_of(rows, ["?"] * 15, ["milk"] * 15), "class")
    assert {name: (one.num_rows, one.difference) for name, one in found.items()} == {"tea": (10, 0), "milk": (5, 0)}
    assert sliced(sides_of(labelled([None] * 9), ["?"] * 9, ["?"] * 9), "class") == {}


def test_a_row_without_a_label_is_a_slice_of_its_own_kind() -> None:
    assert set(sliced(sides_of(labelled(["warm"] * 4 + [None] * 4), ["?"] * 8, ["?"] * 8), "class")) == {"warm", "none"}


def test_one_class_or_one_source_makes_no_slices() -> None:
    assert slice_rows(sides_of(labelled(["warm"] * 8), ["?"] * 8, ["?"] * 8), EXACT, 0.02) == ()


def test_sources_are_files_without_their_rows() -> None:
    rows = [
        replace(row, source=source)
        for row, source in zip(
            labelled([None] * 4), ["a.jsonl:1", "a.jsonl:2", "hub/x@main:train:7", "hub/x@main:train:8"], strict=True
        )
    ]
    assert set(sliced(sides_of(rows, ["?"] * 4, ["?"] * 4), "source")) == {"a.jsonl", "hub/x@main:train"}


def test_lengths_are_thirds_of_the_questions_by_size() -> None:
    rows = [question("q" * (i + 1), f"answer {i}") for i in range(30)]
    found = sliced(sides_of(rows, ["?"] * 30, [row.expected for row in rows]), "length")
    assert list(found) == ["1: up to 10 characters", "2: up to 21 characters", "3: over 21 characters"]
    assert [one.num_rows for one in found.values()] == [10, 11, 9]
    assert sliced(sides_of(rows[:14], ["?"] * 14, ["?"] * 14), "length") == {}, "too few rows for thirds"


def test_questions_of_one_length_are_not_sliced_by_it() -> None:
    rows = [question(f"q{i:03}", f"answer {i}") for i in range(30)]
    assert sliced(sides_of(rows, ["?"] * 30, ["?"] * 30), "length") == {}


def test_the_system_prompt_makes_no_question_longer() -> None:
    rows = [
        replace(row, messages=(Message(role="system", content="s" * 50 * i), *row.messages))
        for i, row in enumerate(question(f"q{i:03}", f"answer {i}") for i in range(30))
    ]
    assert sliced(sides_of(rows, ["?"] * 30, ["?"] * 30), "length") == {}


@pytest.mark.parametrize("num_rows", [1, 2])
@pytest.mark.parametrize("name", ["exact_match", "macro_f1", "perplexity"])
def test_the_smallest_slices_have_scores_and_claim_nothing(num_rows: int, name: str) -> None:
    scoring = scoring_of(name)
    rows = rows_of(["tea"] * num_rows + ["milk"] * (12 - num_rows))
    sides = sides_of(rows, ["milk"] * 12, [row.expected for row in rows], scoring, [0.5] * 12)
    found = sliced(sides, "class", scoring)["tea"]
    assert found.num_rows == num_rows and found.difference is not None
    if num_rows == 1:
        assert (found.ci_low, found.ci_high) == (None, None)
    elif name != "perplexity":
        assert found.ci_low is not None and found.ci_low < 0 < found.difference


@pytest.mark.parametrize("name", ["macro_f1", "perplexity"])
def test_a_pooled_metric_is_pooled_within_its_slice(name: str) -> None:
    scoring = scoring_of(name)
    rows = [
        replace(row, source=f"{'ab'[i % 2]}.jsonl:{i}")
        for i, row in enumerate(rows_of([("tea", "milk", "juice")[i % 3] for i in range(24)]))
    ]
    base = side(scoring, rows, ["tea"] * 24, [0.2 * (i % 5) for i in range(24)])
    tuned = side(scoring, rows, [row.expected for row in rows], [0.1 * (i % 4) for i in range(24)])
    found = sliced({"base": base, "tuned": tuned}, "source", scoring)
    assert set(found) == {"a.jsonl", "b.jsonl"}
    for start, one in enumerate(found.values()):
        members = range(start, 24, 2)
        before, after = (mean_of(scoring, scored, name, members) for scored in (base, tuned))
        assert one.scores == {"base": pytest.approx(before), "tuned": pytest.approx(after)}
        assert before is not None and after is not None
        assert one.difference == pytest.approx(after - before)


def test_a_slice_without_scores_says_so_with_nothing() -> None:
    rows = labelled(["warm"] * 4 + ["cold"] * 4)
    found = sliced(sides_of(rows, [None] * 4 + ["?"] * 4, ["?"] * 8), "class")
    assert (found["warm"].scores, found["warm"].difference) == ({"base": None, "tuned": 0}, None)
    assert found["cold"].difference == 0


def test_groups_count_within_slices_too() -> None:
    rows = labelled(["warm"] * 12 + ["cold"] * 12)
    answers = [row.expected if i % 12 < 6 else "?" for i, row in enumerate(rows)]
    together = [replace(row, group=f"g{i // 6}") for i, row in enumerate(rows)]
    alone, grouped = (sliced(sides_of(some, ["?"] * 24, answers), "class")["warm"] for some in (rows, together))
    assert alone.ci_low is not None and grouped.ci_low is not None and grouped.ci_low < alone.ci_low


def test_only_the_largest_slices_are_shown() -> None:
    labels = [f"class {i:02}" for i in range(25) for _ in range(1 + (i >= 5))]
    found = sliced(sides_of(labelled(labels), ["?"] * len(labels), ["?"] * len(labels)), "class")
    assert list(found) == [f"class {i:02}" for i in range(5, 25)] and len(found) == MAX_SLICES


def test_every_side_has_a_score_in_every_slice_and_the_difference_is_to_base() -> None:
    rows = labelled(["warm"] * 4 + ["cold"] * 4)
    right = [row.expected for row in rows]
    sides = {
        "base": side(EXACT, rows, ["?"] * 8),
        "few_shot": side(EXACT, rows, right),
        "tuned": side(EXACT, rows, right),
    }
    found = sliced(sides, "class")
    assert found["warm"].scores == {"base": 0, "few_shot": 1, "tuned": 1}
    assert found["warm"].difference == 1


def test_the_order_of_rows_changes_no_slice() -> None:
    rows = [
        replace(row, label="xy"[i % 2], group=f"g{i // 3}")
        for i, row in enumerate(question("q" * (i + 1), f"answer {i}") for i in range(30))
    ]
    outputs = [row.expected if i % 4 else "?" for i, row in enumerate(rows)]
    there = slice_rows(sides_of(rows, ["?"] * 30, outputs), EXACT, 0.02)
    back = slice_rows(sides_of(rows[::-1], ["?"] * 30, outputs[::-1]), EXACT, 0.02)
    assert there == back
