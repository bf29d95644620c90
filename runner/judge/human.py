"""Answers that people compared, and how far the judge agrees with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.conversation import ROLES, Message
from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import read_small
from runner.judge.verdict import Judgement, Pair
from runner.stats import cohens_kappa

MAX_BYTES = 64 << 20
KEY = "eval.judge.human"
PREFERRED = ("a", "b", "tie")
MAX_SHOWN = 20  # faults that are listed
SAID = {"win": "a", "loss": "b", "tie": "tie", "inconsistent": "inconsistent"}
EXAMPLE = '{"prompt": "...", "a": "...", "b": "...", "preferred": "a"}'


@dataclass(frozen=True, kw_only=True)
class HumanRow:
    """Two answers, `a` as the pair's first, and which of them a person preferred: a, b or tie."""

    pair: Pair
    preferred: str


def read_human(path: Path) -> list[HumanRow]:
    """The rows of a JSONL file of prompt (text, or turns of role and content), a, b, preferred, and a reference where
    there is one. Raises RunnerError: 66 when it cannot be read, 65 with every faulty line."""
    try:
        lines = read_small(path, MAX_BYTES).splitlines()
    except OSError as error:
        what = f"The file of human preferences cannot be read: {error.strerror}."
        problem = Problem(
            code="judge/human-missing", what=what, where=Where(path=str(path), key=KEY), fix=f"Correct {KEY}."
        )
        raise RunnerError(problem, Exit.INPUT_MISSING) from error
    rows: list[HumanRow] = []
    faults: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line, f"{path.name}:{number}"))
        except (ValueError, RecursionError) as error:
            faults.append(_fault(path, number, str(error)))
    if not rows and not faults:
        faults.append(_fault(path, None, "it has no rows"))
    if faults:
        raise RunnerError(faults[:MAX_SHOWN], Exit.DATA_REJECTED)
    return rows


def agreement(judgements: Sequence[Judgement], rows: Sequence[HumanRow]) -> tuple[int, int, float | None]:
    """Rows on which the judge says what the person said, rows that it scored, and Cohen's kappa over those (None:
    undefined). An inconsistent judgement agrees with nobody, not even with a tie."""
    both = [
        (SAID[j.outcome], row.preferred) for j, row in zip(judgements, rows, strict=True) if j.outcome != "unscored"
    ]
    num_agreed = sum(said == preferred for said, preferred in both)
    kappa = cohens_kappa([said for said, _ in both], [preferred for _, preferred in both]) if both else None
    return num_agreed, len(both), kappa


def _row(line: bytes, name: str) -> HumanRow:
    """Raises ValueError in words for people."""
    value = _decode(line)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    for column in ("a", "b"):
        if not isinstance(value.get(column), str):
            raise ValueError(f"'{column}' must be a text")
    if value.get("preferred") not in PREFERRED:
        raise ValueError("'preferred' must be a, b or tie")
    reference = value.get("reference")
    if reference is not None and not isinstance(reference, str):
        raise ValueError("'reference' must be a text")
    pair = Pair(id=name, prompt=_turns(value.get("prompt")), reference=reference, first=value["a"], second=value["b"])
    return HumanRow(pair=pair, preferred=value["preferred"])


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error


def _turns(prompt: Any) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    turns = prompt if isinstance(prompt, list) else []
    good = all(isinstance(t, dict) and t.get("role") in ROLES and isinstance(t.get("content"), str) for t in turns)
    if not turns or not good:
        raise ValueError("'prompt' must be a text, or turns with role and content")
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)


def _fault(path: Path, line: int | None, what: str) -> Problem:
    return Problem(
        code="judge/human-row",
        what=f"A row of human preferences cannot be used: {what}." if line else f"{path.name} cannot be used: {what}.",
        where=Where(path=str(path), line=line, key=KEY),
        fix=f"Write it like this: {EXAMPLE}",
    )
