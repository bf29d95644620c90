"""The command: verbs in, exit codes out. The only place that prints, exits, and reads the environment."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import difflib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runner import __version__
from runner.attempts import NO_PROGRESS
from runner.backends import is_one_of_many, load, place
from runner.console import Console
from runner.credentials import keys_named_in, take_files
from runner.disks import io_problem
from runner.errors import EXIT_CODES, Exit, Problem, RunnerError
from runner.identity import identify, local_directory, run_directory
from runner.log_lines import LogConsole
from runner.manifest import Manifest, load_manifest, missing_credentials
from runner.masking import masked, masked_source, print_exception, remember
from runner.outcome import Outcome, describe, leave_message
from runner.packages import missing_for_training, require_training
from runner.platforms import Platform, find_platform, hand_over, leave_failure
from runner.progress import LiveWatch
from runner.roots import check_paths
from runner.rundir import RunDirectory, finished_report
from runner.schema import read_schema
from runner.stopping import Stop
from runner.streams import LastingStream
from runner.summary import next_command, summarize

if TYPE_CHECKING:
    from runner.attempt import Attempt
    from runner.world import World

TRUST = "let Python code that comes with the model run, with all that you may do; read it first"
VERBS = ("run", "validate", "plan", "schema", "report", "prepare", "doctor")
LOGS = ("auto", "text", "json")
DOCTOR = (
    "look at this machine: GPU, limits, packages, folders, servers, credentials",
    "Exits with 0 when every check is ok or a warning; otherwise with what a run would end with, and of several codes "
    "the first of 78, 66, 77, 73, 74, 69: what no retry would change comes first. What cannot be known counts as 69.",
)
EXIT_GRACE_SECONDS = 1.0
TERMINATION_LOG = "/dev/termination-log"  # which Kubernetes makes in every container


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line in a process that goes on afterwards, and returns the exit code."""
    stop = Stop(patient=is_one_of_many(os.environ))
    stop.listen()
    try:
        return _end(_answer(list(sys.argv[1:] if argv is None else argv), stop), stop)
    finally:
        stop.restore()


def run_process(stop: Stop) -> int:
    """Runs the command line of a process that is ours, and returns the exit code; once asked to stop, the process
    ends here."""
    code = _end(_answer(sys.argv[1:], stop), stop)
    if stop():
        _leave(stop, code)
    return code


def _answer(arguments: list[str], stop: Stop) -> tuple[Outcome, Console]:
    remember(os.environ)
    said = arguments[:1]
    if said and said[0] not in (*VERBS, "-h", "--help", "--version"):
        arguments.insert(0, "run")
    shown = map(masked_source, arguments[arguments[:1] == ["run"] :])
    again = shlex.join([os.environ.get("RUNNER_COMMAND", "runner"), *shown])
    console = Console()
    try:
        parser = _parser()
        _check_verb(parser, *said)
        args = parser.parse_args(arguments, argparse.Namespace(again=again))
        if getattr(args, "log", "auto") not in LOGS:
            parser.error(f"RUNNER_LOG is '{args.log}'; choose from {', '.join(LOGS)}")
    except SystemExit as error:  # argparse leaves with 2, which here means nothing
        return Outcome(exit_code=Exit.DONE if error.code == 0 else Exit.USAGE), console
    console = _console(args)
    try:
        return _carry_out(args, console, stop), console
    except BaseException as error:
        if stop():  # what a library made of being cut short
            return Outcome(exit_code=Exit.INTERRUPTED), console
        return Outcome(exit_code=_unforeseen(error)), console


def _check_verb(parser: argparse.ArgumentParser, said: str = "") -> None:
    """A word that is no verb stands for a manifest; one that looks like none is a verb spelled wrongly."""
    if said.isalpha() and said not in VERBS and not Path(said).exists():
        meant = difflib.get_close_matches(said, VERBS, n=1)
        hint = f"did you mean '{meant[0]}'?" if meant else f"choose from {', '.join(VERBS)}"
        parser.error(f"'{said}' is neither a command nor a manifest; {hint}")


def _console(args: argparse.Namespace) -> Console:
    """For people on a terminal; a run that is not on one writes lines for machines, unless told otherwise."""
    console = Console()
    form = getattr(args, "log", "text")
    as_lines = form == "json" or (form == "auto" and not console.out.isatty())
    return LogConsole() if as_lines else console


