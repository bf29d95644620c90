"""One attempt at a run: its identity, its directory, the lifecycle, and a report whatever happened."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import __version__
from runner.backends.base import Watch
from runner.errors import Exit, Interrupted, Problem, Refused, RunnerError
from runner.files import sha256_of
from runner.manifest import Manifest
from runner.pipeline import run_lifecycle
from runner.plan import model_reference, source_files, without_secrets
from runner.render import render_html
from runner.report import Facts, Status, make_report
from runner.rundir import RunDirectory
from runner.schema import read_schema
from runner.world import World

STATUSES: dict[type[RunnerError], Status] = {Refused: "refused", Interrupted: "interrupted"}
PATIENCE = ("max_parallel", "timeout_seconds", "processes")
# What changes no result; of the budget, the price of the machine does count, as the return rests on it.
VOLATILE = ("description", "checkpoint", "tracking", "budget")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How an attempt ended: its report, where it is, and the exit code. `repeated` when it was already done."""

    report: Mapping[str, Any]
    path: Path
    exit_code: Exit
    repeated: bool = False


def report_faults(error: RunnerError, out: Path, world: World) -> None:
    """Leaves a report of a manifest that could not be read in a run directory that holds nothing else."""
    run = RunDirectory(out)
    try:
        if run.is_vacant():
            _leave_report(run, Facts(problems=list(error.problems)), "failed", error.exit_code, world.now())
    finally:
        run.close()


def identify(manifest: Manifest) -> str:
    """The run id: a hash of what is asked for, of the files it names and of this version.

    Tracking, checkpoints and limits do not count, so changing them does not make another run.
    """
    values = manifest.values
    asked = {key: value for key, value in values.items() if key not in VOLATILE}
    asked = _without_patience(asked)
    asked["usd_per_hour"] = values.get("budget", {}).get("usd_per_hour")
    hashes = [_file_hash(path) for path in source_files(manifest)]
    hashes += _folder_signature(Path(model_reference(manifest)))
    text = json.dumps([asked, hashes, __version__], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _without_patience(value: Any) -> Any:
    """The values without how endpoints are waited for, and over how many processes work is spread, which changes no
    answer."""
    if isinstance(value, Mapping):
        return {key: _without_patience(item) for key, item in value.items() if key not in PATIENCE}
    return [_without_patience(item) for item in value] if isinstance(value, list) else value


def attempt(manifest: Manifest, out: Path | None, world: World, *, fresh: bool) -> Attempt:
    """Carries the manifest out in its run directory (default `runs/<name>-<run id>`) and leaves a report there.

    Raises RunnerError (73) only when there is no directory to leave a report in.
    """
    with world.watch.interruptible():
        facts = Facts(manifest=manifest, run_id=identify(manifest))
    run = RunDirectory(out or Path("runs") / f"{manifest.values['name']}-{facts.run_id}")
    try:
        assert facts.run_id is not None
        finished = run.claim(facts.run_id, fresh=fresh)
        if finished is not None:
            return Attempt(report=finished, path=run.path, exit_code=Exit(finished["exit_code"]), repeated=True)
        run.write_json("run.lock.json", _lock(manifest, facts.run_id))
        return _carry_out(manifest, world, run, facts)
    finally:
        run.close()


def _carry_out(manifest: Manifest, world: World, run: RunDirectory, facts: Facts) -> Attempt:
    started_at = world.now()
    status: Status
    try:
        run_lifecycle(manifest, world, run, facts)
        status, exit_code = "done", _exit_of_verdict(facts)
    except BaseException as error:
        failure = _as_ours(error, world.watch)
        status, exit_code = STATUSES.get(type(failure), "failed"), failure.exit_code
        if exit_code == Exit.INTERRUPTED:
            status = "interrupted"
        facts.problems.extend(failure.problems)
    _leave_report(run, facts, status, exit_code, started_at)  # first of all, should the tracker hang and we be killed
    facts.tracking = world.tracker.finish(facts, int(exit_code), world.watch)
    report = _leave_report(run, facts, status, exit_code, started_at)
    return Attempt(report=report, path=run.path, exit_code=exit_code)


def _as_ours(error: BaseException, watch: Watch) -> RunnerError:
    """What ended the lifecycle. After a request to stop it is that request, whatever a library made of it."""
    try:
        watch.check()
    except Interrupted as asked:
        return asked
    if isinstance(error, RunnerError):
        return error
    if isinstance(error, OSError):
        what = f"Reading or writing failed: {error.strerror or error}" + (
            f" ({error.filename})" if error.filename else ""
        )
        return RunnerError(Problem(code="run/io", what=what + ".", fix="Check the disk's space and health."), Exit.IO)
    if not isinstance(error, Exception):
        raise error
    return _unforeseen(error)


def _unforeseen(error: Exception) -> RunnerError:
    """Memory that ran out has a cure; everything else that no stage foresaw is a bug of ours."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        fix = "Lower hyperparameters.batch_size or max_length, or set approach.kind to qlora."
        problem = Problem(code="run/out-of-memory", what="The machine's memory is full.", fix=fix)
        return RunnerError(problem, Exit.MANIFEST)
    traceback.print_exception(error)
    what = f"A bug of ours: {type(error).__name__}: {error}"
    problem = Problem(code="run/bug", what=what, fix="Please report it, with the traceback above.")
    return RunnerError(problem, Exit.BUG)


def _leave_report(
    run: RunDirectory, facts: Facts, status: Status, exit_code: Exit, started_at: str
) -> Mapping[str, Any]:
    """Writes the page first and the JSON last: where there is a report.json, everything else is there too."""
    report = make_report(facts, status, exit_code, started_at)
    check_report(report)
    run.write_text("report.html", render_html(report))
    run.write_json("report.json", report)
    run.event("end", status=status, exit_code=int(exit_code))
    return report


def check_report(report: Mapping[str, Any]) -> None:
    """Holds our own report to its published schema; a violation is a bug of ours."""
    from jsonschema import Draft202012Validator

    Draft202012Validator(read_schema("report")).validate(report)


def _exit_of_verdict(facts: Facts) -> Exit:
    """0 when tuning helped, or when the policy only warns; 3 otherwise. Where tuning is for a shorter prompt or a
    smaller model, answers that are as good as before are what was wanted, but not of an adapter that does nothing."""
    assert facts.plan and facts.evaluation
    wanted = ("improved", "equivalent") if facts.plan.gate.task in ("cost", "latency") else ("improved",)
    helped = facts.evaluation.verdict in wanted and facts.evaluation.identical_share < 1
    return Exit.DONE if helped or facts.plan.gate.policy != "enforce" else Exit.SAID_NO


def _lock(manifest: Manifest, run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "runner_version": __version__,
        "manifest": str(manifest.path),
        "manifest_sha256": hashlib.sha256(manifest.document.text.encode()).hexdigest(),
        "overrides": without_secrets(list(manifest.overrides)),
        "python": platform.python_version(),
        "command": Path(sys.argv[0]).name,
    }


def _folder_signature(model: Path) -> list[str]:
    """A local model's files: small ones by content, weights by size and time, which are read in no time."""
    files = sorted(path for path in model.glob("*") if path.is_file()) if model.is_dir() else []
    signature = []
    for path in files:
        found = path.stat()
        large = found.st_size > 1_000_000
        signature.append(f"{path.name} {f'{found.st_size} {found.st_mtime_ns}' if large else _file_hash(path)}")
    return signature


def _file_hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return "unreadable"
