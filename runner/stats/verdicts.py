"""Verdicts on a gain, and the rows that they take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from scipy import stats

from runner.stats.clusters import cluster_rows
from runner.stats.intervals import CONFIDENCE, Interval

Verdict = Literal["improved", "equivalent", "worse", "inconclusive"]
POWER = 0.80
LARGEST_GAIN = 1.0  # scores lie in [0, 1]


def judge(gain: Interval, margin: float) -> Verdict:
    """The verdict on a gain (positive is better) by where its interval lies against the margin."""
    if gain.low is None or gain.high is None:
        return "inconclusive"
    if gain.low > margin:
        return "improved"
    if gain.high < -margin:
        return "worse"
    if -margin <= gain.low and gain.high <= margin:
        return "equivalent"
    return "inconclusive"


def rows_needed(gain: Interval, num_rows: int, margin: float) -> int | None:
    """About how many rows would settle an inconclusive gain, if its mean and spread stay; None when that lies too
    near the margin to be settled by any reasonable number."""
    return rows_to_clear(gain, num_rows, abs(abs(gain.mean) - margin))


def rows_to_clear(interval: Interval, num_rows: int, distance: float) -> int | None:
    """About how many rows would make the interval's half width smaller than `distance`, if mean and spread stay; None
    without an interval, and where no reasonable number would."""
    if interval.low is None or interval.high is None:
        return None
    half_width = (interval.high - interval.low) / 2
    if distance * 20 < half_width:
        return None
    return max(num_rows + 1, math.ceil(num_rows * (half_width / distance) ** 2))


def effective_rows(groups: Sequence[str | None], num_rows: int) -> float:
    """Rows that would tell as much if none hung together (Kish 1965: (sum m)^2 / sum m^2), taking those of one cluster
    as hanging together wholly; 0 without rows."""
    sizes = [len(rows) for rows in cluster_rows(groups, num_rows)]
    return num_rows**2 / sum(size**2 for size in sizes) if sizes else 0.0


def minimum_detectable(num_effective: float, margin: float, spread: float = 0.5) -> float | None:
    """The smallest true gain that is called `improved` with power 0.80, as a share of 1; None when no gain is so large.

    margin + (t.975 + z.80) * spread / sqrt(n), `spread` the standard deviation of the rows' differences: at most 0.5
    for scores in [0, 1] when the two sides correlate by 0.5."""
    if num_effective <= 1:
        return None
    quantiles = stats.t.ppf((1 + CONFIDENCE) / 2, num_effective - 1) + stats.norm.ppf(POWER)
    gain = margin + float(quantiles) * spread / math.sqrt(num_effective)
    return gain if gain <= LARGEST_GAIN else None
