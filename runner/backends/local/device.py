"""The number format that models compute in on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch


def compute_dtype() -> torch.dtype:
    """bf16 on a GPU and on processors with matrix units for it (AMX); elsewhere bf16 is slower than float32."""
    if torch.cuda.is_available():
        return torch.bfloat16
    return torch.bfloat16 if "amx_bf16" in _cpu_flags() else torch.float32


def _cpu_flags() -> set[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.split())
    return set()
