"""How many threads compute, and how those wait that have nothing to do: settled once, before torch is loaded.

OpenMP's threads spin while they wait. On a machine shared with other jobs that takes the processor from the very thread
that is waited for; waiting passively costs nothing where the machine is quiet (docs/benchmarks.md has both).
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from runner.machine.cgroups import ROOT, cpu_limit

NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # what a person says about the number of threads
PASSIVE = {  # for GCC's and for Intel's and LLVM's OpenMP
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "KMP_BLOCKTIME": "0",
}


@dataclass(frozen=True, kw_only=True)
class Threads:
    """Threads that compute in this process, why so many, how they wait, and who said so."""

    count: int
    origin: str
    waiting: str
    waiting_origin: str
    is_given: bool = False

    def of_each(self, num_processes: int) -> int:
        """Threads of each of several processes on this machine: a person's own number is each process's."""
        return self.count if self.is_given else max(1, self.count // num_processes)


@functools.cache
def settled() -> Threads:
    """The threads of this process; sets what the libraries read when they are loaded, the first time it is asked."""
    return settle(os.environ, is_late="torch" in sys.modules)


def settle(
    environment: MutableMapping[str, str],
    root: Path = ROOT,
    mask: Collection[int] | None = None,
    *,
    is_late: bool = False,
) -> Threads:
    """Completes the environment with what nobody set, and says what holds. `mask`: processors that we may run on."""
    count, origin, is_given = _count(environment, root, mask if mask is not None else os.sched_getaffinity(0))
    waiting, waiting_origin = _waiting(environment)
    if not is_late:
        environment.setdefault("OMP_NUM_THREADS", str(count))
        if waiting_origin == "default":
            environment.update(PASSIVE)
    elif waiting_origin == "default":
        waiting, waiting_origin = "as the library waits", "torch was loaded before it could be set"
    return Threads(count=count, origin=origin, waiting=waiting, waiting_origin=waiting_origin, is_given=is_given)


def unsettled(environment: Mapping[str, str], threads: Threads) -> dict[str, str]:
    """The environment without what we set ourselves, for a process that is to settle it as this one did."""
    ours = [] if threads.is_given else ["OMP_NUM_THREADS"]
    ours += PASSIVE if threads.waiting_origin == "default" else []
    return {name: value for name, value in environment.items() if name not in ours}


def _count(environment: MutableMapping[str, str], root: Path, mask: Collection[int]) -> tuple[int, str, bool]:
    for name in NUMBERS:
        with contextlib.suppress(KeyError, ValueError):
            given = int(environment[name].split(",")[0])  # a list is one number for each level of nesting
            if given > 0:
                return given, name, True
    ignored = environment.pop("OMP_NUM_THREADS", None)  # what is no number, each library would complain of
    cores, limit, shared = _cores(root, mask), cpu_limit(root), _num_ranks_here(environment, root, mask)
    count, origin = cores, _origin_of_cores(cores, root, mask)
    if limit is not None and limit < cores:  # a thread that the limit stops is waited for by all (docs/benchmarks.md)
        count, origin = max(1, math.floor(limit)), f"the container's limit of {limit:g} CPUs"
    if shared > 1:
        count, origin = max(1, count // shared), f"{origin}, shared by {shared} processes"
    origin += "" if ignored is None else f" (OMP_NUM_THREADS={ignored!r} is no number of threads)"
    return count, origin, False


def _origin_of_cores(cores: int, root: Path, mask: Collection[int]) -> str:
    masked = len(mask) < _num_online(root, len(mask))
    return f"the cores that this process may run on ({cores})" if masked else f"the machine's cores ({cores})"


def _cores(root: Path, mask: Collection[int]) -> int:
    """Physical cores behind the processors of the mask, as MKL counts them: two hyperthreads share one core's units."""
    siblings = set()
    for number in mask:
        try:
            topology = root / f"sys/devices/system/cpu/cpu{number}/topology"
            siblings.add((topology / "thread_siblings_list").read_text().strip())
        except OSError:
            siblings.add(str(number))
    return max(1, len(siblings))


def _num_online(root: Path, otherwise: int) -> int:
    try:
        ranges = (root / "sys/devices/system/cpu/online").read_text().strip().split(",")
        ends = [[int(end) for end in one.split("-")] for one in ranges]
    except (OSError, ValueError):
        return otherwise
    return sum(end[-1] - end[0] + 1 for end in ends)


def _num_ranks_here(environment: Mapping[str, str], root: Path, mask: Collection[int]) -> int:
    """Processes that somebody else started on this machine to train together; srun gives each its own processors, where
    it was told to."""
    with contextlib.suppress(KeyError, ValueError):
        return int(environment["LOCAL_WORLD_SIZE"])
    if "SLURM_STEP_ID" in environment and len(mask) == _num_online(root, len(mask)):
        with contextlib.suppress(KeyError, ValueError):  # "4(x2),1": four on each of two nodes, one on the third
            return max(int(part.split("(")[0]) for part in environment["SLURM_STEP_TASKS_PER_NODE"].split(","))
    return 1


def _waiting(environment: Mapping[str, str]) -> tuple[str, str]:
    given = ", ".join(f"{name}={environment[name]}" for name in PASSIVE if name in environment)
    return ("as it was set", given) if given else ("passive", "default")
