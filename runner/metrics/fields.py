"""Answers that are JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from referencing.exceptions import Unresolvable

from runner.metrics.base import Answer, Score, share, unscored


def json_valid(answer: Answer) -> Score:
    """1 when the answer is JSON and satisfies the schema."""
    if answer.schema is None:
        return unscored("no eval.json_schema given")
    try:
        value = _parse(answer.output)
        return share(_validator(json.dumps(answer.schema, sort_keys=True)).is_valid(value))
    except Unresolvable as error:
        return unscored(f"eval.json_schema refers to '{error.ref}', which it does not hold")
    except (ValueError, RecursionError):
        return share(0)


def field_f1(answer: Answer) -> Score:
    """F1 over (path, value) pairs of the JSON; an answer that is no JSON has none of them right."""
    try:
        wanted = Counter(_leaves(_parse(answer.expected)))
    except (ValueError, RecursionError):
        return unscored("the expected answer is not JSON")
    try:
        given = Counter(_leaves(_parse(answer.output)))
    except (ValueError, RecursionError):
        return share(0)
    common = (wanted & given).total()
    return share(2 * common / (wanted.total() + given.total()) if common else 0)


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
