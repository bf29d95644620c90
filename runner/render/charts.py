"""Lines over a plot: places in percent of its width and pixels from its top, ready to be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PLOT_HEIGHT = 200.0
MOST_POINTS = 400
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A labelled place on an axis: percent of the width, or pixels from the top."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over a plot that is as wide as its place: x in percent of the width, y in pixels from the top."""

    lines: Mapping[str, tuple[tuple[float, float], ...]]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    zero: float
    height: float = PLOT_HEIGHT


def training_chart(curve: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Training and dev loss by step; None when no loss was logged."""
    lines = {key: [(p["step"], p[key]) for p in curve if p[key] is not None] for key in ("loss", "dev_loss")}
    return draw(lines, lambda value, decimals: f"{value:.{decimals}f}") if any(lines.values()) else None


def net_chart(roi: Mapping[str, Any]) -> Chart:
    """Dollars won or lost so far, by month: from minus the investment up by the saving of each month."""
    months, start = roi["horizon_months"], -roi["investment_usd"]
    net = [(0.0, start), (months, start + months * roi["saving_usd_per_month"])]
    payback = roi["payback_months"]
    return draw(
        {"net": net, "payback": [(payback, 0.0)] if roi["pays_back"] and payback is not None else []}, _axis_usd
    )


def draw(lines: Mapping[str, Points], y_label: Callable[[float, int], str]) -> Chart:
    """Scales lines into a plot that has zero on both axes; `y_label` gets a value and the decimals it needs."""
    xs, ys = ([p[i] for points in lines.values() for p in points] for i in (0, 1))
    right = max(xs) or 1.0
    y_values = nice_ticks(min(0.0, *ys), max(0.0, *ys))
    low, span = y_values[0], y_values[-1] - y_values[0]
    decimals = max(0, -math.floor(math.log10(y_values[1] - low) + 1e-9))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return round(100 * point[0] / right, 2), y_at(point[1])

    def y_at(value: float) -> float:
        return round(PLOT_HEIGHT * (1 - (value - low) / span), 1)

    x_values = [x for x in nice_ticks(0.0, right, wanted=6, smallest=1.0) if x <= right]
    return Chart(
        lines={name: tuple(place(p) for p in _thin(points)) for name, points in lines.items()},
        x_ticks=tuple(Tick(at=place((x, 0.0))[0], label=f"{x:,.0f}") for x in x_values),
        y_ticks=tuple(Tick(at=y_at(y), label=y_label(y, decimals)) for y in y_values),
        zero=y_at(0.0),
    )


def nice_ticks(low: float, high: float, *, wanted: int = 5, smallest: float = 0.0) -> list[float]:
    """About so many round values that cover low to high, in steps of at least `smallest`."""
    rough = max((high - low) / wanted, smallest) or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _thin(points: Points) -> Points:
    stride = math.ceil(len(points) / MOST_POINTS)
    return [*points[:-1:stride], points[-1]] if stride > 1 else points


def _axis_usd(value: float, decimals: int) -> str:
    return f"{'-' if value < 0 else ''}${abs(value):,.{max(decimals, 2) if decimals else 0}f}"
