"""How a finding is told: exact counts and shares, places in order; repeats and contradictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.conversation import Example, Message
from runner.data.review import Finding, repeats
from runner.data.review import findings as module
from tests.data.review.rows import (
    example,
    ordinary,
    reviewed,
)


def test_the_sentence_has_count_share_examples_and_the_first_three_places() -> None:
    rows = [example(f"I am {{{{{'name' if i < 4 else 'author'}}}}}.", row=i + 1) for i in range(5)]
    finding = reviewed([*rows, *ordinary(995, first=6)])["data/placeholder"]
    assert finding.what == (
        "A placeholder that nobody filled stands in 5 of 1,000 rows (0.5 %), such as {{name}} and {{author}} "
        "(rows.jsonl:1, :2, :3 ...)."
    )
    assert finding.rows == tuple(f"rows.jsonl:{i}" for i in range(1, 6))


def test_places_are_in_order_of_file_and_row_and_a_source_without_a_row_is_a_place() -> None:
    text = "Hello, I am {{name}}."
    sources = ("b.jsonl:2", "a.jsonl:10", "b.jsonl:1", "a.jsonl:9", "inline")
    rows = [Example(messages=(Message(role="assistant", content=text),), source=source) for source in sources]
    finding = reviewed(rows)["data/placeholder"]
    assert finding.rows == ("a.jsonl:9", "a.jsonl:10", "b.jsonl:1", "b.jsonl:2", "inline")
    assert "(a.jsonl:9, :10, b.jsonl:1 ...)" in finding.what


def test_places_without_a_row_are_shown_in_full() -> None:
    rows = [replace(example("Hi {{name}}."), source=source) for source in ("https://a.test/x", "https://a.test/y")]
    assert "(https://a.test/x, https://a.test/y)" in reviewed(rows)["data/placeholder"].what


def test_the_places_are_capped_and_the_count_is_exact() -> None:
    finding = reviewed([example("Hi {{name}}.", f"{i}", row=i) for i in range(1005)])["data/placeholder"]
    assert (finding.count, len(finding.rows), finding.rows[-1]) == (1005, 1000, "rows.jsonl:999")


@pytest.mark.parametrize(
    ("count", "total", "shown"),
    [(1, 1, "100 %"), (3, 420, "0.7 %"), (1, 100_000, "<0.1 %"), (99_999, 100_000, ">99.9 %"), (1, 2, "50.0 %")],
)
def test_a_share_never_rounds_to_nothing_or_to_everything(count: int, total: int, shown: str) -> None:
    assert module._percent(count, total) == shown


def keys(text: str) -> np.ndarray:
    return np.array([ord(char) for char in text], dtype=np.uint64)


def found_repeats(questions: str, answers: str) -> dict[str, Finding]:
    return {f.code: f for f in repeats(keys(questions), keys(answers), lambda i: f"rows.jsonl:{i + 1}")}


def test_repeats_and_contradictions_name_the_rows() -> None:
    found = found_repeats("abacbacd", "xyxzqxzw")
    assert found["data/duplicates"].rows == ("rows.jsonl:3", "rows.jsonl:6", "rows.jsonl:7")
    assert found["data/contradictions"].rows == ("rows.jsonl:2", "rows.jsonl:5")
    assert "2 of 8 rows (25.0 %); questions: 1 (rows.jsonl:2, :5)." in found["data/contradictions"].what
    assert found["data/duplicates"].count == 3 and set(found) == {"data/duplicates", "data/contradictions"}


@pytest.mark.parametrize(("questions", "answers"), [("", ""), ("a", "x"), ("abc", "xxx")])
def test_different_questions_repeat_nothing(questions: str, answers: str) -> None:
    assert found_repeats(questions, answers) == {}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=12))
def test_repeats_agree_with_a_plain_count(pairs: list[tuple[str, str]]) -> None:
    found = found_repeats("".join(q for q, _ in pairs), "".join(a for _, a in pairs))
    torn = [i for i, (q, a) in enumerate(pairs, 1) if any(other != a for same, other in pairs if same == q)]
    extra = [i + 1 for i, pair in enumerate(pairs) if pair in pairs[:i]]
    rows = {code: [int(place.split(":")[1]) for place in finding.rows] for code, finding in found.items()}
    assert rows == {c: r for c, r in (("data/contradictions", torn), ("data/duplicates", extra)) if r}
