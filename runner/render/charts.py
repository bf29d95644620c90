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


@dataclass(frozen=True, kw_only=True)
class TrainingChart(Chart):
    """Losses by step, and in percent of the width where an interrupted training went on."""

    resumed: tuple[float, ...]


def training_chart(training: Mapping[str, Any]) -> TrainingChart | None:
    """Training and dev loss by step, with the dev loss whose weights are used as a line of one point; None when no loss
    was logged. The plot begins at zero unless the losses differ by less than half."""
    curve = training["curve"]
    lines = {key: [(p["step"], p[key]) for p in curve if p[key] is not None] for key in ("loss", "dev_loss")}
    lines["best"] = [point for point in lines["dev_loss"] if point[0] == training["best_step"]]
    points = [point for line in lines.values() for point in line]
    if not points:
        return None
    least, most = (end(loss for _, loss in points) for end in (min, max))
    chart = draw(lines, lambda value, decimals: f"{value:.{decimals}f}", floor=least if 2 * least > most else 0.0)
    last = max(step for step, _ in points) or 1
    resumed = (round(100 * step / last, 2) for step in dict.fromkeys(training["resumed_from"]) if step <= last)
    return TrainingChart(**vars(chart), resumed=tuple(resumed))


def net_chart(roi: Mapping[str, Any]) -> Chart:
    """Dollars won or lost so far, by month: from minus the investment up by the saving of each month."""
    months, start = roi["horizon_months"], -roi["investment_usd"]
    net = [(0.0, start), (months, start + months * roi["saving_usd_per_month"])]
    payback = roi["payback_months"]
    return draw(
        {"net": net, "payback": [(payback, 0.0)] if roi["pays_back"] and payback is not None else []}, _axis_usd
    )


def draw(lines: Mapping[str, Points], y_label: Callable[[float, int], str], floor: float = 0.0) -> Chart:
    """Scales lines into a plot that begins at x zero and shows y `floor`; `y_label` gets a value and the decimals it
    needs. A floor above zero leaves zero out."""
    xs, ys = ([p[i] for points in lines.values() for p in points] for i in (0, 1))
    right = max(xs) or 1.0
    y_values = nice_ticks(min(floor, *ys), max(floor, *ys))
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
        zero=y_at(max(0.0, low)),
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
