"""Intervals and verdicts from paired rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["improved", "equivalent", "worse", "inconclusive"]
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its bootstrap interval; the ends are None when one row, or none, gives no spread."""

    mean: float
    low: float | None
    high: float | None


def bootstrap_mean(values: Sequence[float], seed: int, resamples: int) -> Interval:
    """The mean of rows with its 95 % percentile bootstrap interval (scipy), seeded.

    For paired comparisons pass the rows' differences.
    """
    rows = np.asarray(sorted(values), dtype=float)  # sorted, so that the order of rows changes nothing
    mean = math.fsum(values) / len(values)
    if len(rows) < 2:
        return Interval(mean=mean, low=None, high=None)
    if np.ptp(rows) == 0:
        return Interval(mean=mean, low=mean, high=mean)
    result = stats.bootstrap(
        (rows,), np.mean, n_resamples=resamples, batch=1000, confidence_level=CONFIDENCE, method="percentile", rng=seed
    )
    return Interval(mean=mean, low=float(result.confidence_interval.low), high=float(result.confidence_interval.high))


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
    if gain.low is None or gain.high is None:
        return None
    half_width = (gain.high - gain.low) / 2
    distance = abs(abs(gain.mean) - margin)
    if distance * 20 < half_width:
        return None
    return max(num_rows + 1, math.ceil(num_rows * (half_width / distance) ** 2))
