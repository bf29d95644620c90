"""`runner run` of a manifest with a sweep: its points one after another, each in a process and a directory of its own.

A process for each, so that what one leaves behind (a broken GPU context, memory, threads) is never the next one's.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from runner.backends import is_one_of_many
from runner.cli.opening import cache_folder
from runner.cli.sweep_end import SWEEP, read_sweep, show_sweep
from runner.console import Console
from runner.credentials import keys_named_in, take_files
from runner.errors import EXIT_CODES, Exit, Problem, RunnerError, Where
from runner.identity import hashing
from runner.machine.threads import settled, unsettled
from runner.manifest import Manifest
from runner.outcome import Outcome
from runner.packages import require_training
from runner.platforms import VARIABLES
from runner.progress import LiveWatch
from runner.pushing import is_owed
from runner.ranking import Result, report_sweep
from runner.records import read_record
from runner.rundir import RECORD, REPORT, RunDirectory, finished_report
from runner.stopping import Stop, die_with_parent
from runner.sweep import VARIABLE, Point, point_directory, point_manifests, points

LOOK_SECONDS = 0.05


def run_sweep(args: argparse.Namespace, manifest: Manifest, folder: Path, console: Console, stop: Stop) -> Outcome:
    """Runs the points that are not done, and shows all of them side by side.

    A fault of one point does not stop the others; a request to stop does, and so does what a retry may cure, since it
    would meet the others too. Raises RunnerError (64, 66, 73).
    """
    if is_one_of_many(os.environ):
        raise RunnerError(_for_one_process(), Exit.USAGE)
    with LiveWatch(console, stop).interruptible():
        require_training()
        named = (keys_named_in(own.values).values() for own in point_manifests(manifest))
        take_files(os.environ, itertools.chain.from_iterable(named))  # a pipe, which is read once, serves all points
        found = points(manifest, hashing(cache_folder()))
    if not args.fresh and (known := _known(manifest, found, folder)) is not None:
        return show_sweep(console, known, folder, _again(args))
    with closing(_open(folder)) as run:
        results: list[Result] = []
        stopped: Exit | None = None
        for point in found:
            stopped = Exit.INTERRUPTED if stop() else stopped
            code, goes_on = _settle(args, point, len(found), folder, console, stop, is_stopped=stopped is not None)
            stopped = stopped if goes_on else code
            results.append(_result(point, folder, code))
        from runner.render import render_sweep  # a tenth of a second, which a sweep that is done does not need

        report = report_sweep(manifest, results, Exit.INTERRUPTED if stop() else stopped)
        run.write_text("sweep.html", render_sweep(report))
        run.write_json(SWEEP, report)
    return show_sweep(console, report, folder, _again(args))


def _known(manifest: Manifest, found: Sequence[Point], folder: Path) -> Mapping[str, Any] | None:
    """The report of the sweep where all of its points are done and it says so; nothing is opened for writing."""
    results = []
    for point in found:
        report = _done(point, folder)
        if report is None:
            return None
        results.append(_result(point, folder, Exit(report["exit_code"])))
    known = report_sweep(manifest, results, None)
    return known if read_sweep(folder) == known else None


def _done(point: Point, folder: Path) -> Mapping[str, Any] | None:
    """The report of a point that is done, its weights sent away where they are to be."""
    report = finished_report(point_directory(folder, point), point.run_id)
    return None if report is None or is_owed(report, point.manifest.values) else report


def _open(folder: Path) -> RunDirectory:
    """The sweep's folder, locked; raises RunnerError (73) where it is the directory of a run."""
    run = RunDirectory(folder)
    if (folder / RECORD).exists():
        run.close()
        problem = Problem(
            code="sweep/run-directory",
            what="This is the directory of a run; a sweep has a folder in which each point gets its own.",
            where=Where(path=str(folder)),
            fix="Give another --out.",
        )
        raise RunnerError(problem, Exit.RUN_DIRECTORY)
    for name in (REPORT, "report.html"):  # of a manifest that was faulty
        (folder / name).unlink(missing_ok=True)
    return run


def _settle(
    args: argparse.Namespace,
    point: Point,
    num_points: int,
    folder: Path,
    console: Console,
    stop: Stop,
    *,
    is_stopped: bool,
) -> tuple[Exit | None, bool]:
    """The exit code of a point, None where it is left for the next time, and whether the others may go on."""
    head = f"== point {point.number} ({point.number + 1} of {num_points}): {point.label}"
    done = None if args.fresh else _done(point, folder)
    if done is not None:
        console.line(console.paint(f"{head}: already done", "bold"))
        return Exit(done["exit_code"]), True
    if is_stopped:
        return None, True
    console.line(console.paint(head, "bold"))
    code = _run(args, point, folder, stop)
    if code in list(Exit):
        return Exit(code), not EXIT_CODES[Exit(code)].retry
    console.line(f"   point {point.number} was ended by {f'signal {-code}' if code < 0 else f'exit code {code}'}")
    return Exit.INTERRUPTED, True  # by the system, mostly for want of memory, which another may have enough of


def _run(args: argparse.Namespace, point: Point, folder: Path, stop: Stop) -> int:
    """The exit code of the process that runs a point; a request to stop is passed on to it once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *args.arguments],
        env=_environment(point, folder),
        start_new_session=True,  # a Ctrl-C comes to us alone
        preexec_fn=die_with_parent,
    )
    is_told = False
    while (code := process.poll()) is None:
        if stop() and not is_told:
            process.send_signal(signal.SIGTERM)
            is_told = True
        time.sleep(LOOK_SECONDS)
    return code


def _environment(point: Point, folder: Path) -> dict[str, str]:
    """Ours, with which point and where, and without what belongs to the sweep as a whole: the service's folders and the
    last message. So the command that a point tells to type next is the sweep's own."""
    kept = {name: value for name, value in unsettled(os.environ, settled()).items() if name not in VARIABLES}
    return {**kept, VARIABLE: str(point.number), "RUNNER_OUT": str(folder), "RUNNER_TERMINATION_LOG": os.devnull}


def _result(point: Point, folder: Path, code: Exit | None) -> Result:
    """What became of a point; one that another runner was at may be done by now."""
    path = point_directory(folder, point)
    record = read_record(path) if (path / RECORD).exists() else None
    if code == Exit.RUN_DIRECTORY and record and record.status == "done" and record.exit_code is not None:
        code = Exit(record.exit_code)
    return Result(point=point, record=record, exit_code=code)


def _again(args: argparse.Namespace) -> str:
    """The same command, which is to go on: without --fresh, which would begin anew."""
    return shlex.join(word for word in shlex.split(args.again) if word != "--fresh")


def _for_one_process() -> Problem:
    return Problem(
        code="sweep/several-processes",
        what="Several processes were started together, and a sweep runs its points one after another.",
        fix="Give them one point: --point N, or RUNNER_POINT.",
    )
