"""Base and tuned on the same test rows: scores with intervals, a paired difference, and a verdict in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from runner.backends.base import Sampling, Session, Side, Watch
from runner.conversation import Completion, Example
from runner.data import Dataset
from runner.errors import Exit, Problem, RunnerError, Where
from runner.metrics import METRICS, Answer, Score
from runner.plan import EvalPlan, Plan
from runner.stats import Interval, Verdict, bootstrap_mean, judge, rows_needed

SIDES: tuple[Side, Side] = ("base", "tuned")


@dataclass(frozen=True, kw_only=True)
class SideResult:
    """One side over all test rows: intervals of each metric, and what its answers cost."""

    scores: Mapping[str, Interval | None]
    unscored: Mapping[str, int]
    prompt_tokens: float
    output_tokens: float
    seconds_per_answer: float
    stopped_share: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tuned against base on the rows that both have scored; `difference` is tuned minus base."""

    metric: str
    base: float
    tuned: float
    difference: float
    ci_low: float | None
    ci_high: float | None
    num_rows: int
    unscored: int
    higher_is_better: bool
    verdict: Verdict
    rows_needed: int | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`comparison` is that of the primary metric, which decides `verdict`; `comparisons` has every metric's."""

    comparison: Comparison
    comparisons: tuple[Comparison, ...]
    base: SideResult
    tuned: SideResult
    num_rows: int
    margin: float
    identical_share: float
    max_new_tokens: int
    samples: tuple[Mapping[str, Any], ...]
    findings: tuple[Problem, ...]
    text: str


def evaluate(plan: Plan, dataset: Dataset, session: Session, folder: Path, watch: Watch) -> Evaluation:
    """Answers and scores the test rows on both sides and compares them; every answer is kept in `folder`."""
    schema = read_answer_schema(plan.eval)
    longest = plan.eval.max_new_tokens or round(dataset.tokens.longest_answer * 1.25)
    sampling = Sampling(max_new_tokens=longest, batch_size=plan.eval.batch_size)
    rows = dataset.test
    answers: dict[Side, list[Completion]] = {}
    scores: dict[Side, dict[str, list[Score]]] = {}
    for side in SIDES:
        answers[side] = session.complete(
            side, [row.prompt for row in rows], sampling, watch, [row.tools for row in rows]
        )
        losses: Sequence[float | None] = [None] * len(rows)
        if "loss" in plan.eval.metrics:
            losses = session.held_out_loss(side, rows, watch).rows
        scores[side] = _score(plan.eval.metrics, rows, answers[side], losses, schema)
        _keep(folder / f"{side}.jsonl", rows, answers[side], scores[side])
    compared = {name: _compare(name, scores["base"][name], scores["tuned"][name], plan) for name in plan.eval.metrics}
    comparisons = tuple(found for found in compared.values() if isinstance(found, Comparison))
    unscored = [found for found in compared.values() if isinstance(found, Problem)]
    if isinstance(compared[plan.eval.metrics[0]], Problem):
        raise RunnerError(unscored, Exit.MANIFEST)
    identical = fmean(b.text == t.text for b, t in zip(answers["base"], answers["tuned"], strict=True))
    base, tuned = (_side_result(answers[side], scores[side], plan) for side in SIDES)
    return Evaluation(
        comparison=comparisons[0],
        comparisons=comparisons,
        base=base,
        tuned=tuned,
        num_rows=len(rows),
        margin=plan.eval.margin,
        identical_share=identical,
        max_new_tokens=longest,
        samples=_samples(rows, answers, scores),
        findings=(*(replace(p, severity="warning") for p in unscored), *_findings(identical, base, tuned, comparisons)),
        text=describe(comparisons[0], plan.eval.margin),
    )


def check_metrics(plan: Plan, dataset: Dataset) -> None:
    """Scores the expected answers against themselves, before anything is spent; raises RunnerError (78) when the
    primary metric can score none of them."""
    schema, name = read_answer_schema(plan.eval), plan.eval.metrics[0]
    answers = [Answer(output=row.expected, expected=row.expected, schema=schema, loss=0.0) for row in dataset.test]
    scores = [METRICS[name].score(answer) for answer in answers]
    if all(score.value is None for score in scores):
        raise RunnerError(_no_score(name, scores), Exit.MANIFEST)


