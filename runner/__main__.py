"""The process: a request to stop counts from its first line, before anything is loaded; then the command."""
# ruff: noqa: E402 (the signals come first)

import os
import signal

for _number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(_number, lambda *_: os._exit(75))  # Exit.INTERRUPTED, which is not loaded yet

import sys

from runner.backends import is_one_of_many
from runner.errors import Exit
from runner.machine.telemetry import silence
from runner.machine.threads import settled
from runner.stopping import Stop, StopNow
from runner.streams import keep_streams


def main() -> int:
    """Runs the command line of this process and returns the exit code; once asked to stop, it does not return."""
    stop = Stop(patient=is_one_of_many(os.environ))
    stop.listen()
    try:
        with stop.interruptible():
            keep_streams()
            settled()  # both before anything that is loaded looks at the environment
            silence(os.environ)
            from runner.cli import run_process
    except StopNow:
        os._exit(Exit.INTERRUPTED)
    return run_process(stop)


if __name__ == "__main__":
    sys.exit(main())
