"""Base, best un-tuned arm and tuned on the same test rows, once: scores, paired differences, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from runner.answerer import Answerer
from runner.arms import ZERO_SHOT, make_arms
from runner.data.prepare import Dataset
from runner.errors import Problem, Where
from runner.evaluate.compare import Comparison, compare, correct, deciding, describe
from runner.evaluate.slices import Slice, slice_rows
from runner.files import file_name
from runner.forgetting import Forgetting, measure_forgetting
from runner.gate.decide import Decision
from runner.judging import JudgeResult, judge_sides
from runner.metrics import Confusion, confusion
from runner.plan import Plan
from runner.scoring import Scored, Scoring, SideResult, keep, summarise, unscored_problem
from runner.stats import Verdict

__all__ = ["Comparison", "Evaluation", "evaluate"]

MIN_STOPPED = 0.9
CLASS_METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`comparison` is the one that decides `verdict`: of the primary metric, against the side that tuning does worst
    against. It is None where the primary metric has no score, which is `inconclusive`.

    `sides` are base, the best un-tuned arm where that is another one, and tuned. A gain is `inconclusive` where the
    best un-tuned arm could not be compared, or where all answers are those of base. `forgetting` can turn any verdict
    to `worse`.
    """

    verdict: Verdict
    text: str
    comparison: Comparison | None
    comparisons: tuple[Comparison, ...]
    sides: Mapping[str, SideResult]
    best_arm: str | None
    slices: tuple[Slice, ...]
    confusion: Mapping[str, Confusion] | None
    judge: JudgeResult | None
    forgetting: Forgetting | None
    num_rows: int
    margin: float
    identical_share: float
    max_new_tokens: int
    samples: tuple[Mapping[str, Any], ...]
    findings: tuple[Problem, ...]

    @property
    def base(self) -> SideResult:
        """The base model with the person's own prompt."""
        return self.sides["base"]

    @property
    def tuned(self) -> SideResult:
        """The tuned model with the same prompt."""
        return self.sides["tuned"]


def evaluate(
    plan: Plan,
    dataset: Dataset,
    answerer: Answerer,
    scoring: Scoring,
    decision: Decision,
    folder: Path,
) -> Evaluation:
    """Answers and scores the test rows on every side and compares them; every answer is kept in `folder`.

    An endpoint that fails does not take the other scores with it: it is noted in `answerer.outages`.
    """
    sides = _sides(plan, dataset, answerer, scoring, decision)
    judged = judge_sides(plan, answerer, decision.judge, sides, folder)
    if judged:
        sides = judged.sides
    for name, scored in sides.items():
        keep(folder / f"{file_name(name)}.jsonl", scored)
    comparisons = _compare(sides, judged.tuned if judged else {}, scoring, plan.eval.margin)
    decisive = deciding(comparisons, scoring.primary)
    forgetting = measure_forgetting(plan, answerer.session, folder, answerer.watch)
    results = {name: summarise(scoring, scored) for name, scored in sides.items()}
    identical = fmean(b == t for b, t in zip(sides["base"].texts, sides["tuned"].texts, strict=True))
    own = [c for c in comparisons if c.metric == scoring.primary]
    verdict, text = _verdict(decisive, own, scoring, plan.eval.margin, sides)
    if doubt := _doubt(verdict, {c.against for c in own}, decision, identical):
        verdict, text = "inconclusive", f"Inconclusive: {doubt}. But for that: {text}"
    if forgetting and forgetting.exceeded:
        verdict, text = "worse", f"Tuning made it worse, for what it cost in general ability: {forgetting.text} {text}"
    return Evaluation(
        verdict=verdict,
        text=text,
        comparison=decisive,
        comparisons=tuple(comparisons),
        sides=results,
        best_arm=next((name for name in sides if name not in ("base", "tuned")), None),
        slices=slice_rows(sides, scoring, plan.eval.margin),
        confusion=_confusions(sides, scoring),
        judge=judged.result if judged else None,
        forgetting=forgetting,
        num_rows=len(dataset.test),
        margin=plan.eval.margin,
        identical_share=identical,
        max_new_tokens=answerer.sampling.max_new_tokens,
        samples=_samples(sides, scoring),
        findings=(
            *_findings(identical, results, sides, scoring),
            *(judged.result.findings if judged else ()),
            *(forgetting.findings if forgetting else ()),
        ),
    )


def _sides(plan: Plan, dataset: Dataset, answerer: Answerer, scoring: Scoring, decision: Decision) -> dict[str, Scored]:
    """Base, best un-tuned arm and tuned, answered and scored; the arm is missing where its endpoint failed."""
    rows = dataset.test
    sides = {"base": answerer.measure(ZERO_SHOT, rows, scoring)}
    if decision.best not in (None, ZERO_SHOT.name):
        arm = next(arm for arm in make_arms(plan, dataset, scoring.schema) if arm.name == decision.best)
        with answerer.outage(f"The arm '{arm.name}'"):
            sides[arm.name] = answerer.measure(arm, rows, scoring)
    sides["tuned"] = answerer.measure(None, rows, scoring)
    return sides


