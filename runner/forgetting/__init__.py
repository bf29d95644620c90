"""What tuning made the model forget: general probes and loss on general text, base beside tuned."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from runner.backends.base import Sampling, Session, Side, Watch
from runner.conversation import Completion
from runner.errors import Problem
from runner.forgetting.findings import Losses, describe, over_budget, too_low_to_fall, trained_form, unscored_texts
from runner.forgetting.probes import KINDS, Probe, load_probes, load_texts
from runner.plan import Plan
from runner.stats import Interval, mean_interval

SIDES: tuple[Side, Side] = ("base", "tuned")
MAX_NEW_TOKENS = 32  # every probe can be answered, or declined, in as many


@dataclass(frozen=True, kw_only=True)
class KindResult:
    """Shares of the probes of one kind that were passed."""

    base: float
    tuned: float
    num: int


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """General abilities before and after: shares of probes passed and loss on general text, in nats per token as the
    mean over passages.

    Differences are tuned minus base, paired by probe and by passage; a loss that could not be taken is None.
    `exceeded`: a budget (`max_drop`, `max_loss_rise`) is broken by the whole interval, not by its middle alone.
    """

    num_probes: int
    base: Interval
    tuned: Interval
    difference: Interval
    kinds: Mapping[str, KindResult]
    num_texts: int
    base_loss: float | None
    tuned_loss: float | None
    loss_difference: Interval | None
    max_drop: float | None
    max_loss_rise: float | None
    exceeded: bool
    findings: tuple[Problem, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class _SideAnswers:
    """One side's answers to the probes, whether each is right, and its loss on each text."""

    passed: Sequence[bool]
    outputs: Sequence[str]
    losses: Sequence[float]


def measure_forgetting(plan: Plan, session: Session, folder: Path, watch: Watch) -> Forgetting | None:
    """Asks both sides every probe and takes their loss on every general text; the answers are kept in `folder`. None
    when the plan asks for no such measure."""
    budget, probes = plan.eval.forgetting, load_probes()
    if not budget.measure:
        return None
    base_side, tuned_side = (_ask(side, plan, session, folder, watch) for side in SIDES)
    groups = [probe.group for probe in probes]
    changes = [int(t) - int(b) for b, t in zip(base_side.passed, tuned_side.passed, strict=True)]
    difference = _interval(changes, plan, groups=groups, bounds=(-1, 1))
    base, tuned = (_interval(side.passed, plan, groups=groups, bounds=(0, 1)) for side in (base_side, tuned_side))
    loss = _losses(base_side.losses, tuned_side.losses, plan)
    findings = [
        *over_budget(difference, loss.difference, budget),
        *too_low_to_fall(base, budget),
        *unscored_texts(loss, budget),
        *trained_form(base_side.outputs, tuned_side.outputs),
    ]
    return Forgetting(
        num_probes=len(probes),
        base=base,
        tuned=tuned,
        difference=difference,
        kinds=_by_kind(probes, base_side.passed, tuned_side.passed),
        num_texts=loss.num,
        base_loss=loss.base,
        tuned_loss=loss.tuned,
        loss_difference=loss.difference,
        max_drop=budget.max_drop,
        max_loss_rise=budget.max_loss_rise,
        exceeded=any(finding.code == "eval/forgot" for finding in findings),
        findings=tuple(findings),
        text=describe(base, tuned, difference, len(probes), loss),
    )


def _ask(side: Side, plan: Plan, session: Session, folder: Path, watch: Watch) -> _SideAnswers:
    probes = load_probes()
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, batch_size=plan.eval.batch_size)
    answers = session.complete(side, [probe.messages for probe in probes], sampling, watch)
    passed = [probe.passed(answer.text) for probe, answer in zip(probes, answers, strict=True)]
    _keep(folder / f"forgetting-{side}.jsonl", probes, answers, passed)
    losses = session.held_out_loss(side, load_texts(), watch).rows
    return _SideAnswers(passed=passed, outputs=[answer.text for answer in answers], losses=losses)


def _interval(
    values: Sequence[float], plan: Plan, *, groups: Sequence[str] = (), bounds: tuple[float, float] | None = None
) -> Interval:
    return mean_interval(values, groups=groups, bounds=bounds, seed=plan.seed, resamples=plan.eval.resamples)


def _losses(base: Sequence[float], tuned: Sequence[float], plan: Plan) -> Losses:
    pairs = [(b, t) for b, t in zip(base, tuned, strict=True) if math.isfinite(b) and math.isfinite(t)]
    unscored = len(base) - len(pairs)
    if not pairs:
        return Losses(num=0, unscored=unscored)
    return Losses(
        num=len(pairs),
        unscored=unscored,
        base=fmean(b for b, _ in pairs),
        tuned=fmean(t for _, t in pairs),
        difference=_interval([t - b for b, t in pairs], plan),
    )


def _by_kind(probes: Sequence[Probe], base: Sequence[bool], tuned: Sequence[bool]) -> dict[str, KindResult]:
    results = {}
    for kind in KINDS:
        places = [i for i, probe in enumerate(probes) if probe.kind == kind]
        results[kind] = KindResult(
            base=fmean(base[i] for i in places), tuned=fmean(tuned[i] for i in places), num=len(places)
        )
    return results


def _keep(path: Path, probes: Sequence[Probe], answers: Sequence[Completion], passed: Sequence[bool]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for probe, answer, right in zip(probes, answers, passed, strict=True):
            record = {
                "id": probe.id,
                "kind": probe.kind,
                "prompt": probe.prompt,
                "output": answer.text,
                "passed": right,
                "seconds": answer.seconds,
                "tokens": answer.output_tokens,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
