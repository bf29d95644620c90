"""`runner list`: the runs below some folders, as their directories tell them. Loads nothing heavy."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from runner.console import Console, flat, table
from runner.errors import Exit, Problem, Where
from runner.masking import masked_value
from runner.outcome import Outcome
from runner.ranking import shown
from runner.records import Record, find_runs, read_record, sort_records
from runner.stopping import Stop

HEAD = ("name", "run id", "status", "verdict", "metric", "base", "tuned", "difference (95 %)", "hours", "$", "began")
NAMED = 5  # folders without a run that are told by their names


def list_runs(args: argparse.Namespace, console: Console, stop: Stop) -> Outcome:
    """Shows every run below the folders, the oldest first, and each folder that cannot be read as a problem (66)."""
    records: dict[Path, Record] = {}
    others: dict[Path, None] = {}
    problems: list[Problem] = []
    for top in args.directories or [Path("runs")]:
        try:
            runs, without = find_runs(top)
        except OSError as error:
            problems.append(_unreadable(top, error))
            continue
        records |= {path.absolute(): read_record(path) for path in runs}
        others |= dict.fromkeys(without)
    show = _show_json if args.format == "json" else _show
    show(sort_records(list(records.values())), list(others), problems, console)
    return Outcome(exit_code=Exit.INPUT_MISSING if problems else Exit.DONE, problems=tuple(problems))


def _show_json(records: list[Record], others: list[Path], problems: list[Problem], console: Console) -> None:
    found = {
        "runs": [{**asdict(record), "path": str(record.path)} for record in records],
        "without_runs": list(map(str, others)),
        "problems": list(map(flat, problems)),
    }
    console.line(json.dumps(masked_value(found), ensure_ascii=False, indent=2))


def _show(records: list[Record], others: list[Path], problems: list[Problem], console: Console) -> None:
    console.problems(problems)
    if records:
        console.line(table([(*HEAD, "directory"), *map(_cells, records)], indent="", words=True))
    if records or not problems:
        console.line(f"{len(records)} run{'s' if len(records) != 1 else ''}")
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        console.line(f"no run of ours in: {', '.join(map(str, others[:NAMED]))}{more}")


def _cells(record: Record) -> tuple[str, ...]:
    score = record.score
    interval = ""
    if score and score.ci_low is not None and score.ci_high is not None:
        interval = f" ({score.ci_low:+.3f} to {score.ci_high:+.3f})"
    cells = (
        record.name or "-",
        record.run_id or "-",
        f"{record.status}: {record.note}" if record.note else record.status,
        record.verdict or "-",
        score.metric if score else "-",
        shown(score.base if score else None, ".3f"),
        shown(score.tuned if score else None, ".3f"),
        shown(score.difference if score else None, "+.3f") + interval,
        shown(record.hours, ".2f"),
        shown(record.usd, ".2f"),
        (record.started_at or "-")[:16].replace("T", " "),
        str(record.path),
    )
    return tuple(" ".join(cell.split()) for cell in cells)


def _unreadable(top: Path, error: OSError) -> Problem:
    return Problem(
        code="list/unreadable",
        what=f"The folder cannot be listed: {error.strerror}.",
        where=Where(path=str(top)),
        fix="Name folders that hold run directories; without one it is ./runs.",
    )
