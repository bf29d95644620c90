"""The end of a sweep on the terminal, and as an outcome: the points side by side, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.console import Console, table
from runner.errors import EXIT_CODES, Exit
from runner.log_lines import LogConsole
from runner.outcome import Outcome
from runner.ranking import table_rows
from runner.rundir import RECORD, read_object

SWEEP = "sweep.json"


def read_sweep(folder: Path) -> Mapping[str, Any] | None:
    """What a sweep left in its folder; None where the folder is no sweep's."""
    report = None if (folder / RECORD).exists() else read_object(folder / SWEEP)
    return report if report is not None and {"points", "best", "caution"} <= set(report) else None


def show_sweep(console: Console, report: Mapping[str, Any], folder: Path, again: str) -> Outcome:
    """Shows how the points compare, and what to type next."""
    exit_code = Exit(report["exit_code"])
    best = next((row for row in report["points"] if row["number"] == report["best"]["number"]), None)
    chosen = Path(best["directory"]) if best else None
    following = f"runner report {shlex.quote(str(chosen))}" if chosen else f"runner list {shlex.quote(str(folder))}"
    if EXIT_CODES[exit_code].retry:
        following = again
    elif report["status"] == "failed":
        following = f"mend what is named above, then: {again}"
    console.line()
    if isinstance(console, LogConsole):
        for row in report["points"]:
            console.point(row)
    else:
        console.line(table(table_rows(report["points"], report["best"]["number"])))
    console.line(report["text"])
    if sum(row["score"] is not None for row in report["points"]) > 1:
        console.line(report["caution"])
    if not isinstance(console, LogConsole):
        console.line(f"report  {folder / SWEEP}")
        console.line(f"look    {folder / 'sweep.html'}")
        console.line(f"next    {following}")
    facts = {"status": report["status"], "verdict": best and best["verdict"], "verdict_text": report["text"]}
    return Outcome(
        exit_code=exit_code,
        report={**facts, "problems": [_fault(row) for row in report["points"] if row["exit_code"] not in (None, 0, 3)]},
        path=folder,
        file=SWEEP,
        chosen=chosen,
        next_command=following,
    )


def _fault(row: Mapping[str, Any]) -> dict[str, Any]:
    """That a point did not come to its end."""
    why = row["verdict_text"] or EXIT_CODES[Exit(row["exit_code"])].meaning
    return {
        "code": "sweep/point-failed",
        "severity": "error",
        "what": f"Point {row['number']} ({row['label']}) ended with {row['exit_code']}: {why}",
        "fix": f"See it alone: --point {row['number']}",
        "where": {"path": row["directory"]},
    }
