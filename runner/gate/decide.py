"""Is tuning worth trying at all? Free checks first, then un-tuned arms measured on the dev rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from runner.answerer import Answerer
from runner.arms import make_arms
from runner.cost import Estimate
from runner.data.prepare import Dataset
from runner.errors import Problem, Where
from runner.gate.measure import ArmResult, measure_arms
from runner.gate.static import TASKS, RowCounts, static_findings
from runner.gate.weigh import Target, find_target, tuned_price, weigh
from runner.judge import JudgeCheck
from runner.judging import try_judge
from runner.plan import Plan
from runner.scoring import Scoring
from runner.stats import effective_rows, minimum_detectable

__all__ = ["TASKS", "ArmResult", "Decision", "GateVerdict", "decide", "decide_for_free", "describe_power"]

GateVerdict = Literal[
    "prompting_enough",
    "prompting_cheaper",
    "retrieval_enough",
    "need_data",
    "fine_tune",
    "inconclusive",
    "try_retrieval",
    "try_prompting",
    "skipped",
]
GOES_ON = ("fine_tune", "skipped")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate says, and why; `says_no` is set whether or not the policy enforces it.

    `detectable` is the smallest true gain of the target's metric that the test rows would show in four runs out of
    five (None: unknown, or more than there can be). `best` names the arm with the best score, None before measuring,
    `enough` the one to use instead of tuning.
    """

    verdict: GateVerdict
    says_no: bool
    text: str
    policy: str
    reason: str
    task: str
    target: Target | None
    detectable: float | None
    num_dev: int
    arms: tuple[ArmResult, ...]
    best: str | None
    enough: str | None
    tuned_usd_per_1000: float | None
    judge: JudgeCheck | None
    findings: tuple[Problem, ...]

    @property
    def reasons(self) -> tuple[Problem, ...]:
        """Why the gate says no: what speaks against tuning, or else that it is not needed."""
        errors = tuple(finding for finding in self.findings if finding.severity == "error")
        return errors or tuple(finding for finding in self.findings if finding.code == "gate/reached")

    @property
    def refuses(self) -> bool:
        """Whether the run ends here: the gate says no, and its policy enforces that."""
        return self.says_no and self.policy == "enforce"


def decide_for_free(plan: Plan, dataset: Dataset, scoring: Scoring) -> Decision:
    """The static checks alone, with what the test rows will be able to show; nothing is asked of any model."""
    gate = plan.gate
    target = find_target(plan, scoring)
    groups = [row.group for row in dataset.test]
    shares = scoring.metrics[scoring.primary].bounds == (0, 1)
    detectable = minimum_detectable(effective_rows(groups, len(groups)), plan.eval.margin) if shares else None
    rows = RowCounts(
        num_own=dataset.split.num_own,
        num_train=len(dataset.train),
        train_tokens=dataset.train_tokens,
        num_test=dataset.split.test,
    )
    findings = (*static_findings(plan, rows), *_few_dev(plan, dataset, target, scoring))
    verdict: GateVerdict = "fine_tune"
    errors = {finding.code for finding in findings if finding.severity == "error"}
    if gate.policy == "skip":
        verdict = "skipped"
        note = Problem(code="gate/skipped", what=f"The gate was skipped: {gate.reason}", severity="warning")
        findings = (note,)
    elif "gate/wrong-tool" in errors:
        verdict = TASKS[gate.task].instead or verdict
    elif errors:
        verdict = "need_data"
    return Decision(
        verdict=verdict,
        says_no=verdict not in GOES_ON,
        text=" ".join(finding.what for finding in findings if finding.severity == "error"),
        policy=gate.policy,
        reason=gate.reason,
        task=gate.task,
        target=target,
        detectable=detectable,
        num_dev=min(len(dataset.dev), gate.max_rows),
        arms=(),
        best=None,
        enough=None,
        tuned_usd_per_1000=None,
        judge=None,
        findings=findings,
    )


