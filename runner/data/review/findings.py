"""What was found, told to a person: which rows, how many, where they stand, and what to do."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.data.review.checks import CHECKS
from runner.data.review.private import HIDDEN, hide
from runner.data.review.tally import Rows
from runner.errors import Severity

LISTED = 1_000  # rows that a finding names; its count is exact
SHOWN = 3  # places in a sentence


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing worth knowing about the rows; `rows` are places ("file:row"), at most LISTED of them."""

    code: str
    severity: Severity
    what: str
    fix: str
    rows: tuple[str, ...]
    count: int


@dataclass(frozen=True, kw_only=True)
class Hit:
    """What a check has found: its code, the rows concerned, and particulars for the sentence."""

    code: str
    rows: Rows
    such: str = ""
    total: int | None = None  # of how many rows, where not of all


class Places:
    """Where the rows stand, in 8 bytes each: the file's number and the row."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._packed = array("Q")

    def add(self, source: str) -> int:
        """Takes "file:row" in and gives its number; a source without a row is a file by itself."""
        file, _, row = source.rpartition(":")
        if not (row.isdecimal() and row.isascii() and len(row) < 12):
            file, row = source, "0"
        self._packed.append(self._files.setdefault(file, len(self._files)) << 40 | int(row))
        return len(self._packed) - 1

    def num_rows(self) -> int:
        return len(self._packed)

    def first(self, rows: Rows) -> tuple[str, ...]:
        """The first LISTED of these rows, by file name and row."""
        names = sorted(self._files)
        ranks = np.zeros(len(names), np.uint64)
        ranks[[self._files[name] for name in names]] = np.arange(len(names), dtype=np.uint64)
        packed = np.array(self._packed)[rows]
        ordered = np.sort(ranks[packed >> np.uint64(40)] << np.uint64(40) | packed & np.uint64(2**40 - 1))
        found = (divmod(place, 2**40) for place in ordered[:LISTED].tolist())
        return tuple(f"{names[file]}:{row}" if row else names[file] for file, row in found)


def repeats(
    question_keys: NDArray[np.uint64], answer_keys: NDArray[np.uint64], place: Callable[[int], str]
) -> tuple[Finding, ...]:
    """Rows that repeat an earlier row, and rows whose question has another answer elsewhere."""
    if not len(question_keys):
        return ()
    order = np.lexsort((answer_keys, question_keys))  # stable: of the same rows the earliest stands first
    questions, answers = question_keys[order], answer_keys[order]
    asked = np.r_[True, questions[1:] != questions[:-1]]
    new = asked | np.r_[True, answers[1:] != answers[:-1]]
    torn = np.add.reduceat(new, np.flatnonzero(asked), dtype=np.int64) > 1
    again = Hit(code="data/duplicates", rows=np.sort(order[~new]))
    such = f"; questions: {torn.sum():,}"
    contradict = Hit(code="data/contradictions", rows=np.sort(order[torn[np.cumsum(asked) - 1]]), such=such)
    return tell((again, contradict), len(order), lambda rows: tuple(map(place, rows[:LISTED].tolist())))


def tell(hits: Iterable[Hit], total: int, first: Callable[[Rows], tuple[str, ...]]) -> tuple[Finding, ...]:
    """The findings that hits make, most severe first, then most frequent; none where the share of the `total` rows is
    nothing to speak of. `first` gives the places of the first LISTED rows."""
    found = (_finding(hit, total, first) for hit in hits if len(hit.rows))
    return tuple(sorted(filter(None, found), key=lambda f: (f.severity == "note", -f.count, f.code)))


def _finding(hit: Hit, total: int, first: Callable[[Rows], tuple[str, ...]]) -> Finding | None:
    check, count, whole = CHECKS[hit.code], len(hit.rows), hit.total or total
    severity = check.judge(count / whole)
    if severity is None:
        return None
    places = first(hit.rows)
    rows = f"{count:,} of {'a sample of ' if whole < total else ''}{whole:,} rows ({_percent(count, whole)})"
    such = f" {HIDDEN}" if hide(hit.such) == HIDDEN else hit.such
    what = f"{check.says.format(rows=rows)}{such} ({_abridged(places)})."
    return Finding(code=hit.code, severity=severity, what=what, fix=check.fix, rows=places, count=count)


def _percent(count: int, total: int) -> str:
    """A share that never rounds to nothing or to everything."""
    if count == total:
        return "100 %"
    percent = 100 * count / total
    return "<0.1 %" if percent < 0.05 else ">99.9 %" if percent >= 99.95 else f"{percent:.1f} %"


def _abridged(places: tuple[str, ...]) -> str:
    """The first places, a file's name once: "a.jsonl:1, :2, :3 ..."."""
    shown, last = [], None
    for place in places[:SHOWN]:
        file, _, row = place.rpartition(":")
        shown.append(f":{row}" if row.isdecimal() and file == last else place)
        last = file
    return ", ".join(shown) + (" ..." if len(places) > SHOWN else "")
