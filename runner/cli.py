"""The command: verbs in, exit codes out. The only place that prints, exits, and reads the environment."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner import __version__
from runner.backends import load, place
from runner.console import Console, LiveWatch
from runner.credentials import keys_named_in, take_files
from runner.errors import EXIT_CODES, Exit, Problem, RunnerError
from runner.manifest import Manifest, load_manifest, missing_credentials
from runner.schema import read_schema
from runner.stopping import Stop
from runner.summary import summarize

if TYPE_CHECKING:
    from runner.world import World

VERBS = ("run", "validate", "plan", "schema", "report", "prepare")
EXIT_GRACE_SECONDS = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code. Without `argv` the process is ours: asked to stop, it ends."""
    stop = Stop(patient=place(os.environ).size > 1)
    stop.listen()
    code = _answer(list(sys.argv[1:] if argv is None else argv), stop)
    was_asked = stop.decide()
    if argv is not None:
        stop.restore()
    elif was_asked:
        _leave(stop)
    return Exit.INTERRUPTED if was_asked else code  # whatever it would have been: we should be started again


def _answer(arguments: list[str], stop: Stop) -> int:
    if arguments and arguments[0] not in VERBS and not arguments[0].startswith("-"):
        arguments.insert(0, "run")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not UTF-8 shows escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console()
    again = shlex.join([os.environ.get("RUNNER_COMMAND", "runner"), *arguments[arguments[:1] == ["run"] :]])
    try:
        args = _parser().parse_args(arguments, argparse.Namespace(again=again))
    except SystemExit as error:  # argparse leaves with 2, which here means nothing
        return Exit.DONE if error.code == 0 else Exit.USAGE
    try:
        return int(_carry_out(args, console, stop))
    except BaseException as error:
        if stop():  # what a library made of being cut short
            return Exit.INTERRUPTED
        return _unforeseen(error)


