"""The points of a sweep over one axis: how each tuned model did on the test rows, beside the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.metrics import METRICS
from runner.render.scores import Axis, Dot, Group, Kind, Picture, make_axis
from runner.render.units import Unit, Units


def sweep_units(report: Mapping[str, Any]) -> Units:
    """How the points' primary metric reads; a person's own one has plain numbers."""
    known = {
        name: Unit(title=metric.title, name=metric.unit, higher_is_better=metric.higher_is_better)
        for name, metric in METRICS.items()
    }
    return Units(known=known, primary=next((row["score"]["metric"] for row in report["points"] if row["score"]), None))


def sweep_picture(report: Mapping[str, Any], units: Units) -> Picture | None:
    """A dot with its interval for each point that has a score by the metric of the first; None where none has."""
    metric = units.primary
    rows = [row for row in report["points"] if row["score"] and row["score"]["metric"] == metric]
    scores = [_score(row["score"], "tuned") for row in rows if row["score"]["tuned"] is not None]
    if metric is None or not scores:
        return None
    bases = {row["score"]["base"]: row for row in rows if row["score"]["base"] is not None}
    scores += [_score(row["score"], "base") for row in bases.values()]
    axis = make_axis(units.is_share(metric), scores, None)
    best = report["best"]["number"]
    tuned = tuple(
        _dot(row, "tuned", axis, units, " (best by dev loss)" if row["number"] == best else "") for row in rows
    )
    base = tuple(_dot(row, "base", axis, units) for row in bases.values())
    groups = (Group(title="Tuned, on the test rows", dots=tuned), Group(title="Base, on the same rows", dots=base))
    return Picture(metric=metric, groups=groups, ticks=axis.ticks, target=None)


def _score(score: Mapping[str, Any], side: str) -> dict[str, Any]:
    ends = ("low", "high") if side == "tuned" else ()
    return {"mean": score[side], **{end: score[end] if end in ends else None for end in ("low", "high")}}


def _dot(row: Mapping[str, Any], kind: Kind, axis: Axis, units: Units, more: str = "") -> Dot:
    metric, score = row["score"]["metric"], _score(row["score"], kind)
    low, high = score["low"], score["high"]
    known = low is not None and high is not None and score["mean"] is not None
    return Dot(
        name=f"{row['number']} {row['label'].replace(',', ', ')}{more}",
        kind=kind,
        at=None if score["mean"] is None else axis.at(score["mean"]),
        low=axis.at(low) if known else None,
        high=axis.at(high) if known else None,
        value="no score" if score["mean"] is None else units.value(metric, score["mean"]),
        interval=f"{units.bare(metric, low)} to {units.bare(metric, high)}" if known else "",
    )