def decide(
    plan: Plan, dataset: Dataset, estimate: Estimate, answerer: Answerer, scoring: Scoring, folder: Path
) -> Decision:
    """The free checks, then the arms on the dev rows, unless the checks have already ended the run.

    Each arm's answers are kept in `folder`. No test row is looked at. An endpoint that cannot be asked is noted in
    `answerer.outages`.
    """
    free = decide_for_free(plan, dataset, scoring)
    if free.refuses:
        return free
    answerer.watch.say(describe_power(free, len(dataset.test), scoring.primary))
    check = try_judge(plan, dataset, answerer, folder)
    if free.verdict == "skipped":
        return replace(free, judge=check, findings=(*free.findings, *(check.findings if check else ())))
    arms = measure_arms(plan, dataset, estimate, make_arms(plan, dataset, scoring.schema), answerer, scoring, folder)
    tuned_usd = tuned_price(plan, dataset)
    found = weigh(plan, arms, free.target, tuned_usd, estimate, scoring)
    verdict, text = (free.verdict, free.text) if free.says_no else (found.verdict, found.text)
    if check and not check.reliable and scoring.primary == "judge" and verdict == "fine_tune":
        verdict, text = (
            "inconclusive",
            "The judge is not reliable, and it is the primary metric: no verdict can follow.",
        )
    return replace(
        free,
        verdict=verdict,
        says_no=verdict not in GOES_ON,
        text=text,
        judge=check,
        arms=arms,
        best=found.best,
        enough=found.enough if verdict == found.verdict else None,
        tuned_usd_per_1000=tuned_usd,
        findings=(
            *free.findings,
            *(check.findings if check else ()),
            *found.findings,
            *(_power(free, arms, found.best, scoring) if found.enough is None else ()),
        ),
    )


def _few_dev(plan: Plan, dataset: Dataset, target: Target | None, scoring: Scoring) -> tuple[Problem, ...]:
    """A warning when even an arm that is always right could not be said to reach the target on so few dev rows."""
    num_rows = min(len(dataset.dev), plan.gate.max_rows)
    if target is None or scoring.metrics[target.metric].bounds != (0, 1) or not 0 < target.value < 1:
        return ()
    # The exact 95 % bound where no row differs, solved for the rows: (1 - target) = 1 - 0.025 ** (1 / rows).
    share = target.value if scoring.metrics[target.metric].higher_is_better else 1 - target.value
    needed = math.ceil(math.log(0.025) / math.log(share))
    if num_rows >= needed:
        return ()
    what = f"On {num_rows} dev rows, even an arm that is always right cannot be said to reach {target.value:g} of "
    fix = f"Hold out {needed} dev rows (data.split.dev), or set gate.target to what is good enough."
    return (
        Problem(
            code="gate/few-dev-rows",
            what=f"{what}{target.metric}; it takes {needed}.",
            where=Where(key="data.split.dev"),
            fix=fix,
            severity="warning",
        ),
    )


def describe_power(decision: Decision, num_test: int, metric: str) -> str:
    """What the test rows can show, in a sentence; said before anything is spent."""
    if decision.detectable is None:
        return f"What gain of {metric} the {num_test:,} test rows can show cannot be said beforehand."
    gain = f"a true gain of {decision.detectable:.3f} or more in {metric}"
    return f"The {num_test:,} test rows can show {gain} (in four runs out of five)."


def _power(free: Decision, arms: Sequence[ArmResult], best: str | None, scoring: Scoring) -> tuple[Problem, ...]:
    """A warning when what is left to gain over the best arm is less than the test rows can show."""
    target, side = free.target, next((arm.side for arm in arms if arm.name == best), None)
    score = side.scores[target.metric] if target and side else None
    if target is None or score is None or free.detectable is None or target.metric != scoring.primary:
        return ()
    left = 1 - score.mean if scoring.metrics[target.metric].higher_is_better else score.mean
    if left >= free.detectable or left == 0:
        return ()
    what = (
        f"The best arm leaves {left:.3f} to gain, and the test rows can only show a gain of "
        f"{free.detectable:.3f} or more: even a perfect tuned model might not be told from it."
    )
    fix = "Hold out more test rows (raise data.split.test, or add rows)."
    return (
        Problem(code="gate/cannot-show", what=what, where=Where(key="data.split.test"), fix=fix, severity="warning"),
    )
