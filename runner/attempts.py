"""The attempts at a run, read back from its events: what each saved, how it ended, and when to stop trying again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.errors import EXIT_CODES, Exit, Problem, RunnerError

NO_PROGRESS = "run/no-progress"
TAIL_BYTES = 1 << 16
DEFAULT_LIMIT = 3  # of budget.max_idle_attempts, see the schema


@dataclass(frozen=True, kw_only=True)
class PastAttempt:
    """One attempt: the last stage it began, the newest training step it saved, how many answers it saved, and its exit
    code (None: it was killed, or is under way). `started` and `ended` are in seconds of the epoch; `machine` and
    `packages_sha256` say where it was."""

    stage: str = "start"
    stages: frozenset[str] = frozenset()
    step: int = 0
    num_answers: int = 0
    exit_code: int | None = None
    started: float | None = None
    ended: float | None = None
    machine: str | None = None
    packages_sha256: str | None = None

    def __str__(self) -> str:
        code = "killed" if self.exit_code is None else f"exit code {self.exit_code}"
        return f"{code} in stage '{self.stage}'"


def read_attempts(path: Path) -> list[PastAttempt]:
    """The attempts that events.jsonl tells of, the oldest first; lines that a kill tore, or others wrote, say
    nothing."""
    attempts: list[PastAttempt] = []
    for event in _events(path):
        name = event.get("event")
        if name == "attempt":
            machine, packages = event.get("machine"), event.get("packages_sha256")
            attempts.append(PastAttempt(started=event.get("time"), machine=machine, packages_sha256=packages))
        elif attempts and (change := _change(attempts[-1], name, event)):
            attempts[-1] = replace(attempts[-1], **change)
    return attempts


def is_under_way(path: Path) -> bool:
    """Whether the latest attempt that events.jsonl tells of has no end; only the end of the file is read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return False
    names = (event.get("event") for event in _parsed(reversed(lines)))
    return next((name == "attempt" for name in names if name in ("attempt", "end")), bool(lines))


def _events(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    return _parsed(lines)


def _parsed(lines: Iterable[bytes]) -> Iterable[Mapping[str, Any]]:
    """The events of lines that are whole."""
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            yield event


def _change(attempt: PastAttempt, name: object, event: Mapping[str, Any]) -> dict[str, Any]:
    if name == "stage":
        return {"stage": event["stage"], "stages": attempt.stages | {event["stage"]}}
    if name == "saved" and event.get("what") == "step":
        return {"step": max(attempt.step, int(event["amount"]))}
    if name == "saved":
        return {"num_answers": attempt.num_answers + int(event["amount"])}
    return {"exit_code": event.get("exit_code"), "ended": event.get("time")} if name == "end" else {}


def idle_streak(attempts: Sequence[PastAttempt]) -> list[PastAttempt]:
    """The latest attempts, in a row, that a scheduler would start again and that saved nothing new: no training step
    beyond those before, no answer, and no stage that none before had come to."""
    streak: list[PastAttempt] = []
    for i, attempt in enumerate(attempts):
        before = attempts[:i]
        gained = (
            attempt.num_answers > 0
            or attempt.step > max((earlier.step for earlier in before), default=0)
            or bool(before and attempt.stages - frozenset().union(*(earlier.stages for earlier in before)))
        )
        streak = [] if gained or not _is_retried(attempt) else [*streak, attempt]
    return streak


def _is_retried(attempt: PastAttempt) -> bool:
    return attempt.exit_code is None or EXIT_CODES[Exit(attempt.exit_code)].retry


def check_progress(attempts: Sequence[PastAttempt], limit: int | None) -> None:
    """Raises RunnerError (70) when so many attempts in a row saved nothing that one more would not either."""
    streak = idle_streak(attempts)
    if limit is None or len(streak) < limit:
        return
    ends = "; ".join(str(attempt) for attempt in streak[-limit:])
    raise RunnerError(
        Problem(
            code=NO_PROGRESS,
            what=f"{limit} attempts in a row saved no training step and no answer ({ends}), so it is not tried again.",
            fix="See what ended them: memory (137), too little time before the machine is taken, a disk or a service. "
            "Save more often (checkpoint.every_steps), or raise budget.max_idle_attempts. Started once more, the "
            "run goes on and counts anew.",
        ),
        Exit.BUG,
    )
