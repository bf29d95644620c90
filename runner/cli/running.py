"""`runner run`: which run it is, where, whether it is done, and the attempt at it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.attempts import NO_PROGRESS
from runner.backends import load, node, num_on_this_machine, place
from runner.cli.holding import Held, hold
from runner.cli.mirrored import already_mirrored, carry_out_mirrored, check_one_machine, send_sweep, with_mirror
from runner.cli.node import run_node
from runner.cli.opening import cache_folder, make_world
from runner.cli.sweeping import run_sweep
from runner.console import Console
from runner.credentials import keys_named_in, take_files
from runner.destination import find_destination
from runner.errors import Exit, RunnerError
from runner.identity import hashing, identify, repeat_directory, run_directory
from runner.log_lines import LogConsole
from runner.outcome import Outcome
from runner.packages import require_training
from runner.platforms import Platform, find_platform, hand_over, leave_failure
from runner.progress import LiveWatch
from runner.pushing import check_apart, destination, is_owed
from runner.rundir import RunDirectory, finished_report
from runner.stopping import Stop
from runner.streams import LastingStream
from runner.summary import next_command, summarize
from runner.sweep import chosen_point, point_directory, point_manifests, sweep_directory

if TYPE_CHECKING:
    from runner.attempt import Attempt


def run(args: argparse.Namespace, console: Console, stop: Stop) -> Outcome:
    """The whole lifecycle, in its directory, and what the service that runs us gets of it."""
    if (here := node(os.environ)) is not None:
        return Outcome(exit_code=run_node(here, args.arguments, os.environ, stop), is_told=True)
    if isinstance(sys.stdout, LastingStream):
        sys.stdout.lasts_always = True  # a log that cannot be written is no reason to stop
    with contextlib.redirect_stdout(sys.stderr) if isinstance(console, LogConsole) else contextlib.nullcontext():
        platform = find_platform(os.environ)
        try:
            outcome = _attempt(args, platform, console, stop)
        except RunnerError as error:
            if platform and error.exit_code not in (Exit.DONE, Exit.SAID_NO):
                leave_failure(platform, str(error))
            raise
        if platform and outcome.path and outcome.report:
            if outcome.report["status"] == "done":
                hand_over(platform, outcome.chosen or outcome.path)
            elif outcome.exit_code != Exit.SAID_NO:
                leave_failure(platform, outcome.report["verdict_text"])
        return outcome


def _attempt(args: argparse.Namespace, platform: Platform | None, console: Console, stop: Stop) -> Outcome:
    with LiveWatch(console, stop).interruptible():  # there is no run yet that could leave a report
        destination = find_destination(args.out, os.environ)
        out, root = destination.folder, platform.root if platform else None
        held = _load(args, out, console, stop)
        manifest, past = held.manifest, held.repeats
        hash_of = hashing(cache_folder())
        point = None if past else chosen_point(manifest, args.point, os.environ, hash_of)
        folder = sweep_directory(manifest, out, root)
        is_sweep = point is None and bool(point_manifests(manifest))
        if point is not None:
            os.environ.setdefault(
                "WANDB_RUN_GROUP", f"{manifest.values['name']}-sweep"
            )  # which W&B's own library reads
            manifest, run_id, path = point.manifest, point.run_id, point_directory(folder, point)
        elif not is_sweep:
            run_id = identify(manifest, hash_of)
            path = run_directory(manifest, run_id, out, root)
        if past is not None:
            path = repeat_directory(path, out, past.directory)
    url = destination.url
    if is_sweep:
        outcome = run_sweep(args, manifest, folder, console, stop)
        return with_mirror(outcome, url, send_sweep(url, folder) if url else None, console)
    if url and point is not None:
        url = f"{url}/{path.name}"
    return _attempt_run(args, replace(held, manifest=manifest), run_id, path, url, console, stop)


def _attempt_run(
    args: argparse.Namespace,
    held: Held,
    run_id: str,
    path: Path,
    url: str | None,
    console: Console,
    stop: Stop,
) -> Outcome:
    ranks = place(os.environ)
    with LiveWatch(console, stop).interruptible():
        check_one_machine(url, ranks, num_on_this_machine(os.environ))
        check_apart(destination(held.manifest.values), url)
        report = None if args.fresh or ranks.size > 1 else _finished(path, url, run_id, held.manifest.values)
        if report is not None:
            return with_mirror(_show(console, report, path, args.again, stop, repeated=True), url, None, console)
        require_training()
    kind = held.manifest.values["approach"]["kind"]
    if ranks.rank > 0:
        return Outcome(exit_code=Exit(load(kind).follow(stop)), is_final=True)
    with _leading(kind) if ranks.size > 1 else contextlib.nullcontext() as others:
        done, behind = _in_directory(RunDirectory(path), url, held, run_id, args, console, stop)
        if others is not None:
            others.append(done.exit_code)
    shown = _show(console, done.report, path, args.again, stop, repeated=done.repeated)
    return with_mirror(shown, url, behind, console)


def _finished(path: Path, url: str | None, run_id: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The report of this very run where it is done and nothing is left to be sent away: in its mirror, where it has
    one."""

    def is_all(report: Mapping[str, Any]) -> bool:
        return not is_owed(report, values)

    if url:
        return already_mirrored(url, path, run_id, is_all)
    report = finished_report(path, run_id)
    return report if report is not None and is_all(report) else None


