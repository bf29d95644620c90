"""The report as a page, drawn from its JSON alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from runner.metrics import METRICS

PLOT_HEIGHT = 200.0
LENGTH_MARKS = {"median": "median", "p90": "90 %", "p99": "99 %", "max_length": "max_length"}
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


def render_html(report: Mapping[str, Any]) -> str:
    """One self-contained HTML page: no script, no outside file."""
    return _environment().get_template("report.html.j2").render(report=report)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for shown in (count, duration, percent, plain, price, usd):
        environment.filters[shown.__name__] = shown
    functions = (flatten, is_share, length_chart, metric_change, metric_title, metric_value, net_chart, training_chart)
    for function in functions:
        environment.globals[function.__name__] = function
    return environment


# --- numbers and words ------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """A share of 1 as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def count(value: float) -> str:
    """A number with thousands separators; one decimal unless it is whole."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def usd(value: float) -> str:
    """Dollars and cents; an amount that rounds to no cents does not read as free."""
    if 0 < abs(value) < 0.005:
        return "less than $0.01"
    return f"{'-' if value < 0 else ''}${abs(value):,.2f}"


def price(value: float) -> str:
    """Dollars for one unit, with as many decimals as a small price needs."""
    decimals = next((d for d in (2, 3, 4, 5) if round(value, d) == value), 6)
    return f"${value:,.{decimals}f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 42 s, 6 min 53 s, 2 h 05 min."""
    if seconds < 0.05:
        return "under 0.1 s"
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def plain(value: Any) -> str:
    """Any JSON value as a person would write it."""
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def is_share(metric: str) -> bool:
    """Whether the metric's values are shares of 1, so that it reads in percent."""
    return metric in METRICS and METRICS[metric].unit == "share"


def metric_title(metric: str) -> str:
    """The metric's name in words."""
    return METRICS[metric].title if metric in METRICS else metric.replace("_", " ")


def metric_value(metric: str, value: float) -> str:
    """A score in the metric's own unit."""
    unit = f" {METRICS[metric].unit}" if metric in METRICS else ""
    return percent(value) if is_share(metric) else f"{value:.3f}{unit}"


def metric_change(metric: str, value: float) -> str:
    """A difference of two scores, signed: percentage points for shares."""
    return f"{100 * value:+.1f}" if is_share(metric) else f"{value:+.3f}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key, in their order."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


# --- charts -----------------------------------------------------------------------------------------------------------


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
