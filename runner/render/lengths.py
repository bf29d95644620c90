"""Rows by their length in tokens, with the percentiles and the longest length allowed marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from runner.render.charts import PLOT_HEIGHT, Chart, Tick, nice_ticks

LENGTH_MARKS = {"median": "median", "p90": "90 %", "p99": "99 %", "max_length": "max_length"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of a histogram: place and width in percent of the plot, top and height in pixels."""

    at: float
    width: float
    top: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    """An upright line with its label on shelf 0, 1, ... above the plot, leaning away from the nearer edge."""

    at: float
    label: str
    kind: str
    shelf: int
    leans: Literal["start", "end"]


@dataclass(frozen=True, kw_only=True)
class Histogram(Chart):
    """Bars whose heights are proportional to the rows, with marks across them."""

    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]


def length_chart(tokens: Mapping[str, Any]) -> Histogram | None:
    """Rows by their length in tokens, with the percentiles and, unless far off, max_length; None without rows."""
    if not tokens["histogram"]:
        return None
    ends, rows = zip(*tokens["histogram"], strict=True)
    edges = (_lower_end(ends), *ends)
    near = tokens["max_length"] <= edges[-1] + (edges[-1] - edges[0]) / 4
    right = max(edges[-1], tokens["max_length"] if near else 0)
    x_values = [x for x in nice_ticks(edges[0], right, smallest=1.0) if x <= right]
    y_values = nice_ticks(0.0, max(rows), wanted=4, smallest=1.0)
    height = PLOT_HEIGHT / y_values[-1]  # of one row

    def place(value: float) -> float:
        return round(100 * (value - x_values[0]) / (right - x_values[0] or 1), 2)

    return Histogram(
        lines={},
        x_ticks=tuple(Tick(at=place(x), label=f"{x:,.0f}") for x in x_values),
        y_ticks=tuple(Tick(at=round(PLOT_HEIGHT - height * y, 1), label=f"{y:,.0f}") for y in y_values),
        zero=PLOT_HEIGHT,
        bars=tuple(_bar(place(low), place(high), height * n) for low, high, n in zip(edges, ends, rows, strict=False)),
        marks=_length_marks(tokens, place),
    )


def _bar(left: float, right: float, height: float) -> Bar:
    return Bar(at=left, width=round(right - left, 2), top=round(PLOT_HEIGHT - height, 2), height=round(height, 2))


def _lower_end(ends: Sequence[int]) -> int:
    """Where the first bin begins, which is not told: bins are equally wide, up to a token."""
    return max(0, ends[0] - max((high - low for low, high in pairwise(ends)), default=1))


def _length_marks(tokens: Mapping[str, Any], place: Callable[[float], float]) -> tuple[Mark, ...]:
    """Marks of the same length are one; shelves are given so that few labels cross another mark's line."""
    by_length: dict[int, list[str]] = {}
    for key in LENGTH_MARKS:
        if 0 <= place(tokens[key]) <= 100:
            by_length.setdefault(tokens[key], []).append(key)
    left = sorted((n for n in by_length if place(n) < 60), reverse=True)
    right = sorted(n for n in by_length if place(n) >= 60)
    return tuple(
        Mark(
            at=place(n),
            label=f"{', '.join(LENGTH_MARKS[key] for key in by_length[n])}: {n:,}",
            kind=by_length[n][-1],
            shelf=shelf,
            leans="start" if n in left else "end",
        )
        for shelf, n in enumerate([*left, *right])
    )
