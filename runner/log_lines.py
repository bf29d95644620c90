"""A run's log for machines: one JSON object a line, for whoever collects what containers print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from runner.console import Console, ProgressAt, flat
from runner.errors import Exit, Problem
from runner.outcome import as_line

SCORES = ("metric", "against", "untuned", "tuned", "difference", "ci_low", "ci_high", "p_value", "verdict")
MAX_LINE_BYTES = 15_000  # container engines split lines at 16 KiB


class LogConsole(Console):
    """Every line has `time` (UTC), `level`, `event` and `message`; what else it has depends on the event."""

    def __init__(self, out: TextIO | None = None):
        super().__init__(out, {"TERM": "dumb"})

    def line(self, text: str = "") -> None:
        """A message; an empty line says nothing."""
        if text.strip():
            self.event("message", text.strip())

    def say(self, text: str) -> None:
        """A message about the work of a stage."""
        self.line(text)

    def stage(self, name: str) -> None:
        """A stage of the lifecycle begins."""
        self.event("stage", f"stage {name}", stage=name)

    def moved(self, at: ProgressAt) -> None:
        """How far a piece of work is, `seconds` after it began."""
        facts: dict[str, Any] = {**at.facts, "done": at.done, "total": at.total, "seconds": round(at.seconds, 1)}
        self.event("progress", f"{at.label} {at.done}/{at.total}", label=at.label, **facts)

    def problems(self, problems: Iterable[Problem], form: str = "text") -> None:
        """A line each, whatever the form."""
        for problem in problems:
            level = "info" if problem.severity == "note" else problem.severity
            shown = ("what", "severity")  # as message and level
            facts = {k: v for k, v in flat(problem).items() if k not in shown and v is not None}
            self.event("problem", problem.what, level=level, **facts)

    def verdict(self, report: Mapping[str, Any]) -> None:
        """What a run found: the verdict and every comparison of the tuned side."""
        comparisons = report["evaluation"]["comparisons"] if report["evaluation"] else []
        scores = [{key: found[key] for key in SCORES} for found in comparisons]
        self.event("verdict", report["verdict_text"], verdict=report["verdict"], comparisons=scores)

    def point(self, row: Mapping[str, Any]) -> None:
        """What became of a point of a sweep."""
        self.event("point", f"point {row['number']} {row['label']}: {row['status']}", **row)

    def end(self, facts: Mapping[str, Any]) -> None:
        """The last line: how the command ended, see `outcome.describe`."""
        level = "info" if facts["exit_code"] in (Exit.DONE, Exit.SAID_NO) else "error"
        self.event("end", f"exit code {facts['exit_code']}: {facts['meaning']}", level=level, **facts)

    def event(self, name: str, message: str, *, level: str = "info", **facts: Any) -> None:
        """Prints one line; what does not fit into one is cut, the facts before the message."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = {"time": now, "level": level, "event": name}
        for values in ({**head, "message": message, **facts}, {**head, "message": message[:2000], "cut": True}):
            line = as_line(values)
            if len(line.encode()) <= MAX_LINE_BYTES:
                print(line, file=self.out, flush=True)
                return
