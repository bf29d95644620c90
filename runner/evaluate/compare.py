"""Tuned against an un-tuned side on the same rows: difference, interval, sign test, verdict, and the words for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from runner.metrics import Metric, Score
from runner.scoring import Scored, Scoring, mean_of
from runner.stats import Interval, Verdict, holm, judge, mean_interval, pooled_interval, rows_needed, sign_test

ALPHA = 0.05
SAME = 1e-9
SEVERITY: tuple[Verdict, ...] = ("worse", "inconclusive", "equivalent", "improved")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tuned against one un-tuned side, on the rows that both have scored; `difference` is tuned minus un-tuned.

    `against` is base or the name of the best un-tuned arm. `wins` and `losses` count the groups of rows in which tuned
    is better or worse, `p_value` is their exact two-sided sign test; `p_holm` is it after Holm's correction over all
    metrics but the primary one, which was named beforehand and needs none (None).
    """

    metric: str
    against: str
    untuned: float
    tuned: float
    difference: float
    ci_low: float | None
    ci_high: float | None
    wins: int
    losses: int
    ties: int
    p_value: float
    p_holm: float | None
    num_rows: int
    unscored: int
    higher_is_better: bool
    verdict: Verdict
    rows_needed: int | None


def compare(
    name: str, against: str, untuned: Scored, tuned: Scored, scoring: Scoring, margin: float
) -> Comparison | None:
    """The comparison of one metric; None when no row has a score on both sides."""
    pairs = zip(untuned.scores[name], tuned.scores[name], strict=True)
    known = [i for i, (u, t) in enumerate(pairs) if u.value is not None and t.value is not None]
    if not known:
        return None
    metric = scoring.metrics[name]
    sign = 1 if metric.higher_is_better else -1
    before, after = (_values(side.scores[name], known) for side in (untuned, tuned))
    gains = [sign * (t - u) for u, t in zip(before, after, strict=True)]
    groups = [tuned.rows[i].group for i in known]
    gain = _gain(metric, gains, [untuned, tuned], known, groups, scoring)
    signs = sign_test(gains, groups=groups)
    margin *= metric.unit == scoring.metrics[scoring.primary].unit  # a margin in points says nothing of nats
    verdict = judge(gain, margin)
    low, high = (gain.low, gain.high) if sign > 0 else (_minus(gain.high), _minus(gain.low))
    means = [mean for side in (untuned, tuned) if (mean := mean_of(scoring, side, name, known)) is not None]
    return Comparison(
        metric=name,
        against=against,
        untuned=means[0],
        tuned=means[1],
        difference=sign * gain.mean + 0.0,
        ci_low=low,
        ci_high=high,
        wins=signs.wins,
        losses=signs.losses,
        ties=signs.ties,
        p_value=signs.p_value,
        p_holm=None,
        num_rows=len(known),
        unscored=len(tuned.rows) - len(known),
        higher_is_better=sign > 0,
        verdict=verdict,
        rows_needed=rows_needed(gain, len(known), margin) if verdict == "inconclusive" else None,
    )


def correct(comparisons: Sequence[Comparison], primary: str) -> list[Comparison]:
    """Comparisons against one side with Holm's correction: a metric that was not named beforehand counts as improved
    or worse only where its sign test survives it."""
    others = [c for c in comparisons if c.metric != primary]
    adjusted = dict(zip((c.metric for c in others), holm([c.p_value for c in others]), strict=True))
    return [_corrected(c, adjusted[c.metric]) if c.metric in adjusted else c for c in comparisons]


def _corrected(comparison: Comparison, p_holm: float) -> Comparison:
    doubtful = comparison.verdict in ("improved", "worse") and p_holm > ALPHA
    return replace(comparison, p_holm=p_holm, verdict="inconclusive" if doubtful else comparison.verdict)


