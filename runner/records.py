"""A run as its directory tells it, finished or not, whole or torn; what `runner list` and a sweep's end show of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.attempts import is_under_way
from runner.rundir import EVENTS, RECORD, REPORT, is_held, read_object

DEEPEST = 4  # folders below the one that is listed


@dataclass(frozen=True, kw_only=True)
class Score:
    """The tuned model by the primary metric on the test rows, its own interval, and the difference to the base."""

    metric: str
    tuned: float | None
    low: float | None
    high: float | None
    base: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a run. `status` is its report's, or running (somebody holds the directory), killed (it was
    under way, and nobody does) or torn (`note` says which file cannot be read)."""

    path: Path
    status: str
    note: str = ""
    name: str | None = None
    run_id: str | None = None
    exit_code: int | None = None
    verdict: str | None = None
    verdict_text: str | None = None
    score: Score | None = None
    dev_loss: float | None = None
    hours: float | None = None
    usd: float | None = None
    started_at: str | None = None
    model: str | None = None


def find_runs(top: Path) -> tuple[list[Path], list[Path]]:
    """The run directories in and below a folder, and the folders directly below it that hold none. Raises OSError."""
    if _is_run(top):
        return [top], []
    runs: list[Path] = []
    others: list[Path] = []
    for folder in _folders(top):
        found = list(_runs_in(folder, DEEPEST - 1))
        runs += found
        others += [] if found else [folder]
    return runs, others


def _runs_in(folder: Path, depth: int) -> Iterator[Path]:
    """The run directories from here on; what cannot be looked into holds none."""
    try:
        if _is_run(folder):
            yield folder
        elif depth:
            for child in _folders(folder):
                yield from _runs_in(child, depth - 1)
    except OSError:
        return


def _folders(top: Path) -> list[Path]:
    with os.scandir(top) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return [top / name for name in sorted(names)]


def _is_run(folder: Path) -> bool:
    """Whether a run of ours began here, or a faulty manifest left its report."""
    if os.path.lexists(folder / RECORD):
        return True
    report = read_object(folder / REPORT) if (folder / EVENTS).is_file() else None
    return report is not None and "schema_version" in report


def read_record(path: Path) -> Record:
    """What a run directory tells; never raises, whatever stands in it. Opens nothing for writing."""
    lock, report = read_object(path / RECORD), read_object(path / REPORT)
    name, _, run_id = path.name.rpartition("-")
    if lock is None and os.path.lexists(path / RECORD):
        return Record(path=path, status="torn", note=f"{RECORD} cannot be read", name=name or None, run_id=run_id)
    run_id = _text(lock, "run_id") or _text(report, "run_id") or run_id
    if is_held(path):
        status, note = "running", ""
    elif report is None and os.path.lexists(path / REPORT):
        status, note = "torn", f"{REPORT} cannot be read"
    elif report is None or (lock and report.get("run_id") != run_id) or is_under_way(path / EVENTS):
        status, note = "killed", ""
    else:
        status, note = _text(report, "status") or "torn", ""
    return _of_report(path, report or {}, status, note, run_id, _text(lock, "manifest", "path"))


def _of_report(
    path: Path, report: Mapping[str, Any], status: str, note: str, run_id: str, manifest: str | None
) -> Record:
    code = _number(report, "exit_code")
    revision = _text(report, "model", "revision")
    model = _text(report, "model", "name")
    return Record(
        path=path,
        status=status,
        note=note,
        name=_text(report, "name") or path.name.rpartition("-")[0] or manifest,
        run_id=run_id,
        exit_code=None if code is None else int(code),
        verdict=_text(report, "verdict"),
        verdict_text=_text(report, "verdict_text"),
        score=_score(report),
        dev_loss=_number(report, "training", "dev_loss"),
        hours=_number(report, "cost", "actual", "hours"),
        usd=_number(report, "cost", "actual", "usd"),
        started_at=_text(report, "started_at") or _first_seen(path),
        model=f"{model}@{revision}" if model and revision else model,
    )


def _score(report: Mapping[str, Any]) -> Score | None:
    """The first comparison with the base, which is by the primary metric."""
    comparisons = _at(report, "evaluation", "comparisons")
    for found in comparisons if isinstance(comparisons, list) else ():
        if isinstance(found, Mapping) and found.get("against") == "base" and (metric := _text(found, "metric")):
            side = _at(report, "evaluation", "sides", "tuned", "scores", metric)
            return Score(
                metric=metric,
                tuned=_number(found, "tuned"),
                low=_number(side, "low"),
                high=_number(side, "high"),
                base=_number(found, "untuned"),
                difference=_number(found, "difference"),
                ci_low=_number(found, "ci_low"),
                ci_high=_number(found, "ci_high"),
            )
    return None


def _first_seen(path: Path) -> str | None:
    """When a run without a report began."""
    try:
        seconds = (path / RECORD).stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _at(value: Any, *path: str) -> Any:
    """What stands at a path of keys; None where it leads nowhere."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: Any, *path: str) -> str | None:
    found = _at(value, *path)
    return found if isinstance(found, str) else None


def _number(value: Any, *path: str) -> float | None:
    found = _at(value, *path)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def sort_records(records: Sequence[Record]) -> list[Record]:
    """The oldest first, so that the newest stand nearest to the prompt."""
    return sorted(records, key=lambda record: (record.started_at or "", str(record.path)))
