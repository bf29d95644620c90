"""Answers of one side or arm -> scores, figures and evidence. The gate and the evaluation score with the same code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from runner.answer_schema import read_answer_schema
from runner.backends.base import Reply
from runner.conversation import Completion, Example, Message
from runner.data.prepare import Dataset
from runner.errors import Exit, Problem, RunnerError, Where
from runner.metrics import METRICS, Answer, Metric, Score, find_classes, load_metric
from runner.plan import Plan
from runner.stats import Interval, mean_interval, pooled_interval

Prompt = tuple[Message, ...]
MAX_OWN = 10_000  # training rows that classes are looked for in


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What answers are scored with: the metrics in the manifest's order, the first being the primary one.

    `classes` are those of all expected answers, normalised (None: as the rows that are scored show them).
    """

    metrics: Mapping[str, Metric]
    schema: Mapping[str, Any] | None
    pattern: str | None
    seed: int
    resamples: int
    classes: frozenset[str] | None = None

    @property
    def primary(self) -> str:
        """The metric that decides the verdict."""
        return next(iter(self.metrics))

    def needs(self, fact: str) -> bool:
        """Whether some metric depends on a fact from outside the answer: loss, similarity or judge."""
        return any(metric.needs == fact for metric in self.metrics.values())


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What some metrics need beyond the answer, row by row; None where nobody computed it."""

    losses: Sequence[float | None] | None = None
    similarities: Sequence[float | None] | None = None
    marks: Sequence[float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One side's answers to some rows, what it was asked for each, and each row's score of each metric."""

    rows: Sequence[Example]
    prompts: Sequence[Prompt]
    replies: Sequence[Reply]
    items: Sequence[Answer]
    scores: Mapping[str, Sequence[Score]]

    @property
    def texts(self) -> list[str | None]:
        """What was answered; None where there is no answer."""
        return [reply.completion.text if reply.completion else None for reply in self.replies]


@dataclass(frozen=True, kw_only=True)
class SideResult:
    """One side over its rows: intervals of each metric, and what its answers cost; None is unknown."""

    num_rows: int
    num_unanswered: int
    scores: Mapping[str, Interval | None]
    unscored: Mapping[str, int]
    prompt_tokens: float | None
    output_tokens: float | None
    seconds_per_answer: float | None
    stopped_share: float | None


def read_scoring(plan: Plan) -> Scoring:
    """Loads what scores are made with; raises RunnerError (66 a file is missing, 78 it is faulty)."""
    metrics = {
        name: load_metric(plan.eval.custom[name]) if name in plan.eval.custom else METRICS[name]
        for name in plan.eval.metrics
    }
    return Scoring(
        metrics=metrics,
        schema=read_answer_schema(plan.eval),
        pattern=plan.eval.pattern,
        seed=plan.seed,
        resamples=plan.eval.resamples,
    )


def with_classes(scoring: Scoring, dataset: Dataset) -> Scoring:
    """The same with the classes of the whole data: a small part of it may not show that its answers are classes."""
    own = (row for _, row in zip(range(MAX_OWN), dataset.own, strict=False))
    return replace(scoring, classes=find_classes([row.expected for row in (*own, *dataset.dev, *dataset.test)]))


def check_metrics(scoring: Scoring, dataset: Dataset) -> list[Problem]:
    """Scores the expected answers against themselves before anything is spent. A metric that can score none of them
    is a warning; raises RunnerError (78) when it is the primary one."""
    replies = [Reply(completion=_perfect(row)) for row in dataset.test]
    known = [1.0] * len(replies)
    scored = score(
        scoring, dataset.test, replies, Outside(losses=[0.0] * len(replies), similarities=known, marks=known)
    )
    faulty = [
        (name, unscored_problem(name, scores))
        for name, scores in scored.scores.items()
        if all(one.value is None for one in scores)
    ]
    if any(name == scoring.primary for name, _ in faulty):
        raise RunnerError([replace(problem, severity="error") for _, problem in faulty], Exit.MANIFEST)
    return [problem for _, problem in faulty]


