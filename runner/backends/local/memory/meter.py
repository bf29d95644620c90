"""How much memory there is for this process, and how much a stretch of work takes at its peak."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

import torch

from runner.machine.cgroups import folders

CGROUP_FILES = {  # the limit, what is used, and the line of memory.stat with what of it can be dropped
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available_bytes(root: Path | None = None) -> int | None:
    """Bytes that this process can come to hold, those that it holds already included; None is unknown.

    GPU: free, and reserved by torch, of the current device. Otherwise what the machine has left, or the smallest
    cgroup around us where that is less, page cache that can be dropped not counted as used. `root` is a folder that
    holds proc and sys of a machine without a GPU.
    """
    if root is None and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
    root = root or Path("/")
    left = [*_entries(root / "proc/meminfo", "MemAvailable"), *_cgroup_left(root)]
    own = _entries(root / "proc/self/status", "RssAnon")
    return max(0, min(left)) + sum(own) if left else None


def held_bytes() -> int:
    """Bytes that this process holds now: on the GPU by torch, otherwise resident; 0 where nobody knows."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return sum(_entries(Path("/proc/self/status"), "VmRSS"))


def _entries(path: Path, name: str) -> list[int]:
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


class Meter(Protocol):
    """Measures a peak between entering and leaving; `bytes` is None where it cannot be known."""

    bytes: int | None

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class PeakMeter:
    """The most bytes that were held since entering: allocated on the GPU, otherwise resident in this process."""

    SAMPLE_SECONDS = 0.005

    def __init__(self, process: Path = Path("/proc/self")):
        self.bytes: int | None = None
        self._process = process
        self._sampled: list[int] = []
        self._left = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> Self:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return self
        try:
            (self._process / "clear_refs").write_text("5")  # resets VmHWM, see proc(5)
        except OSError:
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            self.bytes = int(torch.cuda.max_memory_allocated())
        elif self._sampler is None:
            self.bytes = max(self._resident("VmHWM"), default=None)
        else:
            self._left.set()
            self._sampler.join()
            self.bytes = max([*self._sampled, *self._resident("VmRSS")], default=None)

    def _resident(self, name: str) -> list[int]:
        return _entries(self._process / "status", name)

    def _sample(self) -> None:
        while not self._left.wait(self.SAMPLE_SECONDS):
            self._sampled = sorted(self._sampled + self._resident("VmRSS"))[-1:]
