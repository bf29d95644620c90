"""How much memory there is for this process, and how much a stretch of work takes at its peak."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol, Self

import torch

from runner.machine import memory
from runner.machine.cgroups import ROOT


def available_bytes(root: Path | None = None) -> int | None:
    """Bytes that this process can come to hold, those that it holds already included; None is unknown.

    GPU: free, and reserved by torch, of the current device; otherwise the machine's memory. `root` is a folder that
    holds proc and sys of a machine without a GPU.
    """
    if root is None and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
    return memory.available_bytes(root or ROOT)


def held_bytes() -> int:
    """Bytes that this process holds now: on the GPU by torch, otherwise resident; 0 where nobody knows."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return sum(memory.entries(Path("/proc/self/status"), "VmRSS"))


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
        return memory.entries(self._process / "status", name)

    def _sample(self) -> None:
        while not self._left.wait(self.SAMPLE_SECONDS):
            self._sampled = sorted(self._sampled + self._resident("VmRSS"))[-1:]
