"""From the arms' figures to a verdict: does an un-tuned way of answering reach the target, and at what price?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runner.cost import Estimate
from runner.data import Dataset
from runner.errors import Problem, Where
from runner.gate.measure import ArmResult, served_per_1000
from runner.plan import Plan
from runner.scoring import Scoring
from runner.stats import Interval

Measured = Literal["prompting_enough", "prompting_cheaper", "retrieval_enough", "fine_tune", "inconclusive"]
GOOD_DEV = 30


@dataclass(frozen=True, kw_only=True)
class Target:
    """The score that is good enough: the metric it is of, its value, and where that comes from."""

    metric: str
    value: float
    origin: str


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A verdict with its reason, and the arm with the best score."""

    verdict: Measured
    text: str
    best: str | None
    findings: tuple[Problem, ...] = ()


def find_target(plan: Plan, scoring: Scoring) -> Target | None:
    """The primary metric's target. Unless written it is the best value there can be, less the margin, of the first
    metric that has one; None when none has."""
    if plan.gate.target is not None:
        return Target(metric=scoring.primary, value=plan.gate.target, origin=plan.origins["gate.target"])
    for name, metric in scoring.metrics.items():
        if metric.bounds and metric.needs != "judge":
            best, sign = (metric.bounds[1], -1) if metric.higher_is_better else (metric.bounds[0], 1)
            return Target(
                metric=name,
                value=best + sign * plan.eval.margin,
                origin="derived: the best there can be, less eval.margin",
            )
    return None


def tuned_price(plan: Plan, dataset: Dataset) -> float | None:
    """Dollars for a thousand requests of the tuned model, were it to answer as expected; None without prices."""
    if plan.roi is None:
        return None
    tokens, num_rows = dataset.tokens, dataset.tokens.num_counted
    prompt = plan.roi.tuned.prompt_tokens or (tokens.total - tokens.labelled) / num_rows
    return served_per_1000(plan, prompt, plan.roi.tuned.output_tokens or tokens.labelled / num_rows)


def weigh(
    plan: Plan,
    arms: Sequence[ArmResult],
    target: Target | None,
    tuned_usd: float | None,
    estimate: Estimate,
    scoring: Scoring,
) -> Weighed:
    """The verdict on measured arms; `tuned_usd` is the projected price of a thousand tuned requests."""
    if target is None:
        return Weighed(verdict="inconclusive", text=NO_TARGET.what, best=None, findings=(NO_TARGET,))
    sign = 1 if scoring.metrics[target.metric].higher_is_better else -1
    scored = [(arm, interval) for arm in arms if (interval := _score(arm, target.metric)) is not None]
    ranked = sorted(scored, key=lambda pair: _rank(pair[0], pair[1], scoring, sign))
    best = ranked[0] if ranked else None
    missing = tuple(_left_out(arm) for arm in arms if _score(arm, target.metric) is None)
    reached = [arm for arm, interval in ranked if _surely(interval, target.value, sign)]
    if reached:
        verdict, text = _reached(plan, reached, target, tuned_usd, estimate)
        findings = _note("gate/reached", text, verdict) if verdict != "fine_tune" else ()
        return Weighed(verdict=verdict, text=text, best=best[0].name if best else None, findings=(*findings, *missing))
    open_arms = [(arm, interval) for arm, interval in ranked if _possibly(interval, target.value, sign)]
    if best is None or open_arms or missing:
        text = _why_open(plan, best, open_arms, missing, target, sign)
        problem = Problem(
            code="gate/inconclusive",
            what=text,
            where=Where(key="data.split.dev"),
            fix="Hold out more dev rows, set gate.target to what is good enough, or set gate.policy to warn.",
        )
        return Weighed(
            verdict="inconclusive", text=text, best=best[0].name if best else None, findings=(problem, *missing)
        )
    arm, interval = best
    text = (
        f"No un-tuned arm reaches {_show(target.value)} of {target.metric}: the best, {arm.name}, "
        f"has {_with_ends(interval)} on {arm.side.num_rows if arm.side else 0} dev rows."
    )
    return Weighed(verdict="fine_tune", text=text, best=arm.name)


NO_TARGET = Problem(
    code="gate/no-target",
    what="The gate has no target: none of eval.metrics has a best value that a target could follow from.",
    where=Where(key="gate.target"),
    fix="Set gate.target to the score of the primary metric that is good enough.",
)


def _score(arm: ArmResult, metric: str) -> Interval | None:
    return arm.side.scores[metric] if arm.side else None


