"""What is said of rows that are like others: near-duplicates, leaks pair by pair, classes that a part lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from runner.data.division import Division, Entry
from runner.data.review import LISTED, Finding
from runner.data.split import PARTS
from runner.data.store import short_names
from runner.errors import Problem, Where

MANY = 0.05  # of the rows withheld: worth a warning


class Places:
    """Where each example stands, as ``file:row``."""

    def __init__(self, entries: Sequence[Entry]):
        self._names = short_names([entry.file.name for entry in entries])
        self._ends = np.cumsum([entry.file.num_examples for entry in entries])
        self._rows = [entry.file.numbers("row") for entry in entries]  # counted from their end below

    def __call__(self, number: int) -> str:
        file = int(np.searchsorted(self._ends, number, side="right"))
        row = self._rows[file][number - int(self._ends[file])]
        return f"{self._names[file]}:{row}"


def near_finding(division: Division, place: Places) -> Iterator[Finding]:
    """The near-duplicates, those that were withheld included."""
    rows = np.unique(division.pairs)
    if len(rows):
        yield Finding(
            code="data/near-duplicates",
            severity="note",
            what=f"{len(rows):,} of {len(division.parts):,} questions are nearly the same as another one "
            f"({_told(division.pairs, place)}).",
            fix="Nothing for the split, which keeps them apart; in training they count as often as they stand there.",
            rows=tuple(map(place, rows[:LISTED].tolist())),
            count=len(rows),
        )


def leaks(division: Division, place: Places) -> Iterator[dict[str, Any]]:
    """Every pair of like rows that different parts laid claim to."""
    for i, j in division.leaks.tolist():
        one, other = sorted((i, j), key=lambda number: division.partners[number] < 0)
        yield {
            "withheld": [place(n) for n in (one, other) if division.partners[n] >= 0],
            "rows": [place(one), place(other)],
            "parts": [PARTS[division.parts[one]], PARTS[division.parts[other]]],
        }


def leak_sample(division: Division, place: Places) -> str:
    """How many pairs there are, and the first of them."""
    return f"data/leaks.jsonl names {_told(division.leaks, place)}"


def _told(pairs: np.ndarray, place: Places) -> str:
    first = "; ".join(f"{place(i)} ~ {place(j)}" for i, j in pairs[:3].tolist())
    return f"{len(pairs):,} pairs: {first}{' ...' if len(pairs) > 3 else ''}"


def split_findings(
    given: np.ndarray, division: Division, classes: Mapping[str, Mapping[str, int]], place: Places
) -> Iterator[Problem]:
    """What was withheld (a leak where it is like a `given` row, (N,)), general rows that are missing, and classes that
    cannot be learnt or judged."""
    away = np.flatnonzero(division.partners >= 0)
    withheld, leaked = len(away), bool(given[away].any() or given[division.partners[away]].any())
    if withheld:
        many = withheld > MANY * len(division.parts)
        yield Problem(
            code="data/leaks" if leaked else "data/withheld",
            what=f"{withheld:,} of {len(division.parts):,} rows are like a row of another part, or of its group, and "
            f"are used in none, so that nothing leaks ({leak_sample(division, place)}).",
            fix="Remove them from one side."
            if leaked
            else "Where a column says what belongs together, name it in data.group_by, and no row is lost.",
            severity="warning" if leaked or many else "note",
        )
    if division.num_missing:
        yield Problem(
            code="data/mix-too-small",
            what=f"The general rows of data.mix are {division.num_missing:,} fewer than were asked for.",
            where=Where(key="data.mix"),
            fix="Add general rows, or ask for fewer.",
            severity="warning",
        )
    for name, parts in classes.items():
        missing = [part for part in ("train", "test") if not parts.get(part)]
        if missing:
            rows, where = sum(parts.values()), " and the ".join(missing)
            yield Problem(
                code="data/class-missing",
                what=f"The class '{name}' ({rows} rows) has no row in the {where} part.",
                fix="Add rows of it; its score cannot be judged otherwise.",
                severity="warning",
            )
