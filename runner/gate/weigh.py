"""From the arms' figures to a verdict: does an un-tuned way of answering reach the target, and at what price?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runner.arms import NO_ROOM
from runner.cost import Estimate, row_work
from runner.data.prepare import Dataset
from runner.errors import Exit, Problem, RunnerError, Where
from runner.gate.measure import ArmResult, served_per_1000
from runner.plan import Plan
from runner.scoring import Scoring
from runner.stats import Interval, rows_to_clear

Measured = Literal["prompting_enough", "prompting_cheaper", "retrieval_enough", "fine_tune", "inconclusive"]
MAX_UNANSWERED = 0.05  # share of rows without an answer above which an arm's score is not read
DECIMALS = 12  # as the intervals' ends: float noise must not decide


@dataclass(frozen=True, kw_only=True)
class Target:
    """The score that is good enough: the metric it is of, its value, and where that comes from."""

    metric: str
    value: float
    origin: str


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A verdict with its reason, the arm with the best score, and the one that is `enough` instead of tuning."""

    verdict: Measured
    text: str
    best: str | None
    enough: str | None = None
    findings: tuple[Problem, ...] = ()


def find_target(plan: Plan, scoring: Scoring) -> Target | None:
    """The primary metric's target. Unless written it is the best value there can be, less the margin, of the first
    metric that has one; None when none has. Raises RunnerError (78) when no arm could ever have the one written."""
    if plan.gate.target is not None:
        _check_target(plan.gate.target, scoring)
        return Target(metric=scoring.primary, value=plan.gate.target, origin=plan.origins["gate.target"])
    for name, metric in scoring.metrics.items():
        if metric.bounds and metric.needs != "judge":
            best, sign = (metric.bounds[1], -1) if metric.higher_is_better else (metric.bounds[0], 1)
            return Target(
                metric=name,
                value=round(best + sign * plan.eval.margin, DECIMALS),
                origin="derived: the best there can be, less eval.margin",
            )
    return None


def _check_target(target: float, scoring: Scoring) -> None:
    metric = scoring.metrics[scoring.primary]
    if metric.needs == "judge":
        what = "gate.target is of the first metric, and the judge is not asked about un-tuned arms."
        fix = "Name another metric first in eval.metrics, or remove gate.target."
    elif metric.bounds and not metric.bounds[0] <= target <= metric.bounds[1]:
        least, most = metric.bounds
        what = f"gate.target is {target:g}, but {scoring.primary} lies between {least:g} and {most:g}."
        fix = "Write it as a share:  target: 0.9"
    else:
        return
    raise RunnerError(Problem(code="gate/target", what=what, where=Where(key="gate.target"), fix=fix), Exit.MANIFEST)


def tuned_price(plan: Plan, dataset: Dataset) -> float | None:
    """Dollars for a thousand requests of the tuned model, were it to answer as expected; None without prices."""
    if plan.roi is None:
        return None
    row, written = row_work(dataset), plan.roi.tuned
    prompt = row.read if written.prompt_tokens is None else written.prompt_tokens
    return served_per_1000(plan, prompt, row.written if written.output_tokens is None else written.output_tokens)