def score(
    scoring: Scoring,
    rows: Sequence[Example],
    replies: Sequence[Reply],
    outside: Outside | None = None,
    prompts: Sequence[Prompt] | None = None,
) -> Scored:
    """Scores each row; a row without an answer has no score of anything, with the reason. `prompts` are what was asked
    for each row, unless that is the row's own."""
    classes = scoring.classes or find_classes([row.expected for row in rows])
    given = outside or Outside()
    items = []
    for i, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        item = Answer(
            output=reply.completion.text if reply.completion else "",
            expected=row.expected,
            prompt=row.prompt[-1].text if row.prompt else "",
            schema=scoring.schema,
            pattern=scoring.pattern,
            classes=classes,
            loss=_at(given.losses, i),
            finish=reply.completion.finish if reply.completion else None,
            similarity=_at(given.similarities, i),
            judged=_at(given.marks, i),
            unjudged="no judge was asked",
        )
        items.append(item)
    scores = {
        name: [
            metric.score(item) if reply.completion else Score(value=None, reason=f"no answer: {reply.reason}")
            for item, reply in zip(items, replies, strict=True)
        ]
        for name, metric in scoring.metrics.items()
    }
    asked = [row.prompt for row in rows] if prompts is None else prompts
    return Scored(rows=rows, prompts=asked, replies=replies, items=items, scores=scores)


def summarise(scoring: Scoring, scored: Scored) -> SideResult:
    """One side's means with their intervals."""
    given = [reply.completion for reply in scored.replies if reply.completion]
    return SideResult(
        num_rows=len(scored.rows),
        num_unanswered=len(scored.rows) - len(given),
        scores={name: interval_of(scoring, scored, name) for name in scoring.metrics},
        unscored={name: sum(one.value is None for one in found) for name, found in scored.scores.items()},
        prompt_tokens=_mean([answer.prompt_tokens for answer in given]),
        output_tokens=_mean([answer.output_tokens for answer in given]),
        seconds_per_answer=_mean([answer.seconds for answer in given]),
        stopped_share=_mean([float(answer.finish == "stop") for answer in given]),
    )


def interval_of(scoring: Scoring, scored: Scored, name: str) -> Interval | None:
    """The mean of a metric over the rows that have a score, clustered by group; None when none has one."""
    metric = scoring.metrics[name]
    known = [i for i, one in enumerate(scored.scores[name]) if one.value is not None]
    if not known:
        return None
    groups = [scored.rows[i].group for i in known]
    if metric.pool:
        pool = metric.pool([scored.items[i] for i in known])
        return pooled_interval(
            pool.rows,
            pool.statistic,
            groups=groups,
            bounds=metric.bounds,
            seed=scoring.seed,
            resamples=scoring.resamples,
        )
    values = [value for i in known if (value := scored.scores[name][i].value) is not None]
    return mean_interval(values, groups=groups, bounds=metric.bounds, seed=scoring.seed, resamples=scoring.resamples)


def mean_of(scoring: Scoring, scored: Scored, name: str, among: Sequence[int] | None = None) -> float | None:
    """A metric over the rows (those `among` them) that have a score, the same in whatever order; None without any."""
    metric, scores = scoring.metrics[name], scored.scores[name]
    places = range(len(scores)) if among is None else among
    known = [(value, scored.items[i]) for i in places if (value := scores[i].value) is not None]
    if not known:
        return None
    if metric.pool is None:
        return fmean(value for value, _ in known)
    pool = metric.pool([item for _, item in known])
    return float(pool.statistic(np.array([math.fsum(column) for column in pool.rows.T])))


def keep(path: Path, scored: Scored) -> None:
    """Writes every row's input as it was asked, output, expected answer, scores, tokens and latency, one JSON line
    each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for i, (row, reply) in enumerate(zip(scored.rows, scored.replies, strict=True)):
            answer = reply.completion
            record = {
                "id": row.id,
                "source": row.source,
                "group": row.group,
                "label": row.label,
                "input": [{"role": m.role, "content": m.content, **m.extras} for m in scored.prompts[i]],
                "tools": row.tools,
                "expected": row.expected,
                "output": answer.text if answer else None,
                "no_answer": reply.reason,
                "scores": {name: asdict(found[i]) for name, found in scored.scores.items()},
                "prompt_tokens": answer.prompt_tokens if answer else None,
                "output_tokens": answer.output_tokens if answer else None,
                "seconds": answer.seconds if answer else None,
                "finish": answer.finish if answer else None,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def unscored_problem(name: str, scores: Sequence[Score]) -> Problem:
    """What to say of a metric that could score no row."""
    reason = next((one.reason for one in scores if one.reason), "no rows")
    return Problem(
        code="eval/unscored",
        what=f"No row has a score of '{name}': {reason}.",
        where=Where(key="eval.metrics"),
        fix="Mend the function." if reason.startswith("raised") else "Choose a metric that fits the answers.",
        severity="warning",
    )


def _perfect(row: Example) -> Completion:
    return Completion(text=row.expected, prompt_tokens=0, output_tokens=0, seconds=0.0, finish="stop")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _at(values: Sequence[Any] | None, i: int) -> Any:
    return values[i] if values is not None else None
