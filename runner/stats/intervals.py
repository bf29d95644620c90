"""The 95 % interval of a mean, or of any statistic of summed rows, resampled by cluster.

No single interval keeps its promise on every kind of scores, so that the hull of three is taken: the percentile
bootstrap (good on right-or-wrong scores), the bootstrap-t (on skewed ones) and Student's (on heavy tails). Where fewer
than six clusters carry the whole difference all three lie, and an exact bound takes their place.
`scripts/simulate_verdicts.py` shows how often all this is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from runner.stats.clusters import cluster_rows, float_noise

CONFIDENCE = 0.95
MIN_DEVIANTS = 6  # five wins to none are p = 0.0625 in an exact sign test, and six 0.031
DEVIANT_SHARE = 0.1  # of the largest deviation: what moves less than that hardly carries the difference
DECIMALS = 12  # float noise must not decide against a margin
BATCH_CELLS = 2_000_000  # resampling weights held at once: 16 MB

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
Ends = tuple[float, float]
Bounds = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its 95 % interval; the ends are None where fewer than two clusters give no spread."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Clusters: their summed rows (n, d), numbers of rows (n,) and what each stands for on its own (n,), which for a
    mean is the mean of its rows and else the jackknife's pseudo-value."""

    sums: Array
    sizes: Array
    values: Array
    whole: float

    @property
    def parts(self) -> Array:
        """Each cluster's share of the error of the whole (n,), before division by the number of rows."""
        return (self.values - self.whole) * self.sizes


def mean_interval(
    values: Sequence[float],
    *,
    groups: Sequence[str | None] = (),
    bounds: Bounds,
    seed: int,
    resamples: int,
) -> Interval:
    """The mean of at least one row and its interval; for paired sides pass the rows' differences and their bounds.
    The order of rows changes no bit; swapping the sides mirrors it, but for the last rounding."""
    rows = np.column_stack([np.asarray(values, dtype=float), np.ones(len(values))])
    return pooled_interval(rows, _ratio, groups=groups, bounds=bounds, seed=seed, resamples=resamples)


def pooled_interval(
    rows: Array,
    statistic: Statistic,
    *,
    groups: Sequence[str | None] = (),
    bounds: Bounds,
    seed: int,
    resamples: int,
) -> Interval:
    """A statistic of the sum of rows (N, d) and its interval; `statistic` maps sums (..., d) to values (...), and where
    it is not finite on a resample there are no ends. `bounds` are the least and largest possible value, if known.
    All figures are rounded to 12 decimals."""
    sample = _sample(np.asarray(rows, dtype=float), statistic, groups)
    mean = _rounded(sample.whole)
    if len(sample.sums) < 2 or not np.isfinite(sample.values).all():
        return Interval(mean=mean, low=None, high=None)
    ends = _ends(sample, statistic, bounds, seed, resamples)
    if ends is None:
        return Interval(mean=mean, low=None, high=None)
    return Interval(mean=mean, low=min(mean, _rounded(ends[0])), high=max(mean, _rounded(ends[1])))


def _rounded(value: float) -> float:
    return round(value, DECIMALS) + 0.0  # no minus zero


def _ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _sample(rows: Array, statistic: Statistic, groups: Sequence[str | None]) -> _Sample:
    clusters = cluster_rows(groups, len(rows))
    sums = np.array([rows[i[0]] if len(i) == 1 else _exact_sum(rows[i]) for i in clusters])
    sizes = np.array([len(i) for i in clusters], dtype=float)
    total, num_rows = _exact_sum(sums), len(rows)
    whole = float(statistic(total))
    if len(clusters) < 2:
        return _Sample(sums=sums, sizes=sizes, values=np.array([whole]), whole=whole)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = statistic(total - sums)
    values = (num_rows * whole - (num_rows - sizes) * without) / sizes
    return _Sample(sums=sums, sizes=sizes, values=values, whole=whole)


def _exact_sum(rows: Array) -> Array:
    """Of each column; fsum, so that the order of rows changes no bit."""
    return np.array([math.fsum(column) for column in rows.T])


def _ends(sample: _Sample, statistic: Statistic, bounds: Bounds, seed: int, resamples: int) -> Ends | None:
    common = float(np.median(sample.values))
    distance = np.abs(sample.values - common)
    deviant = distance > max(DEVIANT_SHARE * distance.max(), float_noise(sample.values))
    if bounds is None and not deviant.any():
        return sample.whole, sample.whole
    values, errors, spreads = _resample(sample, statistic, seed, resamples)
    if not np.isfinite(values).all():
        return None
    found = [_percentile_ends(values, len(sample.sums))]
    if deviant.sum() < MIN_DEVIANTS:
        found.append(_exact_ends(sample.sizes, deviant, common, bounds or _seen_bounds(common, distance)))
    else:
        found += [_student_ends(sample), _bootstrap_t_ends(sample, errors, spreads)]
    low, high = min(low for low, _ in found), max(high for _, high in found)
    return (max(low, bounds[0]), min(high, bounds[1])) if bounds else (low, high)


