"""Answers that are classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.metrics import METRICS, Answer, Confusion, Score, confusion, find_classes
from tests.metrics.scores import score

LABELS = ("billing", "delivery", "other")
CLASSES = frozenset(LABELS)
PAIRS = st.lists(st.tuples(st.sampled_from(["billing", "Delivery.", "other", "no idea", ""]), st.sampled_from(LABELS)))


def answers(pairs: Sequence[tuple[str, str]], classes: frozenset[str] = CLASSES) -> list[Answer]:
    return [Answer(output=output, expected=expected, classes=classes) for output, expected in pairs]


def macro_f1(pairs: Sequence[tuple[str, str]], classes: frozenset[str] = CLASSES) -> float:
    pool = METRICS["macro_f1"].pool
    assert pool is not None
    pooled = pool(answers(pairs, classes))
    assert len(pooled.rows) == len(pairs)
    return float(pooled.statistic(pooled.rows.sum(axis=0)))


def plain_macro_f1(pairs: Sequence[tuple[str, str]]) -> float:
    """As a textbook has it: from precision and recall, over the classes that are expected."""
    normal = [(output.lower().rstrip("."), expected) for output, expected in pairs]
    scores = []
    for label in {expected for _, expected in normal}:
        right = sum(output == expected == label for output, expected in normal)
        given, wanted = sum(o == label for o, _ in normal), sum(e == label for _, e in normal)
        precision, recall = right / given if given else 0, right / wanted
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    return float(np.mean(scores))


@pytest.mark.parametrize(
    ("expected", "classes"),
    [
        (["yes", "no", "yes", "no", "yes", "yes"], {"yes", "no"}),
        (["Yes", "yes.", "no", " NO", "yes", "yes"], {"yes", "no"}),
        (["yes"] * 3, {"yes"}),
        (["yes", "no"], None),
        (["yes", "no", "no", "no", "yes"], None),
        ([f"answer {i}" for i in range(60)], None),
        ([f"class {i}" for i in range(50)] * 3, {f"class {i}" for i in range(50)}),
        ([f"class {i}" for i in range(51)] * 4, None),
        (["yes"] * 9 + ["y" * 61], None),
        (["yes"] * 9 + ["y" * 60], {"yes", "y" * 60}),
        (["yes"] * 9 + ["two\nlines"], None),
        (["はい", "いいえ。"] * 3, {"はい", "いいえ"}),
        ([], None),
    ],
)
def test_answers_are_classes_when_they_are_short_few_and_repeated(
    expected: list[str], classes: set[str] | None
) -> None:
    assert find_classes(expected) == classes
    shuffled = Random(1).sample(expected, len(expected))
    assert find_classes(shuffled) == classes


@pytest.mark.parametrize(
    ("output", "value"), [("billing", 1), (" “Billing”.", 1), ("delivery", 0), ("", 0), ("billing, I think", 0)]
)
@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_a_class_is_right_or_wrong(name: str, output: str, value: float) -> None:
    assert score(name, output, "billing", classes=CLASSES) == Score(value=value)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_answers_that_are_no_classes_have_no_accuracy(name: str) -> None:
    found = score(name, "billing", "billing")
    assert found == Score(value=None, reason="the expected answers are no classes")


def test_macro_f1_counts_a_rare_class_like_a_frequent_one() -> None:
    always = [("billing", "billing")] * 9 + [("billing", "delivery")]
    assert macro_f1(always) == pytest.approx((18 / 19 + 0) / 2)
    assert macro_f1([("billing", "billing")] * 9 + [("delivery", "delivery")]) == 1


def test_a_class_that_no_row_expects_has_no_f1() -> None:
    assert macro_f1([("billing", "billing"), ("delivery", "delivery")]) == 1
    assert macro_f1([("billing", "billing"), ("other", "billing")]) == pytest.approx(2 / 3)


def test_an_answer_that_is_no_class_is_wrong_for_its_row_alone() -> None:
    assert macro_f1([("billing", "billing"), ("no idea", "delivery")]) == pytest.approx(1 / 2)


@settings(deadline=None, max_examples=100)
@given(PAIRS.filter(bool), st.randoms(use_true_random=False))
def test_macro_f1_is_the_mean_over_classes_whatever_the_order(pairs: list[tuple[str, str]], random: Random) -> None:
    assert macro_f1(pairs) == pytest.approx(plain_macro_f1(pairs))
    assert macro_f1(random.sample(pairs, len(pairs))) == pytest.approx(macro_f1(pairs))


@settings(deadline=None, max_examples=50)
@given(PAIRS.filter(bool), st.integers(0, 1000))
def test_macro_f1_of_many_resamples_is_that_of_each(pairs: list[tuple[str, str]], seed: int) -> None:
    pool = METRICS["macro_f1"].pool
    assert pool is not None
    pooled = pool(answers(pairs))
    drawn = np.random.default_rng(seed).integers(0, len(pairs), (2, 3, len(pairs)))
    found = pooled.statistic(pooled.rows[drawn].sum(axis=2))
    assert found.shape == (2, 3)
    each = [[plain_macro_f1([pairs[i] for i in rows]) for rows in some] for some in drawn]
    assert found == pytest.approx(np.array(each))


def test_the_confusion_matrix_shows_what_was_taken_for_what() -> None:
    expected = ["delivery", "delivery", "Delivery", "billing", "billing", "other"]
    outputs = ["delivery", "Billing!", "lost", "billing", "delivery", "other"]
    found = confusion(outputs, expected, CLASSES)
    assert found == Confusion(
        labels=("delivery", "billing", "other"), counts=((1, 1, 0, 1), (1, 1, 0, 0), (0, 0, 1, 0))
    )
    assert json.loads(json.dumps(asdict(found)))["counts"][0] == [1, 1, 0, 1]


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_the_confusion_matrix_holds_every_row_once(pairs: list[tuple[str, str]]) -> None:
    found = confusion([output for output, _ in pairs], [expected for _, expected in pairs], CLASSES)
    right = sum(score("accuracy", output, expected, classes=CLASSES).value or 0 for output, expected in pairs)
    assert sum(map(sum, found.counts)) == len(pairs)
    assert sum(row[i] for i, row in enumerate(found.counts)) == right
    assert set(found.labels) == CLASSES
