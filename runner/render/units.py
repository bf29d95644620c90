"""How the scores of a report read: each metric's title, unit and better end, its own ones from the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.metrics import METRICS

SHARE = "share"
RIGHT_OR_WRONG = ("exact_match", "normalised_match", "accuracy", "macro_f1", "contains")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """How one metric reads; `name` is `share` (0 to 1, shown in percent), a word, or '' where it is unknown."""

    title: str
    name: str
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of a report's metrics; `primary` is the metric that was named first, None when that is unknown."""

    known: Mapping[str, Unit]
    primary: str | None

    def of(self, metric: str) -> Unit:
        """The metric's unit; one that nothing is known of has plain numbers, and more of it is better."""
        return self.known.get(metric) or Unit(title=metric.replace("_", " "), name="", higher_is_better=True)

    def is_share(self, metric: str) -> bool:
        """Whether the metric's values are shares of 1, so that it reads in percent."""
        return self.of(metric).name == SHARE

    def title(self, metric: str) -> str:
        """The metric's name in words."""
        return self.of(metric).title

    def value(self, metric: str, value: float) -> str:
        """A score in the metric's own unit."""
        return f"{self.bare(metric, value)} {self.sign(metric)}".rstrip()

    def bare(self, metric: str, value: float) -> str:
        """A score without its unit."""
        if self.is_share(metric):
            return f"{100 * value:.1f}"
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"

    def sign(self, metric: str) -> str:
        """What stands behind a score."""
        return "%" if self.is_share(metric) else self.of(metric).name

    def change(self, metric: str, value: float) -> str:
        """A difference of two scores, signed: percentage points for shares."""
        if self.is_share(metric):
            return f"{100 * value:+z.1f}"
        return f"{value:+z.3f}" if abs(value) < 100 else f"{value:+,.1f}"

    def change_unit(self, metric: str) -> str:
        """What stands behind a difference."""
        return "points" if self.is_share(metric) else self.of(metric).name

    def amount(self, metric: str, value: float) -> str:
        """A difference without its sign, with its unit."""
        return f"{self.change(metric, abs(value)).lstrip('+')} {self.change_unit(metric)}".rstrip()

    def is_right_or_wrong(self, metric: str) -> bool:
        """Whether an answer's score is 1 for right and 0 for wrong."""
        return metric in RIGHT_OR_WRONG and self.is_share(metric)


def read_units(report: Mapping[str, Any]) -> Units:
    """The units of all metrics that the report may speak of."""
    known = {
        name: Unit(title=metric.title, name=metric.unit, higher_is_better=metric.higher_is_better)
        for name, metric in METRICS.items()
    }
    evaluation = report["evaluation"]
    for comparison in evaluation["comparisons"] if evaluation else ():
        name, better = comparison["metric"], comparison["higher_is_better"]
        known.setdefault(name, Unit(title=name.replace("_", " "), name="", higher_is_better=better))
    asked = list(_asked(report))
    known |= {name: unit for name, unit in asked if unit}
    return Units(known=known, primary=_primary(report, [name for name, _ in asked]))


def _asked(report: Mapping[str, Any]) -> Iterator[tuple[str, Unit | None]]:
    """The manifest's metrics in their order; those of a person's own say how they read."""
    values = report["manifest"]["values"] or {}
    for entry in (values.get("eval") or {}).get("metrics") or ():
        if isinstance(entry, str):
            yield entry, None
        else:
            name = entry.get("name") or entry["python"].rpartition(":")[2]
            unit, better = entry.get("unit", SHARE), entry.get("higher_is_better", True)
            yield name, Unit(title=name.replace("_", " "), name=unit, higher_is_better=better)


def _primary(report: Mapping[str, Any], asked: list[str]) -> str | None:
    evaluation, gate = report["evaluation"], report["gate"]
    if evaluation and evaluation["comparison"]:
        return str(evaluation["comparison"]["metric"])
    return next(iter(asked), gate["target"]["metric"] if gate and gate["target"] else None)