def _unforeseen(error: BaseException) -> Exit:
    if isinstance(error, OSError):
        if not isinstance(error, BrokenPipeError):  # nobody reads on, as in `runner schema | head`
            print(f"Reading or writing failed: {error}.", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it may be what failed, and Python flushes it
        return Exit.IO
    if not isinstance(error, Exception):
        raise error
    traceback.print_exception(error)
    print("This is a bug of ours; please report it, with the traceback above.", file=sys.stderr)
    return Exit.BUG


def _leave(stop: Stop) -> None:
    """Ends the process. Libraries clean up, within a limit; threads and half imported modules are not waited for."""
    with contextlib.suppress(Exception), stop.interruptible(EXIT_GRACE_SECONDS):
        sys.stdout.flush()
        atexit._run_exitfuncs()
    os._exit(Exit.INTERRUPTED)


def _carry_out(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Everything but a run may be cut short anywhere."""
    at_once = contextlib.nullcontext() if args.verb is _run else LiveWatch(console, stop).interruptible()
    try:
        with at_once:
            done: Exit = args.verb(args, console, stop)
        return done
    except RunnerError as error:
        console.problems(error.problems, getattr(args, "format", "text"))
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {int(code):>3}  {meaning.meaning}" for code, meaning in EXIT_CODES.items())
    parser = argparse.ArgumentParser(
        prog="runner",
        description="Carries a fine-tuning experiment from one YAML manifest to a verdict.",
        epilog=f"`runner MANIFEST` is the same as `runner run MANIFEST`.\n\nexit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"runner {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="the whole lifecycle, unattended")
    run.add_argument("--out", type=Path, help="the run directory itself (default: runs/<name>-<run id>)")
    run.add_argument("--fresh", action="store_true", help="remove what an earlier run left in the directory")
    run.set_defaults(verb=_run)
    plan = verbs.add_parser("plan", help="everything known before anything is spent")
    plan.set_defaults(verb=_plan)
    for verb in (run, plan):
        verb.add_argument("manifest", type=Path)
        verb.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            dest="overrides",
            help="put a value over the manifest's, as in hyperparameters.epochs=3; may be repeated",
        )
    validate = verbs.add_parser("validate", help="check manifests; every fault at once, nothing heavy loaded")
    validate.add_argument("manifests", type=Path, nargs="+", metavar="manifest")
    validate.add_argument("--format", choices=("text", "json", "github"), default="text")
    validate.set_defaults(verb=_validate)
    schema = verbs.add_parser("schema", help="print a JSON Schema")
    schema.add_argument("name", choices=("manifest", "report"), nargs="?", default="manifest")
    schema.set_defaults(verb=_schema)
    report = verbs.add_parser("report", help="show a report again and redraw its HTML")
    report.add_argument("directory", type=Path)
    report.set_defaults(verb=_report)
    prepare = verbs.add_parser("prepare", help="convert or fetch a model into the cache, so that runs start at once")
    prepare.add_argument("model")
    prepare.set_defaults(verb=_prepare)
    return parser


def _validate(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    problems: list[Problem] = []
    notes: list[Problem] = []
    worst = Exit.DONE
    for path in args.manifests:
        try:
            notes.extend(missing_credentials(load_manifest(path), os.environ))
        except RunnerError as error:
            problems.extend(error.problems)
            worst = Exit(max(worst, error.exit_code))
    console.problems([*problems, *notes], args.format)
    if args.format == "text":
        faulty = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}" if problems else "no problems"
        console.line(f"{len(args.manifests)} manifest{'s' if len(args.manifests) != 1 else ''}: {faulty}")
    return worst


def _schema(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    console.line(json.dumps(read_schema(args.name), indent=2))
    return Exit.DONE


def _run(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    out = args.out or (Path(os.environ["RUNNER_OUT"]) if os.environ.get("RUNNER_OUT") else None)
    with LiveWatch(console, stop).interruptible():  # there is no run yet that could leave a report
        try:
            manifest = load_manifest(args.manifest, args.overrides)
            take_files(os.environ, keys_named_in(manifest.values).values())
        except RunnerError as error:
            if out is not None:
                from runner.attempt import report_faults

                with contextlib.suppress(RunnerError):  # an unusable directory must not hide the manifest's faults
                    report_faults(error, out, _world(console, stop))
            raise
        from runner.attempt import attempt

        world = _world(console, stop)
    kind, ranks = manifest.values["approach"]["kind"], place(os.environ)
    if ranks.rank > 0:
        return Exit(load(kind).follow(stop))
    with _leading(kind) if ranks.size > 1 else contextlib.nullcontext() as others:
        done = attempt(manifest, out, world, fresh=args.fresh)
        if others is not None:
            others.append(done.exit_code)
    if done.repeated:
        console.line("Already done; --fresh runs it again.")
    console.line()
    summarize(console, done.report, done.path, args.again, again_is_next=stop())
    return done.exit_code


@contextlib.contextmanager
def _leading(kind: str) -> Iterator[list[Exit]]:
    """Rank 0 of several processes: the others are let go at the end, with the exit code that is put into the list."""
    codes = [Exit.BUG]
    try:
        yield codes
    except RunnerError as error:
        codes.append(error.exit_code)
        raise
    finally:
        load(kind).dismiss(int(codes[-1]))


def _plan(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    from runner.preview import preview

    manifest: Manifest = load_manifest(args.manifest, args.overrides)
    take_files(os.environ, keys_named_in(manifest.values).values())
    return preview(manifest, _world(console, stop), console)


def _report(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    from runner.render import render_html
    from runner.rundir import RunDirectory, read_report

    report = read_report(args.directory)
    run = RunDirectory(args.directory)
    run.write_text("report.html", render_html(report))
    run.close()
    summarize(console, report, args.directory, f"runner {report['manifest']['path'] or 'MANIFEST'}")
    return Exit.DONE


def _prepare(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    take_files(os.environ, ())
    world = _world(console, stop)
    backend = world.load_backend("lora")
    if problems := backend.check(args.model):
        raise RunnerError(problems, Exit.INPUT_MISSING)
    facts = backend.open_session(args.model, "lora", world.cache, world.watch).facts
    console.line(f"{facts.name} is ready: {facts.family}, {facts.num_parameters or 0:,} parameters")
    return Exit.DONE


def _world(console: Console, stop: Stop) -> World:
    from runner.world import World

    cache = Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")
    return World(watch=LiveWatch(console, stop), cache=cache, environment=os.environ)
