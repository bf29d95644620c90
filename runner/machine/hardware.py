"""The processor and the memory of this machine, as far as results and their speed rest on them."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from runner.machine.cgroups import ROOT, cpu_limit
from runner.machine.memory import entries

# Instruction sets that libraries choose their kernels, or we the number format, by.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "asimd")


def look_at_hardware(root: Path = ROOT) -> dict[str, Any]:
    """Processor, instruction sets, cores, limits and memory; None is unknown. `root` holds proc and sys."""
    facts = _cpu_facts(root)
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    memory = entries(root / "proc/meminfo", "MemTotal")
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "instruction_sets": [name for name in INSTRUCTIONS if name in flags],
        "num_cores": os.cpu_count(),
        "num_usable_cores": len(os.sched_getaffinity(0)),
        "cpu_limit": cpu_limit(root),
        "memory_bytes": memory[0] if memory else None,
    }


def _cpu_facts(root: Path) -> dict[str, str]:
    """What the kernel says of the first processor."""
    try:
        first = (root / "proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
