"""Rows that stand or fall together (one draw of the resampling, one vote of the sign test), and values that differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cluster_rows(groups: Sequence[str | None], num_rows: int) -> list[list[int]]:
    """The rows of each cluster; None is a cluster of its own, and without groups every row is."""
    if groups and len(groups) != num_rows:
        raise ValueError(f"{len(groups)} groups for {num_rows} rows")
    found: dict[str | int, list[int]] = {}
    for row, group in enumerate(groups or [None] * num_rows):
        found.setdefault(row if group is None else group, []).append(row)
    return list(found.values())


def float_noise(values: Iterable[float]) -> float:
    """What is no difference between such values: a billionth of the largest, or 1e-12."""
    return max(1e-12, 1e-9 * max(map(abs, values), default=0.0))
