"""The command: verbs in, exit codes out. The only place that prints, exits, and reads the environment."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from runner.backends import is_one_of_many
from runner.cli.arguments import LOGS, VERBS, check_verb, make_parser
from runner.cli.listing import list_runs
from runner.cli.locking import lock
from runner.cli.opening import cache_folder
from runner.cli.running import run
from runner.cli.verbs import doctor, export, fetch, plan, prepare, report, schema, validate
from runner.console import Console
from runner.disks import io_problem
from runner.errors import Exit, Problem, RunnerError
from runner.log_lines import LogConsole
from runner.masking import masked, masked_source, print_exception, remember
from runner.outcome import Outcome, describe, leave_message
from runner.progress import LiveWatch
from runner.stopping import Stop

EXIT_GRACE_SECONDS = 1.0
MORE_MEMORY = "Run it where there is more (a container's --memory, ulimit -v), or with fewer or shorter rows."
TERMINATION_LOG = "/dev/termination-log"  # which Kubernetes makes in every container
CARRIED_OUT: dict[str, Callable[[argparse.Namespace, Console, Stop], Outcome | Exit]] = {
    "run": run,
    "validate": validate,
    "plan": plan,
    "schema": schema,
    "report": report,
    "prepare": prepare,
    "doctor": doctor,
    "export": export,
    "list": list_runs,
    "fetch": fetch,
    "lock": lock,
}


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
        parser = make_parser()
        check_verb(parser, *said)
        args = parser.parse_args(arguments, argparse.Namespace(again=again, arguments=arguments))
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


def _console(args: argparse.Namespace) -> Console:
    """For people on a terminal; a run that is not on one writes lines for machines, unless told otherwise."""
    console = Console(sys.stderr if args.verb == "export" else None)  # the job has standard output for itself
    form = getattr(args, "log", "text")
    as_lines = form == "json" or (form == "auto" and not console.out.isatty())
    return LogConsole() if as_lines else console


def _end(ended: tuple[Outcome, Console], stop: Stop) -> Exit:
    """Tells machines how the command ended. Whatever it would have been, once asked to stop we should be started
    again, unless that was found to lead nowhere."""
    outcome, console = ended
    if stop.decide() and not outcome.is_final:
        outcome = replace(outcome, exit_code=Exit.INTERRUPTED)
    if outcome.is_told:
        return outcome.exit_code
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
    at_once = contextlib.nullcontext() if args.verb == "run" else LiveWatch(console, stop).interruptible()
    try:
        with at_once:
            done: Outcome | Exit = CARRIED_OUT[args.verb](args, console, stop)
        return done if isinstance(done, Outcome) else Outcome(exit_code=done)
    except RunnerError as error:
        console.problems(error.problems, getattr(args, "format", "text"))
        return Outcome(exit_code=error.exit_code, problems=error.problems)
    except MemoryError:
        problem = Problem(code="run/out-of-memory", what="There is no memory left for this.", fix=MORE_MEMORY)
        console.problems([problem], getattr(args, "format", "text"))
        return Outcome(exit_code=Exit.MANIFEST, problems=(problem,))
    except OSError as error:
        if stop() or isinstance(error, BrokenPipeError):
            raise
        problem = io_problem(error, [cache_folder()])
        console.problems([problem], getattr(args, "format", "text"))
        return Outcome(exit_code=Exit.IO, problems=(problem,))
