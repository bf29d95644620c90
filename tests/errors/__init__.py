"""Broken manifests, each beside the exact screen that `runner validate` shows for it, and the command to call."""

import contextlib
import io
import signal


def call(*arguments: str) -> tuple[int, str]:
    """The real command in this process: its exit code, and what it printed where there is no terminal."""
    from runner.cli import main

    out = io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.redirect_stdout(out):
            return main(arguments), out.getvalue()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
