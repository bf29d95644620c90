"""Answers that are classes: which, how often they are right, and what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.metrics.base import Answer, Pool, Score, share, unscored
from runner.metrics.words import normalise

if TYPE_CHECKING:
    import numpy as np

MAX_CLASSES, MAX_CHARS, MIN_ROWS_EACH = 50, 60, 3


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How many answers of each class (rows of `counts`) were taken for which (columns); the column behind the last
    label counts answers that are no class. The labels with the most rows come first."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def find_classes(expected: Sequence[str]) -> frozenset[str] | None:
    """The normalised classes among all expected answers of a part; None when they are no classes.

    They are when each is one line of at most 60 characters, and there are at most 50 kinds, with on average three
    rows or more.
    """
    if any(len(text := answer.strip()) > MAX_CHARS or "\n" in text for answer in expected):
        return None
    kinds = frozenset(map(normalise, expected))
    few = len(kinds) <= min(MAX_CLASSES, len(expected) / MIN_ROWS_EACH)
    return kinds if kinds and few else None


def accuracy(answer: Answer) -> Score:
    """1 when the normalised answer is the expected class."""
    if answer.classes is None:
        return unscored("the expected answers are no classes")
    return share(normalise(answer.output) == normalise(answer.expected))


def pool_macro_f1(answers: Sequence[Answer]) -> Pool:
    """Macro F1 of answers with classes: the mean of the classes' F1, over the classes that occur among the expected
    answers of the rows summed. One that a resample leaves out has no F1 there; answers that name it are still wrong
    for the class they should have named. Rows hold, for each class, 1 for a true positive, a false positive and a
    false negative."""
    place = {label: i for i, label in enumerate(sorted(answers[0].classes or ()))}
    import numpy as np

    rows = np.zeros((len(answers), len(place), 3))
    for row, answer in zip(rows, answers, strict=True):
        wanted, given = place[normalise(answer.expected)], place.get(normalise(answer.output))
        row[wanted, 0 if given == wanted else 2] = 1
        if given is not None and given != wanted:
            row[given, 1] = 1
    return Pool(rows=rows.reshape(len(answers), -1), statistic=_macro_f1)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    right, falsely, missed = counts[..., 0], counts[..., 1], counts[..., 2]
    support = right + missed
    f1 = np.where(support > 0, 2 * right / np.maximum(2 * right + falsely + missed, 1), 0)
    found: np.ndarray = f1.sum(axis=-1) / np.maximum((support > 0).sum(axis=-1), 1)
    return found


def confusion(outputs: Sequence[str], expected: Sequence[str], classes: frozenset[str]) -> Confusion:
    """What was answered where each class was expected; every expected answer must be one of the classes."""
    import numpy as np

    wanted = [normalise(text) for text in expected]
    rows = Counter(wanted)
    labels = sorted(classes, key=lambda label: (-rows[label], label))
    place = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), int)
    for text, label in zip(outputs, wanted, strict=True):
        counts[place[label], place.get(normalise(text), len(labels))] += 1
    return Confusion(labels=tuple(labels), counts=tuple(tuple(row) for row in counts.tolist()))
