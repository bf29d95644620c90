"""One of several machines: as many runners as it has GPUs, which train with those of the other machines.

torchrun would do the same, but for one thing that schedulers live by: it ends with 1 whatever the runner ended with.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from runner.backends import Node
from runner.errors import Exit
from runner.machine.gpu import look
from runner.machine.threads import settled
from runner.stopping import Stop, die_with_parent

PATIENCE_SECONDS = 70.0  # from the request to stop, or the death of a process, until the others are ended
TICK_SECONDS = 0.1


def run_node(node: Node, arguments: Sequence[str], environment: Mapping[str, str], stop: Stop) -> Exit:
    """Runs the same command in each process of this machine, and returns what rank 0 made of the run; 74 where a
    process was killed, since the same command goes on from the last checkpoint."""
    number = node.processes or max(1, look(environment).num_devices)
    threads = {"OMP_NUM_THREADS": str(settled().of_each(number))}
    command = [sys.executable, "-m", "runner", *arguments]
    processes = [
        subprocess.Popen(
            command, env={**environment, **threads, **node.place(local, number)}, preexec_fn=die_with_parent
        )
        for local in range(number)
    ]
    try:
        _wait(processes, stop)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return exit_of([process.returncode for process in processes])


def _wait(processes: Sequence[subprocess.Popen[bytes]], stop: Stop) -> None:
    """Waits for all; passes a request to stop on, once, and gives those time that another one has left alone."""
    give_up = float("inf")
    is_told = False
    while any(process.poll() is None for process in processes) and time.monotonic() < give_up:
        has_failed = any(process.returncode not in (None, 0) for process in processes)
        if give_up == float("inf") and (stop() or has_failed):
            give_up = time.monotonic() + PATIENCE_SECONDS
        if stop() and not is_told:
            is_told = True
            for process in processes:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
        time.sleep(TICK_SECONDS)


def exit_of(codes: Sequence[int]) -> Exit:
    """The code of a machine from those of its processes: all end with rank 0's, where none was killed."""
    first = next((code for code in codes if code), 0)
    known = all(code in set(Exit) for code in codes)
    return Exit(first) if known else Exit.IO
