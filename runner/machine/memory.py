"""How much of the machine's memory this process can come to hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from runner.machine.cgroups import ROOT, folders

CGROUP_FILES = {  # the limit, what is used, and the line of memory.stat with what of it can be dropped
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available_bytes(root: Path = ROOT) -> int | None:
    """Bytes that this process can come to hold, those that it holds already included; None is unknown.

    What the machine has left, or the smallest cgroup around us where that is less, page cache that can be dropped not
    counted as used. `root` is a folder that holds proc and sys.
    """
    left = [*entries(root / "proc/meminfo", "MemAvailable"), *_cgroup_left(root)]
    own = entries(root / "proc/self/status", "RssAnon")
    return max(0, min(left)) + sum(own) if left else None


def entries(path: Path, name: str) -> list[int]:
    """The bytes of one line of a file such as /proc/meminfo ("name: 12 kB"); empty where it is missing."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return [int(line.split()[1]) * 1024]
    return []


def _cgroup_left(root: Path) -> Iterator[int]:
    """What each memory cgroup around this process leaves, of version 1 and 2; those without a limit say nothing."""
    for folder, version in folders("memory", root):
        limit, usage, droppable = CGROUP_FILES[version]
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            most, used = (int((folder / name).read_text()) for name in (limit, usage))
            yield most - used + _statistic(folder / "memory.stat", droppable)


def _statistic(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name} ")), 0)
    return 0