def _compare(
    sides: Mapping[str, Scored], marks: Mapping[str, Scored], scoring: Scoring, margin: float
) -> list[Comparison]:
    """Tuned against every other side by every metric. The judge marks tuned anew beside each side: `marks` has tuned
    as it was marked there."""
    comparisons = []
    for against in sides:
        if against == "tuned":
            continue
        tuned = marks.get(against, sides["tuned"])
        found = (compare(name, against, sides[against], tuned, scoring, margin) for name in scoring.metrics)
        comparisons += correct([one for one in found if one], scoring.primary)
    return comparisons


def _verdict(
    decisive: Comparison | None, own: Sequence[Comparison], scoring: Scoring, margin: float, sides: Mapping[str, Scored]
) -> tuple[Verdict, str]:
    """What the comparisons of the primary metric (`own`) say by themselves."""
    primary = scoring.primary
    if decisive is None:
        scores = [one for scored in sides.values() for one in scored.scores[primary] if one.value is None]
        reason = next((one.reason for one in scores if one.reason), "no row has a score on both sides")
        return "inconclusive", f"No verdict: no row can be compared by '{primary}', the primary metric ({reason})."
    others = [c for c in own if c is not decisive]
    return decisive.verdict, describe(decisive, others, scoring.metrics[primary], margin)


def _doubt(verdict: Verdict, compared: set[str], decision: Decision, identical: float) -> str | None:
    """Why a verdict that the figures give is not to be believed."""
    wanted = {"base", *({decision.best} - {None, ZERO_SHOT.name})}
    if verdict in ("improved", "equivalent") and wanted - compared:
        return f"tuned could not be compared with {' and '.join(sorted(map(str, wanted - compared)))}"
    if verdict == "improved" and identical == 1:
        return "base and tuned gave the same answer to every row"
    return None


def _confusions(sides: Mapping[str, Scored], scoring: Scoring) -> Mapping[str, Confusion] | None:
    """Expected by answered class on every side; None unless a metric of classes is asked for and the data has some."""
    classes = next(iter(sides.values())).items[0].classes
    if classes is None or not any(name in scoring.metrics for name in CLASS_METRICS):
        return None
    return {name: _confusion(scored, classes) for name, scored in sides.items()}


def _confusion(scored: Scored, classes: frozenset[str]) -> Confusion:
    answered = [(text, row.expected) for text, row in zip(scored.texts, scored.rows, strict=True) if text is not None]
    return confusion([text for text, _ in answered], [expected for _, expected in answered], classes)


def _findings(
    identical: float, results: Mapping[str, SideResult], sides: Mapping[str, Scored], scoring: Scoring
) -> list[Problem]:
    found = []
    base, tuned = results["base"], results["tuned"]
    if identical == 1:
        found.append(
            Problem(
                code="eval/identical",
                what="Base and tuned gave the same answer to every row: the adapter did nothing.",
                fix="Check the learning rate, the number of steps and the labelled tokens.",
            )
        )
    if tuned.stopped_share is not None and base.stopped_share is not None and tuned.stopped_share < MIN_STOPPED:
        found.append(
            Problem(
                code="eval/does-not-stop",
                what=f"Only {tuned.stopped_share:.0%} of the tuned answers end by themselves "
                f"(base {base.stopped_share:.0%}).",
                fix="Train longer, or raise eval.max_new_tokens if the expected answers are longer.",
                severity="warning",
            )
        )
    for name in scoring.metrics:
        missing = {side: result.unscored[name] for side, result in results.items() if result.unscored[name]}
        if all(result.unscored[name] == result.num_rows for result in results.values()):
            found.append(unscored_problem(name, [one for side in sides.values() for one in side.scores[name]]))
        elif missing:
            found.append(_some_unscored(name, missing, sides))
    return found


def _some_unscored(name: str, missing: Mapping[str, int], sides: Mapping[str, Scored]) -> Problem:
    reasons = [one.reason for side in missing for one in sides[side].scores[name] if one.value is None]
    counts = ", ".join(f"{count} of {side}" for side, count in missing.items())
    return Problem(
        code="eval/unscored-rows",
        what=f"Rows without a score of '{name}', left out of it: {counts} (the first: {reasons[0]}).",
        where=Where(key="eval.metrics"),
        severity="warning",
    )


def _samples(sides: Mapping[str, Scored], scoring: Scoring) -> tuple[Mapping[str, Any], ...]:
    """A few rows for people to look at: the first of each kind of change in the primary metric."""
    sign = 1 if scoring.metrics[scoring.primary].higher_is_better else -1
    kinds: dict[int, list[Mapping[str, Any]]] = {1: [], 0: [], -1: []}
    rows = sides["base"].rows
    for i, row in enumerate(rows):
        marks = {name: scored.scores[scoring.primary][i].value for name, scored in sides.items()}
        base, tuned = marks["base"], marks["tuned"]
        change = 0 if base is None or tuned is None else sign * ((tuned > base) - (tuned < base))
        sample = {
            "question": row.prompt[-1].text,
            "expected": row.expected,
            "answers": {name: scored.texts[i] for name, scored in sides.items()},
            "scores": marks,
        }
        kinds[change].append(sample)
    return (*kinds[1][:4], *kinds[0][:2], *kinds[-1][:2])