def _end(ended: tuple[Outcome, Console], stop: Stop) -> Exit:
    """Tells machines how the command ended. Whatever it would have been, once asked to stop we should be started
    again, unless that was found to lead nowhere."""
    outcome, console = ended
    if stop.decide() and not outcome.is_final:
        outcome = replace(outcome, exit_code=Exit.INTERRUPTED)
    with contextlib.suppress(OSError):
        if isinstance(console, LogConsole):
            console.end(describe(outcome))
    leave_message(outcome, Path(os.environ.get("RUNNER_TERMINATION_LOG") or TERMINATION_LOG))
    return outcome.exit_code


def _unforeseen(error: BaseException) -> Exit:
    if isinstance(error, OSError):
        if not isinstance(error, BrokenPipeError):
            print(masked(f"Reading or writing failed: {error}."), file=sys.stderr)
        with contextlib.suppress(OSError, ValueError):  # it may be what failed, and Python flushes it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.IO
    if not isinstance(error, Exception):
        raise error
    print_exception(error)
    print("This is a bug of ours; please report it, with the traceback above.", file=sys.stderr)
    return Exit.BUG


def _leave(stop: Stop, code: int) -> None:
    """Ends the process. Libraries clean up, within a limit; threads and half imported modules are not waited for."""
    with contextlib.suppress(Exception), stop.interruptible(EXIT_GRACE_SECONDS):
        sys.stdout.flush()
        atexit._run_exitfuncs()
    os._exit(code)


def _carry_out(args: argparse.Namespace, console: Console, stop: Stop) -> Outcome:
    """Everything but a run may be cut short anywhere."""
    at_once = contextlib.nullcontext() if args.verb is _run else LiveWatch(console, stop).interruptible()
    try:
        with at_once:
            done: Outcome | Exit = args.verb(args, console, stop)
        return done if isinstance(done, Outcome) else Outcome(exit_code=done)
    except RunnerError as error:
        console.problems(error.problems, getattr(args, "format", "text"))
        return Outcome(exit_code=error.exit_code, problems=error.problems)
    except OSError as error:
        if stop() or isinstance(error, BrokenPipeError):
            raise
        problem = io_problem(error, [_cache()])
        console.problems([problem], getattr(args, "format", "text"))
        return Outcome(exit_code=Exit.IO, problems=(problem,))


