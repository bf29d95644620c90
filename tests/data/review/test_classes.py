"""Answers that are classes: their rows, their balance, their spelling."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.data.review import Finding
from runner.data.review.classes import spelling_key
from tests.data.review.rows import (
    KEY,
    example,
    ordinary,
    review_of,
    reviewed,
    with_answers,
)


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


@pytest.mark.parametrize("label", [False, True])
def test_second_spellings_of_a_class_are_found(label: bool) -> None:
    names = ["yes"] * 20 + ["no"] * 20 + ["Yes."] * 2 + ["NO"]
    found = reviewed(with_answers(names, label))
    assert set(found) == {"data/class-spelling"}
    spelling = found["data/class-spelling"]
    assert (spelling.severity, spelling.count) == ("warning", 3)
    assert spelling.rows == ("rows.jsonl:41", "rows.jsonl:42", "rows.jsonl:43")
    assert "3 of 43 rows (7.0 %): 2 of 'Yes.' for 'yes', 1 of 'NO' for 'no' (" in spelling.what


def test_answers_that_are_no_classes_have_no_second_spelling() -> None:
    rows = [*ordinary(60), *(replace(row, source=f"more.jsonl:{i}") for i, row in enumerate(ordinary(30), 1))]
    shouted = [example(row.expected.upper(), row.prompt[0].content, 200 + i) for i, row in enumerate(rows)]
    assert "data/class-spelling" not in reviewed([*rows, *shouted])


@pytest.mark.parametrize(
    "names",
    [("yes", "Yes", "YES.", ' "yes"', "(yes)", "yes!", "`Yes`:", "“yes”"),
     ("not spam", "not_spam", "Not-Spam", "not  spam"),
     ("B", "b)", "(B)"), ("STRASSE", "straße"), ("2", "2.")],
)  # fmt: skip
def test_names_that_say_the_same_have_one_key(names: tuple[str, ...]) -> None:
    assert len(set(map(spelling_key, names))) == 1


@pytest.mark.parametrize(
    "names",
    [("A", "A+", "A-", "A*"), ("C", "C++", "C#"), ("1", "-1", "+1", "1.5", ".1", "15"), ("<=50K", ">50K"),
     (":)", ":(", ":"),
     ("?", "!", ""), ("1-2", "12", "1 2"), ("notspam", "not spam")],
)  # fmt: skip
def test_names_that_signs_tell_apart_are_different(names: tuple[str, ...]) -> None:
    assert len(set(map(spelling_key, names))) == len(names)


@pytest.mark.parametrize(("answer", "label"), [(" yes\n", None), ("yes", "x" * 70), ("yes", KEY)])
def test_the_name_of_a_rows_class_is_the_one_that_the_classes_have(answer: str, label: str | None) -> None:
    review = review_of(with_answers(["no"] * 30, label is not None))
    name = review.add(replace(example(answer, row=99), label=label))
    assert review.classes()[name] == 1
