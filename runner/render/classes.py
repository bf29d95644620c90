"""What was taken for what: a matrix of few classes, the most frequent confusions of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_CLASSES = 12
MOST_CONFUSIONS = 12
NO_CLASS = "no class"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Rows of an expected class that got this answer, and their share of that class's rows."""

    num: int
    share: float
    is_right: bool


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Rows of one class that were taken for another, by side."""

    expected: str
    answered: str
    nums: Mapping[str, int]


def fits_matrix(confusion: Mapping[str, Any]) -> bool:
    """Whether a side's classes are few enough to be shown as a matrix."""
    return len(confusion["labels"]) <= MOST_CLASSES


def cells(counts: Sequence[int], place: int) -> tuple[Cell, ...]:
    """The row of the matrix for the class in that place."""
    total = sum(counts) or 1
    return tuple(Cell(num=num, share=num / total, is_right=i == place) for i, num in enumerate(counts))


def confused(confusions: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[Confused, ...], int]:
    """The pairs of classes most often confused, counted over base and tuned, the largest first; and how many there
    are in all."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for side, confusion in confusions.items():
        labels = confusion["labels"]
        for expected, counts in zip(labels, confusion["counts"], strict=True):
            for answered, num in zip([*labels, NO_CLASS], counts, strict=True):
                if num and answered != expected:
                    found.setdefault((expected, answered), dict.fromkeys(confusions, 0))[side] = num
    ranked = sorted(found.items(), key=lambda item: (-item[1].get("base", 0) - item[1].get("tuned", 0), item[0]))
    pairs = tuple(Confused(expected=e, answered=a, nums=nums) for (e, a), nums in ranked[:MOST_CONFUSIONS])
    return pairs, len(found)
