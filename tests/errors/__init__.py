"""Broken manifests, each beside the exact screen that `runner validate` shows for it, and the command to call."""

import contextlib
import io
import signal


def call(*arguments: str) -> tuple[int, str]:
    """The real command in this process: its exit code, and what it printed where there is no terminal; of an export,
    whose output is the job, also what it said beside it."""
    from runner.cli import main

    out = io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.ExitStack() as both:
            both.enter_context(contextlib.redirect_stdout(out))
            if arguments[:1] == ("export",):
                both.enter_context(contextlib.redirect_stderr(out))
            return main(arguments), out.getvalue()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
