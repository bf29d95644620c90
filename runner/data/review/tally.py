"""Counts of texts: exact, in bounded memory, the same in whatever order they come."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.integer[Any]]  # rows by their number in the order of reading, from 0

KEPT = 20_000  # texts that a tally remembers the words of; each held by more than 1 row in 10,000 is among them
HASH = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class Frequent:
    """A text that many rows share, by the key of its tally."""

    key: int
    text: str
    num_rows: int


class Tally:
    """Counts rows by text: exact in 8 bytes a row, with the words of frequent texts alone."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._counts: dict[int, int] = {}
        self._shown: dict[int, str] = {}

    def add(self, text: str, shown: str) -> None:
        """Counts `text`, to be shown as `shown`."""
        key = hash(text) & HASH
        self._keys.append(key)
        if key in self._counts:
            self._counts[key] += 1
            return
        if len(self._counts) >= KEPT:
            self._forget()
        self._counts[key], self._shown[key] = 1, shown

    def num_distinct(self) -> int:
        return len(np.unique_counts(np.array(self._keys)).values)  # sorts; np.unique alone hashes, 40 times as slow

    def rows_of(self, *keys: int) -> Rows:
        return np.flatnonzero(np.isin(np.array(self._keys), np.array(keys, dtype=np.uint64)))

    def most_common(self, limit: int | None = None) -> tuple[Frequent, ...]:
        """Texts of more than 1 row in 10,000 (all texts, when they are few): most frequent first, then by alphabet."""
        keys, counts = np.unique(np.array(self._keys), return_counts=True)
        floor = 2 * len(self._keys) / KEPT if len(keys) > KEPT else 0
        frequent = zip(keys[counts > floor].tolist(), counts[counts > floor].tolist(), strict=True)
        found = (Frequent(key=key, text=self._shown[key], num_rows=n) for key, n in frequent)
        return tuple(sorted(found, key=lambda f: (-f.num_rows, f.text))[:limit])

    def _forget(self) -> None:
        """Takes the median from every count (Misra and Gries): half of them give it, so that what a text loses in
        all stays under 2 rows in KEPT."""
        cut = sorted(self._counts.values())[len(self._counts) // 2]
        self._counts = {key: n - cut for key, n in self._counts.items() if n > cut}
        self._shown = {key: self._shown[key] for key in self._counts}