def weigh(
    plan: Plan,
    arms: Sequence[ArmResult],
    target: Target | None,
    tuned_usd: float | None,
    estimate: Estimate,
    scoring: Scoring,
) -> Weighed:
    """The verdict on measured arms; `tuned_usd` is the projected price of a thousand tuned requests."""
    metric = target.metric if target else _measured_metric(arms, scoring)
    sign = 1 if scoring.metrics[metric].higher_is_better else -1
    scored = [(arm, interval) for arm in arms if (interval := _score(arm, metric)) is not None]
    ranked = sorted(scored, key=lambda pair: _rank(pair[0], pair[1], scoring, sign))
    best = ranked[0][0].name if ranked else None
    if target is None:
        return Weighed(verdict="inconclusive", text=NO_TARGET.what, best=best, findings=(NO_TARGET,))
    unmeasured = [arm for arm in arms if _score(arm, metric) is None]
    missing = tuple(map(_left_out, unmeasured))
    if reached := [arm for arm, interval in ranked if _surely(interval, target.value, sign)]:
        cheapest = min(reached, key=_dearness)
        verdict, text = _reached(plan, cheapest, reached, target, tuned_usd, estimate)
        if verdict == "fine_tune":
            return Weighed(verdict=verdict, text=text, best=best, findings=missing)
        return Weighed(verdict=verdict, text=text, best=best, enough=cheapest.name, findings=(_note(text), *missing))
    still_open = [(arm, interval) for arm, interval in ranked if _possibly(interval, target.value, sign)]
    if not ranked or still_open or any(arm.left_out != NO_ROOM for arm in unmeasured):
        text = _why_open(still_open, target) if ranked else NOTHING_MEASURED
        problem = Problem(code="gate/inconclusive", what=text, where=Where(key="data.split.dev"), fix=MEASURE_MORE)
        return Weighed(verdict="inconclusive", text=text, best=best, findings=(problem, *missing))
    arm, interval = ranked[0]
    text = (
        f"No un-tuned arm reaches {_show(target.value)} of {target.metric}: the best, {arm.name}, "
        f"has {_with_ends(interval)} on {_num_scored(arm, metric)} dev rows."
    )
    return Weighed(verdict="fine_tune", text=text, best=best, findings=missing)


NOTHING_MEASURED = "No un-tuned arm could be measured, so nothing says whether tuning is worth trying."
MEASURE_MORE = (
    "Hold out more dev rows (data.split.dev, gate.max_rows), mend or remove arms that were not measured, set "
    "gate.target to what is good enough, or set gate.policy to warn."
)
NO_TARGET = Problem(
    code="gate/no-target",
    what="The gate has no target: none of eval.metrics has a best value that a target could follow from.",
    where=Where(key="gate.target"),
    fix="Set gate.target to the score of the primary metric that is good enough; beside the judge, name another one.",
)


def _measured_metric(arms: Sequence[ArmResult], scoring: Scoring) -> str:
    """The first metric that some arm has a score of."""
    measured = (name for name in scoring.metrics if any(_score(arm, name) for arm in arms))
    return next(measured, scoring.primary)


def _score(arm: ArmResult, metric: str) -> Interval | None:
    """The arm's score; None also where too many of its rows have no answer for it to speak for the rest."""
    answered = arm.side is not None and arm.side.num_unanswered <= MAX_UNANSWERED * arm.side.num_rows
    return arm.side.scores[metric] if arm.side and answered else None


def _num_scored(arm: ArmResult, metric: str) -> int:
    return arm.side.num_rows - arm.side.unscored[metric] if arm.side else 0


def _rank(arm: ArmResult, interval: Interval, scoring: Scoring, sign: int) -> tuple[float | str, ...]:
    """Best first: by the target's metric, then by the other metrics, then by tokens, at last by name."""
    assert arm.side
    others = []
    for name, metric in scoring.metrics.items():
        other = arm.side.scores[name]
        others.append(-other.mean * (1 if metric.higher_is_better else -1) if other else math.inf)
    tokens = arm.side.prompt_tokens, arm.side.output_tokens
    length = math.inf if tokens[0] is None or tokens[1] is None else tokens[0] + tokens[1]
    return (-sign * interval.mean, *others, length, arm.name)


def _surely(interval: Interval, target: float, sign: int) -> bool:
    """Whether even the worse end of the interval is as good as the target."""
    worse = interval.low if sign > 0 else interval.high
    return worse is not None and sign * (worse - target) >= 0


def _possibly(interval: Interval, target: float, sign: int) -> bool:
    """Whether the interval leaves it open that the target is reached."""
    better = interval.high if sign > 0 else interval.low
    return better is None or sign * (better - target) >= 0


def _dearness(arm: ArmResult) -> tuple[bool, float, bool, int]:
    """Cheap first; at one price a prompt before retrieval, which takes more than a prompt."""
    return arm.usd_per_1000 is None, arm.usd_per_1000 or 0.0, arm.kind == "retrieval", arm.num_shots