def _rank(arm: ArmResult, interval: Interval, scoring: Scoring, sign: int) -> tuple[float, ...]:
    """Best first: by the target's metric, then by the other metrics, then by tokens."""
    assert arm.side
    others = []
    for name, metric in scoring.metrics.items():
        other = arm.side.scores[name]
        others.append(-other.mean * (1 if metric.higher_is_better else -1) if other else math.inf)
    return (-sign * interval.mean, *others, (arm.side.prompt_tokens or 0) + (arm.side.output_tokens or 0))


def _surely(interval: Interval, target: float, sign: int) -> bool:
    """Whether even the worse end of the interval is as good as the target."""
    worse = interval.low if sign > 0 else interval.high
    return worse is not None and sign * (worse - target) >= 0


def _possibly(interval: Interval, target: float, sign: int) -> bool:
    """Whether the interval leaves it open that the target is reached."""
    better = interval.high if sign > 0 else interval.low
    return better is None or sign * (better - target) >= 0


def _reached(
    plan: Plan, reached: Sequence[ArmResult], target: Target, tuned_usd: float | None, estimate: Estimate
) -> tuple[Measured, str]:
    arm = min(reached, key=lambda one: (one.usd_per_1000 is None, one.usd_per_1000 or 0.0, one.num_shots))
    assert arm.side
    interval = arm.side.scores[target.metric]
    assert interval
    opening = (
        f"{arm.name} reaches the target without tuning: {target.metric} {_with_ends(interval)} on "
        f"{arm.side.num_rows} dev rows, and {_show(target.value)} is good enough"
    )
    if plan.roi and tuned_usd is not None and arm.usd_per_1000 is not None:
        saving = (arm.usd_per_1000 - tuned_usd) / 1000 * plan.roi.requests_per_month
        investment = plan.roi.one_time_usd + (estimate.usd.expected if estimate.usd else 0.0)
        prices = f"${arm.usd_per_1000:,.2f} a thousand requests against ${tuned_usd:,.2f} tuned"
        if saving * plan.roi.horizon_months > investment:
            text = f"{opening}; but at {prices}, tuning would pay back in {investment / saving:,.1f} months."
            return "fine_tune", text
        if arm.kind != "retrieval":
            return "prompting_cheaper", f"{opening}, at {prices}: tuning would not pay back."
    only_retrieval = all(one.kind == "retrieval" for one in reached)
    return "retrieval_enough" if only_retrieval else "prompting_enough", f"{opening}."


def _note(code: str, text: str, verdict: str) -> tuple[Problem, ...]:
    fix = "Use that prompt instead of tuning; raise gate.target if it is not good enough after all."
    return (Problem(code=code, what=text, where=Where(key="gate.target"), fix=fix),)


def _left_out(arm: ArmResult) -> Problem:
    reasons = arm.left_out or "none of its answers has a score"
    return Problem(
        code="gate/not-measured", what=f"The arm '{arm.name}' was not measured: {reasons}.", severity="warning"
    )


def _why_open(
    plan: Plan,
    best: tuple[ArmResult, Interval] | None,
    open_arms: Sequence[tuple[ArmResult, Interval]],
    missing: Sequence[Problem],
    target: Target,
    sign: int,
) -> str:
    if best is None:
        return "No un-tuned arm could be measured, so nothing says whether tuning is worth trying."
    if not open_arms:
        return "No measured arm reaches the target, but not every arm was measured."
    arm, interval = open_arms[0]
    num_rows = arm.side.num_rows if arm.side else 0
    text = (
        f"It is open whether {arm.name} reaches {_show(target.value)} of {target.metric}: it has "
        f"{_with_ends(interval)} on {num_rows} dev rows."
    )
    needed = rows_to_tell(interval, num_rows, target.value)
    return text + (f" About {needed:,} dev rows would tell." if needed else " It lies too near the target to tell.")


def rows_to_tell(interval: Interval, num_rows: int, target: float) -> int | None:
    """About how many rows would put the interval to one side of the target, were mean and spread to stay; None when
    the mean lies too near it."""
    if interval.low is None or interval.high is None:
        return None
    half, distance = (interval.high - interval.low) / 2, abs(interval.mean - target)
    return None if distance * 20 < half else max(num_rows + 1, math.ceil(num_rows * (half / distance) ** 2))


def _with_ends(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{_show(interval.mean)} (too few rows for an interval)"
    return f"{_show(interval.mean)} (95 % interval {_show(interval.low)} to {_show(interval.high)})"


def _show(value: float) -> str:
    return f"{value:.3f}"