def deciding(comparisons: Sequence[Comparison], primary: str) -> Comparison | None:
    """The primary comparison that tuning does worst in: it must beat the base and the best un-tuned arm."""
    own = [c for c in comparisons if c.metric == primary]
    return min(own, key=lambda c: (SEVERITY.index(c.verdict), _gain_of(c)), default=None)


def _gain_of(comparison: Comparison) -> float:
    return comparison.difference if comparison.higher_is_better else -comparison.difference


def _values(scores: Sequence[Score], known: Sequence[int]) -> list[float]:
    return [value for i in known if (value := scores[i].value) is not None]


def _gain(
    metric: Metric,
    gains: Sequence[float],
    sides: Sequence[Scored],
    known: Sequence[int],
    groups: Sequence[str | None],
    scoring: Scoring,
) -> Interval:
    """The mean gain of tuned with its interval; positive is better."""
    width = metric.bounds[1] - metric.bounds[0] if metric.bounds else None
    bounds = (-width, width) if width is not None else None
    if metric.pool is None:
        return mean_interval(gains, groups=groups, bounds=bounds, seed=scoring.seed, resamples=scoring.resamples)
    pools = [metric.pool([side.items[i] for i in known]) for side in sides]
    size = pools[0].rows.shape[1]
    statistic = pools[0].statistic
    sign = 1 if metric.higher_is_better else -1
    return pooled_interval(
        np.hstack([pool.rows for pool in pools]),
        lambda sums: sign * (statistic(sums[..., size:]) - statistic(sums[..., :size])),
        groups=groups,
        bounds=bounds,
        seed=scoring.seed,
        resamples=scoring.resamples,
    )


def _minus(value: float | None) -> float | None:
    return None if value is None else 0.0 - value


# --- words ------------------------------------------------------------------------------------------------------------

OPENINGS: Mapping[Verdict, str] = {
    "improved": "Tuning helped.",
    "equivalent": "Tuning changed nothing that matters.",
    "worse": "Tuning made it worse.",
    "inconclusive": "Inconclusive.",
}


def describe(comparison: Comparison, others: Sequence[Comparison], metric: Metric, margin: float) -> str:
    """The deciding comparison as a sentence for people; `others` are the same metric's against other sides."""
    show, signed = (_percent, _points) if metric.unit == "share" else (_plain(metric.unit), _signed(metric.unit))
    beside = (c for c in others if abs(c.tuned - comparison.tuned) < SAME)  # a judge marks tuned anew beside each side
    shown = sorted((comparison, *beside), key=lambda c: c.against != "base")
    sides = [f"{c.against} {show(c.untuned)}" for c in shown]
    title = metric.title[0].upper() + metric.title[1:]
    opening = f"{OPENINGS[comparison.verdict]} {title}: {', '.join(sides)}, tuned {show(comparison.tuned)}"
    if comparison.ci_low is None or comparison.ci_high is None:
        return f"{opening} on {comparison.num_rows} rows, too few for an interval."
    against = f" against {comparison.against}" if others else ""
    interval = (
        f"{signed(comparison.difference)}{against} (95 % interval {signed(comparison.ci_low)} to "
        f"{signed(comparison.ci_high)}, {comparison.num_rows} rows)"
    )
    bar = signed(margin).lstrip("+")
    ending = {
        "improved": f", more than the margin of {bar}.",
        "equivalent": f", within the margin of {bar}.",
        "worse": ".",
        "inconclusive": f", which does not clear the margin of {bar}.",
    }[comparison.verdict]
    needed = comparison.rows_needed if comparison.verdict == "inconclusive" else None
    return f"{opening}: {interval}{ending}" + (f" About {needed:,} test rows would settle it." if needed else "")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:+z.1f} points"


def _plain(unit: str) -> Callable[[float], str]:
    return lambda value: f"{value:.3f} {unit}".rstrip()


def _signed(unit: str) -> Callable[[float], str]:
    return lambda value: f"{value:+z.3f} {unit}".rstrip()
