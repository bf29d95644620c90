"""The machine itself: GPU, processors, memory, shared memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from runner.doctor.checks import Check, Patient, fail, failed, ok, unknown, warning
from runner.errors import Exit
from runner.machine.cgroups import cpu_limit
from runner.machine.gpu import look
from runner.machine.gpu.faults import HIDDEN, MISSING, find_fault
from runner.machine.memory import available_bytes
from runner.machine.threads import settled

LEAST_MEMORY = 2_000_000_000  # the quickstart's peak is 1.9 GB (docs/benchmarks.md)
SHARED_BY_RANKS = 1 << 30  # NCCL passes what ranks tell each other through /dev/shm; Docker gives 64 MB


def look_at_computer(patient: Patient) -> Iterator[Check]:
    """What computes, and in what."""
    yield _gpu(patient)
    yield _threads(patient)
    yield _memory(patient)
    yield _shared_memory(patient)


def _gpu(patient: Patient) -> Check:
    accelerator = patient.manifest.values["approach"].get("accelerator", "auto") if patient.manifest else "auto"
    if accelerator == "none":
        return ok("gpu", "not used: approach.accelerator is none")
    gpus = look(patient.environment, patient.root)
    found = find_fault(gpus)
    if found is None:
        about = f"{', '.join(gpus.names) or f'{gpus.num_devices} devices'}. {gpus.versions}"
        if gpus.num_lost or gpus.ecc_errors:
            what = f"{gpus.num_lost} lost, {gpus.ecc_errors} memory errors that were not corrected; {about}"
            return warning("gpu", what, "Have the GPU reset, or use another machine.")
        return ok("gpu", about)
    if accelerator == "required":
        return failed("gpu", found.problem(gpus), found.exit_code)
    if found in (MISSING, HIDDEN):
        return ok("gpu", f"none ({found.what.rstrip('.')}): the processors are used")
    if patient.manifest:
        return warning("gpu", f"{found.problem(gpus).what} The processors would be used.", found.fix)
    return failed("gpu", found.problem(gpus), found.exit_code)


def _threads(patient: Patient) -> Check:
    threads, limit = settled(), cpu_limit(patient.root)
    about = f"{threads.count} threads ({threads.origin}), waiting {threads.waiting} ({threads.waiting_origin})"
    about += f"; {os.cpu_count()} processors, " + (f"limited to {limit:g} CPUs" if limit else "no CPU limit")
    allowed = limit or len(os.sched_getaffinity(0))
    if threads.is_given and threads.count > allowed + 1:
        return warning("threads", about, f"Unset {threads.origin}: more threads than CPUs wait for each other.")
    return ok("threads", about)


def _memory(patient: Patient) -> Check:
    left = available_bytes(patient.root)
    if left is None:
        return unknown("memory", "/proc/meminfo and the cgroups say nothing")
    about = f"{left / 1e9:.1f} GB to be had"
    if left < LEAST_MEMORY:
        fix = "Give the container more memory, or end other work; `runner plan` says what a run takes."
        return warning("memory", f"{about}, and the smallest experiment takes 1.9 GB", fix)
    return ok("memory", about)


def _shared_memory(patient: Patient) -> Check:
    processes = patient.manifest.values["approach"].get("processes", "auto") if patient.manifest else "auto"
    path = patient.root / "dev/shm"
    try:
        found = os.statvfs(path)
    except OSError as error:
        return unknown("shared memory", f"/dev/shm cannot be looked at: {error.strerror}")
    size = found.f_blocks * found.f_frsize
    about = f"/dev/shm has {size / 1e6:,.0f} MB"
    several = processes != 1 and (processes != "auto" or _num_devices(patient.root) > 1)
    if several and size < SHARED_BY_RANKS:
        fix = "Start the container with --shm-size 1g or --ipc=host."
        return warning("shared memory", f"{about}, and several processes talk through it", fix)
    return ok("shared memory", about) if size else fail("shared memory", about, "Mount /dev/shm.", Exit.IO)


def _num_devices(root: Path) -> int:
    return len(list((root / "dev").glob("nvidia[0-9]*")))
