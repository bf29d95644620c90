"""Sides made of answers that a test wrote down, scored as in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runner.backends.base import Reply
from runner.conversation import Completion, Example
from runner.metrics import METRICS, Metric
from runner.scoring import Outside, Scored, Scoring, score
from tests.fakes import question


def scoring_of(*names: str, **metrics: Metric) -> Scoring:
    """What to score with: metrics of ours by name, the first being the primary one, then others."""
    known = {**{name: METRICS[name] for name in names}, **metrics}
    return Scoring(metrics=known, schema=None, pattern=None, seed=7, resamples=1000)


def rows_of(expected: Sequence[str], groups: Sequence[str | None] | None = None, **changes: Any) -> list[Example]:
    """Different questions with these answers."""
    named = groups or [None] * len(expected)
    return [
        replace(question(f"question {i}", text, source=f"rows.jsonl:{i + 1}"), group=group, **changes)
        for i, (text, group) in enumerate(zip(expected, named, strict=True))
    ]


def reply(text: str | None, **changes: Any) -> Reply:
    """An answer, or the refusal of one."""
    if text is None:
        return Reply(completion=None, reason="the server said 400")
    usual: dict[str, Any] = {"prompt_tokens": 4, "output_tokens": 2, "seconds": 0.5, "finish": "stop"}
    return Reply(completion=Completion(text=text, **{**usual, **changes}))


def side(
    scoring: Scoring,
    rows: Sequence[Example],
    outputs: Sequence[str | None],
    losses: Sequence[float | None] | None = None,
) -> Scored:
    """One side's answers to the rows."""
    return score(scoring, rows, [reply(text) for text in outputs], Outside(losses=losses))