def _percentile_ends(resampled: Array, num_clusters: int) -> Ends:
    """Percentiles at the level that gives the width of Student's t (Hesterberg 2015, section 5.3)."""
    quantile = special.stdtrit(num_clusters - 1, (1 - CONFIDENCE) / 2)
    level = special.ndtr(math.sqrt(num_clusters / (num_clusters - 1)) * quantile)
    low, high = np.quantile(resampled, [level, 1 - level])
    return float(low), float(high)


def _student_ends(sample: _Sample) -> Ends:
    """Student's interval from the cluster-robust standard error (linearised ratio, one degree lost)."""
    num = len(sample.sums)
    quantile = float(special.stdtrit(num - 1, (1 + CONFIDENCE) / 2))
    half = quantile * math.sqrt(num / (num - 1)) * _standard_error(sample)
    return sample.whole - half, sample.whole + half


def _bootstrap_t_ends(sample: _Sample, errors: Array, spreads: Array) -> Ends:
    """The studentised bootstrap (Efron and Tibshirani 1993, section 12.5); resamples without spread have no t."""
    scale = _standard_error(sample)
    usable = spreads > 1e-9 * scale
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(errors[usable] / spreads[usable], [tail, 1 - tail])
    return sample.whole - float(high) * scale, sample.whole - float(low) * scale


def _standard_error(sample: _Sample) -> float:
    return math.sqrt(math.fsum(sample.parts**2)) / math.fsum(sample.sizes)


def _exact_ends(sizes: Array, deviant: NDArray[np.bool_], common: float, bounds: Ends) -> Ends:
    """All but at most a share u of rows have the common value, and the others lie within the bounds; u is Clopper and
    Pearson's upper bound, with Kish's effective number where clusters differ in size (Korn and Graubard 1998)."""
    num_effective = math.fsum(sizes) ** 2 / math.fsum(sizes**2)
    num_deviant = num_effective * math.fsum(sizes[deviant]) / math.fsum(sizes)
    same = num_effective - num_deviant
    share = float(special.betaincinv(num_deviant + 1, same, (1 + CONFIDENCE) / 2)) if same > 1e-9 else 1.0
    return common - share * (common - bounds[0]), common + share * (bounds[1] - common)


def _seen_bounds(common: float, distance: Array) -> Ends:
    """As if the largest deviation seen were the largest there is, to either side; the best guess without bounds."""
    return common - float(distance.max()), common + float(distance.max())


def _resample(sample: _Sample, statistic: Statistic, seed: int, resamples: int) -> tuple[Array, Array, Array]:
    """The statistic, the error of the linearised mean and its standard error, on every resample of clusters."""
    y, m = sample.parts, sample.sizes
    columns = np.column_stack([sample.sums, m, y, y * y, y * m, m * m])
    up, down = (np.ascontiguousarray(columns[order]) for order in _orders(sample))
    drawn = np.concatenate([w @ c for w in _weights(len(m), resamples, seed) for c in (up, down)])
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(drawn[:, : sample.sums.shape[1]])
    num, error, yy, ym, mm = drawn[:, -5:].T
    error = error / num
    return values, error, np.sqrt(np.maximum(yy - 2 * error * ym + error**2 * mm, 0)) / num


def _orders(sample: _Sample) -> Iterator[NDArray[np.intp]]:
    """Two orders of the clusters by what they hold. Half of the resamples are drawn in either, so that swapping the
    sides, which turns one order into the other, mirrors the interval."""
    ties = [sample.sizes[:, None], np.sort(np.abs(sample.sums), axis=1), sample.sums]
    for direction in (1, -1):
        keys = np.column_stack([direction * sample.values, *ties])
        yield np.lexsort(keys.T[::-1])


def _weights(num_clusters: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each cluster is drawn in each of half of the resamples, in batches (b, n)."""
    rng = np.random.default_rng(seed)
    left, step = (resamples + 1) // 2, max(1, BATCH_CELLS // num_clusters)
    while left > 0:
        size = min(step, left)
        drawn = rng.integers(num_clusters, size=(size, num_clusters)) + num_clusters * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * num_clusters).reshape(size, -1).astype(float)
        left -= size
