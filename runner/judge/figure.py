"""A share of rows that says how sure it is, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from runner.stats import CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A share of rows with its exact 95 % interval (Clopper-Pearson); `value` None with the reason in `unknown`."""

    value: float | None
    num: int
    num_rows: int
    low: float | None
    high: float | None
    unknown: str | None

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return f"unknown ({self.unknown})"
        interval = f"95 % interval {100 * self.low:.0f} to {100 * self.high:.0f} %"
        return f"{100 * self.value:.0f} % ({self.num} of {self.num_rows} rows, {interval})"


def share(hits: Sequence[bool], minimum: int) -> Figure:
    """The share of rows that hit; unknown below a minimum of rows."""
    if len(hits) < minimum:
        return unknown(f"{len(hits)} rows have marks; it takes {minimum}" if hits else "no row has marks")
    ends = stats.binomtest(sum(hits), len(hits)).proportion_ci(confidence_level=CONFIDENCE, method="exact")
    return Figure(
        value=sum(hits) / len(hits),
        num=sum(hits),
        num_rows=len(hits),
        low=float(ends.low),
        high=float(ends.high),
        unknown=None,
    )


def unknown(reason: str) -> Figure:
    """No figure, and why."""
    return Figure(value=None, num=0, num_rows=0, low=None, high=None, unknown=reason)