def read_answer_schema(plan: EvalPlan) -> Mapping[str, Any] | None:
    """The JSON Schema of answers; raises RunnerError (66 missing, 78 not a schema)."""
    if plan.json_schema is None:
        return None
    where = Where(path=str(plan.json_schema), key="eval.json_schema")
    try:
        schema: Mapping[str, Any] = json.loads(plan.json_schema.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"The JSON Schema of answers cannot be read: {error.strerror}."
        problem = Problem(code="eval/schema-missing", what=what, where=where, fix="Correct eval.json_schema.")
        raise RunnerError(problem, Exit.INPUT_MISSING) from error
    except (ValueError, RecursionError) as error:
        problem = Problem(code="eval/schema-invalid", what=f"Not JSON: {error}.", where=where, fix="Mend the file.")
        raise RunnerError(problem, Exit.MANIFEST) from error
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        what = f"Not a JSON Schema: {error.message}."
        problem = Problem(code="eval/schema-invalid", what=what, where=where, fix="Mend the file.")
        raise RunnerError(problem, Exit.MANIFEST) from error
    return schema


def describe(comparison: Comparison, margin: float) -> str:
    """The comparison as a sentence for people."""
    metric = METRICS[comparison.metric]
    show = _percent if metric.unit == "share" else _nats
    sides = f"{metric.title[0].upper()}{metric.title[1:]}: base {show(comparison.base)}, tuned {show(comparison.tuned)}"
    if comparison.ci_low is None or comparison.ci_high is None:
        return f"Inconclusive. {sides} on {comparison.num_rows} rows, too few for an interval."
    points = _points if metric.unit == "share" else _signed_nats
    interval = (
        f"{points(comparison.difference)} (95 % interval {points(comparison.ci_low)} to {points(comparison.ci_high)}, "
        f"{comparison.num_rows} rows)"
    )
    bar = points(margin).lstrip("+")
    words = {
        "improved": f"Tuning helped. {sides}: {interval}, more than the margin of {bar}.",
        "equivalent": f"Tuning changed nothing that matters. {sides}: {interval}, within the margin of {bar}.",
        "worse": f"Tuning made it worse. {sides}: {interval}.",
        "inconclusive": f"Inconclusive. {sides}: {interval}, which does not clear the margin of {bar}.",
    }[comparison.verdict]
    if comparison.verdict == "inconclusive" and comparison.rows_needed:
        words += f" About {comparison.rows_needed} test rows would settle it."
    return words


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:+z.1f} points"


def _nats(value: float) -> str:
    return f"{value:.3f} nats"


def _signed_nats(value: float) -> str:
    return f"{value:+z.3f} nats"


def _score(
    names: Sequence[str],
    rows: Sequence[Example],
    answers: Sequence[Completion],
    losses: Sequence[float | None],
    schema: Mapping[str, Any] | None,
) -> dict[str, list[Score]]:
    items = [
        Answer(output=answer.text, expected=row.expected, schema=schema, loss=value)
        for row, answer, value in zip(rows, answers, losses, strict=True)
    ]
    return {name: [METRICS[name].score(item) for item in items] for name in names}


def _compare(name: str, base: Sequence[Score], tuned: Sequence[Score], plan: Plan) -> Comparison | Problem:
    pairs = [
        (b.value, t.value) for b, t in zip(base, tuned, strict=True) if b.value is not None and t.value is not None
    ]
    if not pairs:
        return _no_score(name, (*base, *tuned))
    sign = 1 if METRICS[name].higher_is_better else -1
    gain = bootstrap_mean([sign * (t - b) for b, t in pairs], plan.seed, plan.eval.resamples)
    ends = (gain.low, gain.high) if sign > 0 else (_minus(gain.high), _minus(gain.low))
    verdict = judge(gain, plan.eval.margin)
    return Comparison(
        metric=name,
        base=fmean(b for b, _ in pairs),
        tuned=fmean(t for _, t in pairs),
        difference=sign * gain.mean,
        ci_low=ends[0],
        ci_high=ends[1],
        num_rows=len(pairs),
        unscored=len(base) - len(pairs),
        higher_is_better=sign > 0,
        verdict=verdict,
        rows_needed=rows_needed(gain, len(pairs), plan.eval.margin) if verdict == "inconclusive" else None,
    )