def _in_directory(
    run: RunDirectory,
    url: str | None,
    held: Held,
    run_id: str,
    args: argparse.Namespace,
    console: Console,
    stop: Stop,
) -> tuple[Attempt, RunnerError | None]:
    """The attempt; its directory is taken before anything heavy is loaded, so that a second runner knows at once."""
    with contextlib.closing(run):
        watch = LiveWatch(console, stop)
        with watch.interruptible():
            from runner.attempt import attempt

            world = make_world(console, stop, held.locked, held.told)
        carry_out = functools.partial(attempt, held.manifest, run, run_id, world, fresh=args.fresh)
        if url is None:
            return carry_out(), None
        return carry_out_mirrored(url, run, run_id, world.cache, watch, stop, carry_out, fresh=args.fresh)


def _load(args: argparse.Namespace, out: Path | None, console: Console, stop: Stop) -> Held:
    """The manifest; the faults of one that is none, or is not as it was locked, are left in the run directory that was
    named."""
    try:
        held = hold(args)
        take_files(os.environ, keys_named_in(held.manifest.values).values())
        return held
    except RunnerError as error:
        if out is not None:
            from runner.attempt import report_faults

            with contextlib.suppress(RunnerError):  # an unusable directory must not hide the manifest's faults
                report_faults(error, out, make_world(console, stop))
        raise


def _show(
    console: Console, report: Mapping[str, Any], path: Path, again: str, stop: Stop, *, repeated: bool
) -> Outcome:
    """Shows how a run ended."""
    if repeated:
        console.line("Already done; --fresh runs it again.")
    console.line()
    following = again if stop() else next_command(report, path, again)
    summarize(console, report, path, following)
    exit_code = Exit(report["exit_code"])
    return Outcome(
        exit_code=exit_code,
        report=report,
        path=path,
        next_command=following,
        is_final=any(problem["code"] == NO_PROGRESS for problem in report["problems"]),
    )


@contextlib.contextmanager
def _leading(kind: str) -> Iterator[list[Exit]]:
    """Rank 0 of several processes: the others find it here from the beginning, however long it takes to training, and
    are let go at the end, with the exit code that is put into the list."""
    codes = [Exit.BUG]
    load(kind).gather()
    try:
        yield codes
    except RunnerError as error:
        codes.append(error.exit_code)
        raise
    finally:
        load(kind).dismiss(int(codes[-1]))
