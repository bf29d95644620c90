"""How a command ended, for machines: the last line of a log, and the message that Kubernetes keeps of a container."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.errors import EXIT_CODES, Exit, Problem
from runner.masking import masked_value, printable

MAX_BYTES = 4096  # of a container's termination message; Kubernetes cuts there
SHORTEST_TEXT = 40
RANKING = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The exit code and what led to it; the report, its directory, the URL of its mirror and its file there where there
    was a run. Of a sweep, `chosen` is the directory of its best run.

    `is_final`: a request to stop that came meanwhile does not change the code. `is_told`: processes that this one
    started have told how it ended.
    """

    exit_code: Exit
    problems: tuple[Problem, ...] = ()
    report: Mapping[str, Any] | None = None
    path: Path | None = None
    url: str | None = None
    file: str = "report.json"
    chosen: Path | None = None
    next_command: str | None = None
    is_final: bool = False
    is_told: bool = False


def describe(outcome: Outcome, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The outcome as plain data whose JSON fits into `max_bytes` of UTF-8: the least grave problems go first, then the
    ends of the longest texts."""
    meaning, report = EXIT_CODES[outcome.exit_code], outcome.report or {}
    problems = sorted(_problems(outcome), key=lambda problem: RANKING.index(problem["severity"]))
    facts: dict[str, Any] = {
        "exit_code": int(outcome.exit_code),
        "meaning": meaning.meaning,
        "retry": meaning.retry,
        **{key: report.get(key) for key in ("run_id", "status", "verdict", "verdict_text")},
        "report": str(outcome.path / outcome.file) if outcome.path else None,
        "mirror": outcome.url,
        "next": outcome.next_command,
        "problems": problems,
        "num_problems": len(problems),
    }
    while len(as_line(facts).encode()) > max_bytes and len(problems) > 1:
        problems.pop()
    while len(as_line(facts).encode()) > max_bytes and _cut_longest([facts, *problems]):
        pass
    return facts


def as_line(facts: Mapping[str, Any]) -> str:
    """The facts, masked, as one line of JSON that UTF-8 can write, half characters as escapes."""
    text = printable(json.dumps(masked_value(facts), ensure_ascii=False, default=str))
    return text.encode("utf-8", errors="backslashreplace").decode()


def leave_message(outcome: Outcome, path: Path) -> None:
    """Writes the outcome into a termination message file, where the cluster made one."""
    with contextlib.suppress(OSError):
        if path.is_file():
            path.write_text(as_line(describe(outcome)), encoding="utf-8")


def _problems(outcome: Outcome) -> list[dict[str, Any]]:
    """The problems but for notes, each with its place, as flat data."""
    found = [*(outcome.report or {}).get("problems", ()), *(asdict(problem) for problem in outcome.problems)]
    return [
        {
            **{key: problem[key] for key in ("code", "severity", "what", "fix")},
            **{key: value for key, value in problem["where"].items() if value is not None},
        }
        for problem in found
        if problem["severity"] != "note"
    ]


def _cut_longest(holders: list[dict[str, Any]]) -> bool:
    """Halves the longest text; False when none is long enough."""
    texts = ((len(value), holder, key) for holder in holders for key, value in holder.items() if isinstance(value, str))
    length, holder, key = max(texts, key=lambda found: found[0], default=(0, {}, ""))
    if length <= SHORTEST_TEXT:
        return False
    holder[key] = holder[key][: length // 2] + "…"
    return True