class _Parser(argparse.ArgumentParser):
    """A parser that does not show what follows an option such as --api-key, which there is none of."""

    def error(self, message: str) -> NoReturn:
        super().error(masked_source(message))


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {int(code):>3}  {meaning.meaning}" for code, meaning in EXIT_CODES.items())
    parser = _Parser(
        prog="runner",
        description="Carries a fine-tuning experiment from one YAML manifest to a verdict.",
        epilog=f"`runner MANIFEST` is the same as `runner run MANIFEST`.\n\nexit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"runner {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="the whole lifecycle, unattended")
    run.add_argument("--out", metavar="DIR", help="the run directory itself (default: runs/<name>-<run id>)")
    run.add_argument("--fresh", action="store_true", help="remove what an earlier run left in the directory")
    run.add_argument(
        "--log",
        choices=LOGS,
        default=os.environ.get("RUNNER_LOG", "auto"),
        help="text for people, or JSON lines for machines (auto: JSON lines where the output is no terminal)",
    )
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
        verb.add_argument("--trust-remote-code", action="store_true", help=TRUST)
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
    prepare.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    prepare.set_defaults(verb=_prepare)
    doctor = verbs.add_parser("doctor", help=DOCTOR[0], description=f"{DOCTOR[0].capitalize()}. {DOCTOR[1]}")
    doctor.add_argument("manifest", type=Path, nargs="?", help="also look at what a run of it would need")
    doctor.add_argument("--out", metavar="DIR", help="the run directory that the run would have")
    doctor.add_argument("--format", choices=("text", "json"), default="text")
    doctor.set_defaults(verb=_doctor)
    return parser


def _manifest(path: Path, overrides: Sequence[str] = ()) -> Manifest:
    """The manifest, checked; raises RunnerError (64, 66, 78) with every fault found."""
    manifest = load_manifest(path, overrides)
    check_paths(manifest, os.environ)
    return manifest


def _validate(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    problems: list[Problem] = []
    notes: list[Problem] = []
    worst = Exit.DONE
    for path in args.manifests:
        try:
            notes.extend(missing_credentials(_manifest(path), os.environ))
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


def _run(args: argparse.Namespace, console: Console, stop: Stop) -> Outcome:
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
                hand_over(platform, outcome.path)
            elif outcome.exit_code != Exit.SAID_NO:
                leave_failure(platform, outcome.report["verdict_text"])
        return outcome


def _attempt(args: argparse.Namespace, platform: Platform | None, console: Console, stop: Stop) -> Outcome:
    ranks = place(os.environ)
    with LiveWatch(console, stop).interruptible():  # there is no run yet that could leave a report
        named = args.out or os.environ.get("RUNNER_OUT")
        out = local_directory(named) if named else None
        manifest = _load(args, out, console, stop)
        run_id = identify(manifest)
        path = run_directory(manifest, run_id, out, platform.root if platform else None)
        report = None if args.fresh or ranks.size > 1 else finished_report(path, run_id)
        if report is not None:
            return _show(console, report, path, args.again, stop, repeated=True)
        require_training()
    kind = manifest.values["approach"]["kind"]
    if ranks.rank > 0:
        return Outcome(exit_code=Exit(load(kind).follow(stop)), is_final=True)
    with _leading(kind) if ranks.size > 1 else contextlib.nullcontext() as others:
        done = _in_directory(RunDirectory(path), manifest, run_id, args, console, stop)
        if others is not None:
            others.append(done.exit_code)
    return _show(console, done.report, path, args.again, stop, repeated=done.repeated)


def _in_directory(
    run: RunDirectory, manifest: Manifest, run_id: str, args: argparse.Namespace, console: Console, stop: Stop
) -> Attempt:
    """The attempt; its directory is taken before anything heavy is loaded, so that a second runner knows at once."""
    with contextlib.closing(run):
        with LiveWatch(console, stop).interruptible():
            from runner.attempt import attempt

            world = _world(console, stop)
        return attempt(manifest, run, run_id, world, fresh=args.fresh)


def _load(args: argparse.Namespace, out: Path | None, console: Console, stop: Stop) -> Manifest:
    """The manifest; the faults of one that is none are left in the run directory that was named."""
    try:
        manifest = replace(_manifest(args.manifest, args.overrides), trust_remote_code=args.trust_remote_code)
        take_files(os.environ, keys_named_in(manifest.values).values())
        return manifest
    except RunnerError as error:
        if out is not None:
            from runner.attempt import report_faults

            with contextlib.suppress(RunnerError):  # an unusable directory must not hide the manifest's faults
                report_faults(error, out, _world(console, stop))
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
    manifest = replace(_manifest(args.manifest, args.overrides), trust_remote_code=args.trust_remote_code)
    take_files(os.environ, keys_named_in(manifest.values).values())
    if missing := missing_for_training():
        from runner.outline import outline

        console.problems(missing_credentials(manifest, os.environ))
        return outline(manifest, missing, console)
    from runner.preview import preview

    return preview(manifest, _world(console, stop), console)


def _report(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    from runner.render import render_html
    from runner.rundir import RunDirectory, read_report

    report = read_report(args.directory)
    run = RunDirectory(args.directory)
    run.write_text("report.html", render_html(report))
    run.close()
    again = f"runner {report['manifest']['path'] or 'MANIFEST'}"
    summarize(console, report, args.directory, next_command(report, args.directory, again))
    return Exit.DONE


def _prepare(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    take_files(os.environ, ())
    require_training()
    world = _world(console, stop)
    backend = world.load_backend("lora")
    if problems := backend.check(args.model):
        raise RunnerError(problems, Exit.INPUT_MISSING)
    trust: bool = args.trust_remote_code
    facts = backend.open_session(args.model, "lora", world.cache, world.watch, trust_remote_code=trust).facts
    console.line(f"{facts.name} is ready: {facts.family}, {facts.num_parameters or 0:,} parameters")
    return Exit.DONE


def _doctor(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    from runner.doctor import examine, exit_of, show
    from runner.doctor.checks import Patient

    manifest = _manifest(args.manifest) if args.manifest else None
    named = args.out or os.environ.get("RUNNER_OUT")
    checks = list(examine(Patient.admit(manifest, local_directory(named) if named else None, os.environ, _cache())))
    show(checks, console, args.format)
    return exit_of(checks)


def _cache() -> Path:
    return Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")


def _world(console: Console, stop: Stop) -> World:
    from runner.world import World

    return World(watch=LiveWatch(console, stop), cache=_cache(), environment=os.environ)
