"""A neighbour on the machine: processes that spin, as many as there are cores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:  # none is left behind where the benchmark is killed
    for _ in range(1_000_000): pass
"""


def fair_share(num_threads: int, num_spinning: int, num_cores: int) -> float:
    """The part of its own speed that a job keeps where so many of its threads and of a neighbour's take turns on the
    cores: with as many of each as there are cores, half."""
    return min(1.0, num_cores / (num_threads + num_spinning))


@contextmanager
def spinning(number: int) -> Iterator[None]:
    """So many processes that do nothing but take processor time, while open."""
    started = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(number)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def num_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0))