def _no_score(name: str, scores: Sequence[Score]) -> Problem:
    reason = next((score.reason for score in scores if score.reason), "no rows")
    return Problem(
        code="eval/unscored",
        what=f"No test row has a score of '{name}': {reason}.",
        where=Where(key="eval.metrics"),
        fix="Choose a metric that fits the answers.",
    )


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _side_result(answers: Sequence[Completion], scores: Mapping[str, Sequence[Score]], plan: Plan) -> SideResult:
    intervals: dict[str, Interval | None] = {}
    for name, found in scores.items():
        values = [score.value for score in found if score.value is not None]
        intervals[name] = bootstrap_mean(values, plan.seed, plan.eval.resamples) if values else None
    return SideResult(
        scores=intervals,
        unscored={name: sum(score.value is None for score in found) for name, found in scores.items()},
        prompt_tokens=fmean(answer.prompt_tokens for answer in answers),
        output_tokens=fmean(answer.output_tokens for answer in answers),
        seconds_per_answer=fmean(answer.seconds for answer in answers),
        stopped_share=fmean(answer.finish == "stop" for answer in answers),
    )


def _findings(
    identical: float, base: SideResult, tuned: SideResult, comparisons: Sequence[Comparison]
) -> list[Problem]:
    found = []
    if identical == 1:
        found.append(
            Problem(
                code="eval/identical",
                what="Base and tuned gave the same answer to every row: the training had no effect on answers.",
                fix="Check the learning rate, the number of steps and the labelled tokens.",
                severity="warning",
            )
        )
    if tuned.stopped_share < 0.9:
        found.append(
            Problem(
                code="eval/does-not-stop",
                what=f"Only {tuned.stopped_share:.0%} of the tuned answers end by themselves "
                f"(base {base.stopped_share:.0%}).",
                fix="Train longer, or raise eval.max_new_tokens if the expected answers are longer.",
                severity="warning",
            )
        )
    for comparison in comparisons:
        if comparison.unscored:
            found.append(
                Problem(
                    code="eval/unscored-rows",
                    what=f"{comparison.unscored} rows have no score of '{comparison.metric}' and are left out of it.",
                    severity="warning",
                )
            )
    return found


def _samples(
    rows: Sequence[Example], answers: Mapping[Side, Sequence[Completion]], scores: Mapping[Side, Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """A few rows for people to look at: the first of each kind of change in the primary metric."""
    primary = next(iter(scores["base"]))
    sign = 1 if METRICS[primary].higher_is_better else -1
    kinds: dict[int, list[Mapping[str, Any]]] = {1: [], 0: [], -1: []}
    for i, row in enumerate(rows):
        base, tuned = (scores[side][primary][i].value for side in SIDES)
        change = 0 if base is None or tuned is None else sign * ((tuned > base) - (tuned < base))
        sample = {
            "question": row.prompt[-1].content,
            "expected": row.expected,
            "base": answers["base"][i].text,
            "tuned": answers["tuned"][i].text,
            "base_score": base,
            "tuned_score": tuned,
        }
        kinds[change].append(sample)
    return (*kinds[1][:4], *kinds[0][:2], *kinds[-1][:2])


def _keep(
    path: Path, rows: Sequence[Example], answers: Sequence[Completion], scores: Mapping[str, Sequence[Score]]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            record = {
                "id": row.id,
                "source": row.source,
                "input": [{"role": m.role, "content": m.content} for m in row.prompt],
                "expected": row.expected,
                "output": answer.text,
                "scores": {name: asdict(found[i]) for name, found in scores.items()},
                "prompt_tokens": answer.prompt_tokens,
                "output_tokens": answer.output_tokens,
                "seconds": answer.seconds,
                "finish": answer.finish,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
