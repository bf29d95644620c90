"""The judge's reply -> two marks, or what is wrong with it in words that can be sent back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from runner.conversation import Completion

MAX_REASON = 1000  # characters that are kept of the judge's reason
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Marks of A and B, and why."""

    a: int
    b: int
    reason: str


def read_reply(completion: Completion, scale: int) -> Marks | str:
    """The marks, or the fault.

    The whole reply must be one JSON object, bare or in one code fence, after thoughts in <think> at most: JSON picked
    out of prose could be an answer's own, quoted.
    """
    text = _THOUGHT.sub("", completion.text, count=1).strip()
    fenced = _FENCED.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        if completion.finish == "length":
            return "the reply was cut off at its greatest length, so keep the reason short"
        return "the reply was no JSON" if text else "the reply was empty"
    if not isinstance(value, dict):
        return "the reply was no JSON object"
    marks = [_mark(value.get(name), scale) for name in ("a", "b")]
    for name, mark in zip(("a", "b"), marks, strict=True):
        if mark is None:
            return f'"{name}" was no whole number from 1 to {scale}' if name in value else f'"{name}" was missing'
    a, b = marks
    assert a is not None and b is not None
    reason = value.get("reason")
    return Marks(a=a, b=b, reason=reason[:MAX_REASON] if isinstance(reason, str) else "")


def _mark(value: Any, scale: int) -> int | None:
    """A whole number in the scale (5.0 is one to JSON Schema, true is not)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 1 <= value <= scale and value == int(value) else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is written twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
