"""Scores of one answer, as pure functions in one table. A score that cannot be taken is None with a reason."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from referencing.exceptions import Unresolvable


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer beside what was expected; `schema` is the JSON Schema of answers, `loss` the mean nats per token of
    the expected answer under the model."""

    output: str
    expected: str
    schema: Mapping[str, Any] | None = None
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value, or None and the reason why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A way to score; `unit` says how to read it."""

    score: Callable[[Answer], Score]
    higher_is_better: bool
    unit: str
    title: str


def exact_match(answer: Answer) -> Score:
    """1 when the answer equals the expected one, apart from white space at both ends."""
    return Score(value=float(answer.output.strip() == answer.expected.strip()))


def json_valid(answer: Answer) -> Score:
    """1 when the answer is JSON and satisfies the schema."""
    if answer.schema is None:
        return Score(value=None, reason="no eval.json_schema given")
    try:
        value = _parse(answer.output)
        return Score(value=float(_validator(json.dumps(answer.schema, sort_keys=True)).is_valid(value)))
    except Unresolvable as error:
        return Score(value=None, reason=f"eval.json_schema refers to '{error.ref}', which it does not hold")
    except (ValueError, RecursionError):
        return Score(value=0.0)


def field_f1(answer: Answer) -> Score:
    """F1 over (path, value) pairs of the JSON; an answer that is no JSON has none of them right."""
    try:
        wanted = Counter(_leaves(_parse(answer.expected)))
    except (ValueError, RecursionError):
        return Score(value=None, reason="the expected answer is not JSON")
    try:
        given = Counter(_leaves(_parse(answer.output)))
    except (ValueError, RecursionError):
        return Score(value=0.0)
    common = (wanted & given).total()
    return Score(value=2 * common / (wanted.total() + given.total()) if common else 0.0)


def chrf(answer: Answer) -> Score:
    """chrF++ of one sentence (sacrebleu), as a share of 1; blind to the language's word boundaries."""
    if not answer.expected.strip():
        return Score(value=None, reason="the expected answer is empty")
    return Score(value=_chrf().sentence_score(answer.output, [answer.expected]).score / 100)


def loss(answer: Answer) -> Score:
    """Mean negative log-likelihood of the expected answer, in nats per token."""
    if answer.loss is None:
        return Score(value=None, reason="this model gives no token probabilities")
    if not math.isfinite(answer.loss):
        return Score(value=None, reason="the loss is not a finite number")
    return Score(value=answer.loss)


METRICS: dict[str, Metric] = {
    "exact_match": Metric(score=exact_match, higher_is_better=True, unit="share", title="exact match"),
    "json_valid": Metric(score=json_valid, higher_is_better=True, unit="share", title="valid JSON"),
    "field_f1": Metric(score=field_f1, higher_is_better=True, unit="share", title="field F1"),
    "chrf": Metric(score=chrf, higher_is_better=True, unit="share", title="chrF++"),
    "loss": Metric(score=loss, higher_is_better=False, unit="nats", title="held-out loss"),
}


def _parse(text: str) -> Any:
    """The JSON value; raises ValueError also on NaN and Infinity, which Python takes for JSON."""
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _leaves(item, (*path, i))
    else:
        yield path, json.dumps(value, sort_keys=True)


@cache
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    return Draft202012Validator(json.loads(schema), registry=Registry())  # an empty one: nothing is fetched


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2)
