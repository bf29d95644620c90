"""Every verb but `run`: each takes the arguments, prints, and returns the exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from runner.cli.holding import hold
from runner.cli.opening import cache_folder, make_world, open_manifest
from runner.cli.sweep_end import read_sweep, show_sweep
from runner.console import Console, table
from runner.credentials import keys_named_in, take_files
from runner.destination import find_destination
from runner.errors import Exit, Problem, RunnerError
from runner.files import write_whole
from runner.identity import hashing
from runner.manifest import missing_credentials
from runner.packages import missing_for_training, require_training
from runner.rundir import REPORT, RunDirectory, read_report
from runner.schema import read_schema
from runner.stopping import Stop
from runner.summary import next_command, summarize
from runner.sweep import chosen_point, point_manifests, points


def validate(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Every fault of every manifest; the worst exit code."""
    problems: list[Problem] = []
    notes: list[Problem] = []
    worst = Exit.DONE
    for path in args.manifests:
        try:
            manifest = open_manifest(path)
            for each in (manifest, *point_manifests(manifest)):
                notes.extend(missing_credentials(each, os.environ))
        except RunnerError as error:
            problems.extend(error.problems)
            worst = Exit(max(worst, error.exit_code))
    console.problems([*problems, *dict.fromkeys(notes)], args.format)
    if args.format == "text":
        faulty = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}" if problems else "no problems"
        console.line(f"{len(args.manifests)} manifest{'s' if len(args.manifests) != 1 else ''}: {faulty}")
    return worst


def schema(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Prints a JSON Schema."""
    console.line(json.dumps(read_schema(args.name), indent=2))
    return Exit.DONE


def plan(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Everything known before anything is spent."""
    held = hold(args)
    manifest, num_points = held.manifest, 1
    hash_of = hashing(cache_folder())
    if found := points(manifest, hash_of):
        shown = chosen_point(manifest, args.point, os.environ, hash_of) or found[0]
        console.line(console.paint(f"Sweep: {len(found)} points, each a run of its own", "bold"))
        console.line(table([(str(point.number), point.label, point.run_id) for point in found], words=True))
        console.line(f"   What follows is of point {shown.number}; --point N shows another.")
        manifest, num_points = shown.manifest, len(found)
    else:
        chosen_point(manifest, args.point, os.environ, hash_of)
    take_files(os.environ, keys_named_in(manifest.values).values())
    if missing := missing_for_training():
        from runner.outline import outline

        console.problems(missing_credentials(manifest, os.environ))
        return outline(manifest, missing, console)
    from runner.preview import preview

    return preview(manifest, make_world(console, stop, held.locked, held.told), console, num_points)


def report(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Shows a report again and redraws its page; of a sweep's folder that of the sweep."""
    from runner.render import render_html, render_sweep

    if (swept := read_sweep(args.directory)) is not None:
        with contextlib.closing(RunDirectory(args.directory)) as folder:
            folder.write_text("sweep.html", render_sweep(swept))
        show_sweep(console, swept, args.directory, f"runner {swept['manifest']} --out {args.directory}")
        return Exit.DONE
    report = read_report(args.directory)
    run = RunDirectory(args.directory)
    run.write_text("report.html", render_html(report))
    run.close()
    again = f"runner {report['manifest']['path'] or 'MANIFEST'}"
    summarize(console, report, args.directory, next_command(report, args.directory, again))
    return Exit.DONE


def prepare(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Brings a model into the cache."""
    take_files(os.environ, ())
    require_training()
    world = make_world(console, stop)
    backend = world.load_backend("lora")
    if problems := backend.check(args.model):
        raise RunnerError(problems, Exit.INPUT_MISSING)
    trust: bool = args.trust_remote_code
    facts = backend.open_session(args.model, "lora", world.cache, world.watch, trust_remote_code=trust).facts
    console.line(f"{facts.name} is ready: {facts.family}, {facts.num_parameters or 0:,} parameters")
    return Exit.DONE


def doctor(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Looks at this machine."""
    from runner.doctor import examine, exit_of, show
    from runner.doctor.checks import Patient

    manifest = open_manifest(args.manifest) if args.manifest else None
    with contextlib.suppress(RunnerError):  # which is one of the checks
        take_files(os.environ, keys_named_in(manifest.values).values() if manifest else ())
    patient = Patient.admit(manifest, find_destination(args.out, os.environ), os.environ, cache_folder())
    checks = list(examine(patient))
    show(checks, console, args.format)
    return exit_of(checks)


def export(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Writes the run as a job of a cluster; what is worth knowing, and what to type next, goes to standard error."""
    from runner.launch import TARGETS, check_output, make_job
    from runner.launch import export as write_job

    manifest = replace(open_manifest(args.manifest, args.overrides), trust_remote_code=args.trust_remote_code)
    if point := chosen_point(manifest, args.point, {}):
        manifest = point.manifest
    file = args.output or Path(f"{manifest.values['name']}.{args.target}.{TARGETS[args.target].ending}")
    job = make_job(manifest, out=args.out, at=args.at, file=shlex.quote(str(file)), again=args.again)
    exported = write_job(args.target, manifest, job)
    if args.output:
        check_output(args.output, args.manifest, job)
        write_whole(args.output, exported.text)
    else:
        sys.stdout.write(exported.text)  # whole: rows that go along stay what they are
        sys.stdout.flush()
    console.problems(exported.findings)
    if not args.output:
        console.line(f"The job is on standard output; with --output {file} it is a file.")
    console.line(f"next    {exported.following}")
    return Exit.DONE


def fetch(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Copies a run from its mirror."""
    from runner.mirror import fetch

    take_files(os.environ, ())
    folder = args.directory or Path("runs") / args.url.rstrip("/").rpartition("/")[2]
    num_files = fetch(args.url, folder, console.say)
    console.line(f"{num_files} files are in {folder}")
    if (folder / REPORT).is_file():  # else it is a delivery
        console.line(f"next    runner report {shlex.quote(str(folder))}")
    return Exit.DONE
