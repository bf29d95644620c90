"""Scores with their intervals on one axis: every arm on the dev rows, every side on the test rows, and the target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.render.charts import Tick, nice_ticks
from runner.render.units import Units

Report = Mapping[str, Any]
Kind = Literal["arm", "base", "other", "tuned"]
KINDS: Mapping[str, Kind] = {"base": "base", "tuned": "tuned"}
TITLES = {"base": "Base", "tuned": "Tuned"}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One way of answering: places in percent of the axis (None: no score, no interval), and the score in words."""

    name: str
    kind: Kind
    at: float | None
    low: float | None
    high: float | None
    value: str
    interval: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Ways of answering on the same rows."""

    title: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Groups of dots over one axis; `target` is its place in percent, None where there is none on it."""

    metric: str | None
    groups: tuple[Group, ...]
    ticks: tuple[Tick, ...]
    target: float | None


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Round values from end to end of a plot."""

    values: Sequence[float]
    is_share: bool

    def at(self, value: float) -> float:
        """The place of a value in percent of the width."""
        low, high = self.values[0], self.values[-1]
        return round(100 * (value - low) / (high - low), 2)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Every value with its label."""
        decimals = max(0, -math.floor(math.log10(self.values[1] - self.values[0]) + 1e-9))
        labels = (f"{100 * value:.0f} %" if self.is_share else f"{value:,.{decimals}f}" for value in self.values)
        return tuple(Tick(at=self.at(value), label=label) for value, label in zip(self.values, labels, strict=True))


def make_picture(report: Report, units: Units) -> Picture | None:
    """All arms and sides by the primary metric; where that has no score at all, by the gate's target's. None when
    nothing has been measured."""
    gate, evaluation = report["gate"] or {"arms": (), "target": None}, report["evaluation"] or {"sides": {}}
    target = gate["target"]
    for metric in dict.fromkeys((units.primary, target["metric"] if target else None)):
        measured = [*(arm["side"] for arm in gate["arms"]), *evaluation["sides"].values()]
        scores = [score for side in measured if metric and (score := _score(side, metric))]
        if metric and scores:
            good = target["value"] if target and target["metric"] == metric else None
            axis = make_axis(units.is_share(metric), scores, good)
            groups = []
            if gate["arms"]:
                dots = tuple(_arm(arm, metric, axis, units) for arm in gate["arms"])
                groups.append(Group(title=f"{_on(gate['num_dev'], 'dev')}, before tuning", dots=dots))
            if evaluation["sides"]:
                title = _on(evaluation["num_rows"], "test")
                groups.append(Group(title=title, dots=_sides(evaluation["sides"], metric, axis, units)))
            place = None if good is None else axis.at(good)
            return Picture(metric=metric, groups=tuple(groups), ticks=axis.ticks, target=place)
    return None


def other_metrics(evaluation: Report, units: Units, shown: str | None) -> Picture | None:
    """The sides by every metric that is a share, but for the one shown already; None when there is none."""
    names = dict.fromkeys(comparison["metric"] for comparison in evaluation["comparisons"])
    axis = Axis(values=SHARES, is_share=True)
    groups = tuple(
        Group(title=units.title(name), dots=_sides(evaluation["sides"], name, axis, units))
        for name in names
        if units.is_share(name) and name != shown
    )
    return Picture(metric=None, groups=groups, ticks=axis.ticks, target=None) if groups else None


def make_axis(is_share: bool, scores: Sequence[Report], target: float | None) -> Axis:
    """From 0 to 1 for shares, otherwise around the values that are to be shown."""
    if is_share:
        return Axis(values=SHARES, is_share=True)
    ends = [score[end] for score in scores for end in ("mean", "low", "high") if score[end] is not None]
    values = ends if target is None else [*ends, target]
    return Axis(values=nice_ticks(min(values), max(values)), is_share=False)


def side_title(name: str) -> str:
    """A side's name as it stands above a column."""
    return TITLES.get(name, name)


def _sides(sides: Mapping[str, Report], metric: str, axis: Axis, units: Units) -> tuple[Dot, ...]:
    return tuple(
        _dot(side_title(name), KINDS.get(name, "other"), _score(side, metric), "no score", metric, axis, units)
        for name, side in sides.items()
    )


def _arm(arm: Report, metric: str, axis: Axis, units: Units) -> Dot:
    missing = "no score" if arm["side"] else "left out"
    return _dot(arm["name"], "arm", _score(arm["side"], metric), missing, metric, axis, units)


def _dot(name: str, kind: Kind, score: Report | None, missing: str, metric: str, axis: Axis, units: Units) -> Dot:
    if score is None:
        return Dot(name=name, kind=kind, at=None, low=None, high=None, value=missing, interval="")
    low, high = score["low"], score["high"]
    known = low is not None and high is not None
    return Dot(
        name=name,
        kind=kind,
        at=axis.at(score["mean"]),
        low=axis.at(low) if known else None,
        high=axis.at(high) if known else None,
        value=units.value(metric, score["mean"]),
        interval=f"{units.bare(metric, low)} to {units.bare(metric, high)}" if known else "no interval",
    )


def _score(side: Report | None, metric: str) -> Report | None:
    score: Report | None = side["scores"].get(metric) if side else None
    return score


def _on(num_rows: int, part: str) -> str:
    return f"On {num_rows:,} {part} row{'s' if num_rows != 1 else ''}"