def _reached(
    plan: Plan,
    arm: ArmResult,
    reached: Sequence[ArmResult],
    target: Target,
    tuned_usd: float | None,
    estimate: Estimate,
) -> tuple[Measured, str]:
    """The verdict where some arms reach the target, of which `arm` is the cheapest."""
    assert arm.side
    interval = arm.side.scores[target.metric]
    assert interval
    opening = (
        f"{arm.name} reaches the target without tuning: {target.metric} {_with_ends(interval)} on "
        f"{_num_scored(arm, target.metric)} dev rows, and {_show(target.value)} is good enough"
    )
    only_retrieval = all(one.kind == "retrieval" for one in reached)
    enough: Measured = "retrieval_enough" if arm.kind == "retrieval" else "prompting_enough"
    if plan.roi is None or tuned_usd is None or arm.usd_per_1000 is None:
        return enough, f"{opening}."
    saving = (arm.usd_per_1000 - tuned_usd) / 1000 * plan.roi.requests_per_month
    investment = plan.roi.one_time_usd + (estimate.usd.expected if estimate.usd else 0.0)
    prices = f"{_usd(arm.usd_per_1000)} a thousand requests against {_usd(tuned_usd)} tuned"
    if estimate.usd is None:
        prices += " (what the run itself costs is unknown, and counted as 0)"
    if saving <= 0 or investment / saving > plan.roi.horizon_months:
        verdict: Measured = enough if only_retrieval else "prompting_cheaper"
        return verdict, f"{opening}, at {prices}: tuning would not pay back."
    if unpriced := [one.name for one in reached if one.usd_per_1000 is None]:
        return enough, f"{opening}, at {prices}; and so does {unpriced[0]}, whose price is unknown."
    return "fine_tune", f"{opening}; but at {prices}, tuning would pay back in {investment / saving:,.1f} months."


def _usd(value: float) -> str:
    """Dollars; small amounts to two figures."""
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.2g}"


def _note(text: str) -> Problem:
    fix = "Use that prompt instead of tuning; raise gate.target if it is not good enough after all."
    return Problem(code="gate/reached", what=text, where=Where(key="gate.target"), fix=fix, severity="note")


def _left_out(arm: ArmResult) -> Problem:
    silent = f"{arm.side.num_unanswered} of {arm.side.num_rows} rows have no answer" if arm.side else ""
    reasons = arm.left_out or (silent if arm.side and arm.side.num_unanswered else "none of its answers has a score")
    return Problem(
        code="gate/not-measured",
        what=f"The arm '{arm.name}' was not measured: {reasons.rstrip('.')}.",
        where=Where(key="gate.models" if arm.kind == "model" else "gate.arms"),
        fix="Mend what the reason names, or remove the arm.",
        severity="warning",
    )


def _why_open(still_open: Sequence[tuple[ArmResult, Interval]], target: Target) -> str:
    if not still_open:
        return "No measured arm reaches the target, but not every arm was measured."
    arm, interval = still_open[0]
    num_rows = _num_scored(arm, target.metric)
    text = (
        f"It is open whether {arm.name} reaches {_show(target.value)} of {target.metric}: it has "
        f"{_with_ends(interval)} on {num_rows} dev rows."
    )
    needed = rows_to_tell(interval, num_rows, target.value)
    if interval.low is None:
        return f"{text} With more dev rows, it can be said how many would tell."
    return text + (f" About {needed:,} dev rows would tell." if needed else " No usual number of dev rows would tell.")


def rows_to_tell(interval: Interval, num_rows: int, target: float) -> int | None:
    """About how many rows would put the interval to one side of the target, were mean and spread to stay; None when
    the mean lies too near it."""
    return rows_to_clear(interval, num_rows, abs(interval.mean - target))


def _with_ends(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{_show(interval.mean)} (too few rows for an interval)"
    return f"{_show(interval.mean)} (95 % interval {_show(interval.low)} to {_show(interval.high)})"


def _show(value: float) -> str:
    return f"{value:.3f}"
