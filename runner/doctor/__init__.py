"""`runner doctor`: whether this machine can carry out a run, before anything is spent. Nothing heavy is loaded, and
nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from runner.console import Console, table
from runner.doctor.checks import Check, Patient
from runner.doctor.computer import look_at_computer
from runner.doctor.reach import look_outside
from runner.doctor.software import look_at_software
from runner.doctor.storage import look_at_storage
from runner.errors import Exit

# Of several codes the one that no retry would change comes first, so that a scheduler does not try again in vain.
RANKING = (
    Exit.MANIFEST,
    Exit.USAGE,
    Exit.INPUT_MISSING,
    Exit.CREDENTIALS,
    Exit.RUN_DIRECTORY,
    Exit.IO,
    Exit.UNAVAILABLE,
)
COLOURS = {"ok": "good", "warning": "warning", "fail": "error", "unknown": "warning"}


def examine(patient: Patient) -> Iterator[Check]:
    """Every check, one after the other."""
    yield from look_at_computer(patient)
    yield from look_at_software(patient)
    yield from look_at_storage(patient)
    yield from look_outside(patient)


def exit_of(checks: Iterable[Check]) -> Exit:
    """0 where all is ok or a warning; otherwise what a run would end with, as RANKING has it."""
    codes = {check.exit_code for check in checks} - {Exit.DONE}
    return min(codes, key=RANKING.index, default=Exit.DONE)


def show(checks: Sequence[Check], console: Console, form: str) -> None:
    """Prints the checks as a table for people, or as JSON for programs."""
    if form == "json":
        plain = [{**asdict(check), "exit_code": int(check.exit_code)} for check in checks]
        console.line(json.dumps({"exit_code": int(exit_of(checks)), "checks": plain}, ensure_ascii=False, indent=2))
        return
    for line, check in zip(
        table([(c.status, c.name, c.what) for c in checks], words=True).splitlines(), checks, strict=True
    ):
        console.line(console.paint(line, COLOURS[check.status]))
    for check in checks:
        if check.fix and check.status != "ok":
            console.line(f"  fix: {check.name}: {check.fix}")
    counts = {status: sum(check.status == status for check in checks) for status in COLOURS}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    console.line(f"{len(checks)} checks: {told}; a run would {_would(exit_of(checks))}")


def _would(code: Exit) -> str:
    return "go ahead" if code == Exit.DONE else f"end with {int(code)}"
