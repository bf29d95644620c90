"""Why no GPU can be used here, each reason with its cure and whether another try may do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runner.errors import Exit, Problem, Where
from runner.machine.gpu import ANSWER_SECONDS, Gpus

KEY = Where(key="approach.accelerator")
VERSION_MISMATCH = 18  # of nvmlReturn_t
# A CUDA version runs on every driver of its major version, from these on:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
LEAST_DRIVERS = {11: "450", 12: "525", 13: "580"}
ELSEWHERE = "Restart the machine, or run it on another one."
WAIT = "See in nvidia-smi who uses it, and try again when it is free."


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why no GPU can be used, and the cure. `passing`: another try or machine may have one, so the exit code is 69;
    what will be the same every time is 78."""

    slug: str
    what: str
    fix: str
    passing: bool = False

    @property
    def exit_code(self) -> Exit:
        """What a run ends with that cannot do without a GPU."""
        return Exit.UNAVAILABLE if self.passing else Exit.MANIFEST

    def problem(self, gpus: Gpus) -> Problem:
        """The fault as a problem, with the versions that it hinges on."""
        return Problem(code=f"gpu/{self.slug}", what=f"{self.what} {gpus.versions}", where=KEY, fix=self.fix)


MISSING = Fault(
    slug="missing",
    what="There is no NVIDIA GPU on this machine.",
    fix="Run it on a machine with one, or set approach.accelerator to auto.",
)
NO_TOOLKIT = Fault(
    slug="no-toolkit",
    what="There should be an NVIDIA GPU here, but the driver's library libcuda.so.1 is not.",
    fix="In a container: install NVIDIA's container toolkit on the host, and start with --gpus all. Otherwise: install "
    "the driver.",
)
NO_DEVICE = Fault(
    slug="no-device",
    what="The NVIDIA driver is here, but it shows no GPU.",
    fix="Give the container one (docker: --gpus all; Kubernetes: nvidia.com/gpu), and look at CUDA_VISIBLE_DEVICES and "
    "NVIDIA_VISIBLE_DEVICES.",
)
HIDDEN = Fault(
    slug="hidden",
    what="CUDA_VISIBLE_DEVICES hides every GPU.",
    fix="Unset CUDA_VISIBLE_DEVICES, or set approach.accelerator to none.",
)
NO_ANSWER = Fault(
    slug="no-answer",
    what=f"The NVIDIA driver crashed, or did not answer within {ANSWER_SECONDS:.0f} s.",
    fix=f"{ELSEWHERE} dmesg may have an Xid message.",
    passing=True,
)
MISMATCH = Fault(
    slug="driver-mismatch",
    what="The NVIDIA driver's libraries and its kernel module are of two versions, as after an update.",
    fix=ELSEWHERE,
    passing=True,
)
LOST = Fault(
    slug="lost",
    what="The GPU is lost: it fell off the bus.",
    fix=f"{ELSEWHERE} dmesg has the Xid message.",
    passing=True,
)
ECC = Fault(
    slug="ecc",
    what="The GPU met a memory error that it could not correct.",
    fix="Have the GPU reset, or run it on another machine.",
    passing=True,
)
BUSY = Fault(
    slug="busy", what="The GPU is busy, in exclusive mode and taken, or its memory is full.", fix=WAIT, passing=True
)
CPU_TORCH = Fault(
    slug="cpu-torch",
    what="torch was built without CUDA and cannot use the GPU that is here.",
    fix="Install a build with CUDA, as https://pytorch.org/get-started/locally/ says.",
)
STUB = Fault(
    slug="stub",
    what="The libcuda.so.1 that is found is a stub, made for building programs.",
    fix="Take CUDA's folder of stubs out of LD_LIBRARY_PATH.",
)
NOT_READY = Fault(
    slug="not-ready",
    what="The GPUs are not ready: with NVSwitch, the fabric manager has to run first.",
    fix="Start nvidia-fabricmanager in the driver's version, and try again.",
    passing=True,
)
NO_COMPAT = Fault(
    slug="compat-unsupported",
    what="The package cuda-compat is in use, which works with data centre GPUs only, and this is none.",
    fix="Remove cuda-compat, and bring the driver up to date.",
)
CUDA_FAULTS = {  # what cuInit answers, of CUresult
    2: BUSY,
    34: STUB,
    46: BUSY,
    100: NO_DEVICE,
    101: NO_DEVICE,
    214: ECC,
    802: NOT_READY,
    803: MISMATCH,
    804: NO_COMPAT,
}
TOO_OLD = (35, 36)


def find_fault(gpus: Gpus) -> Fault | None:
    """Why no GPU can be used here; None where one can, as far as can be told without loading torch."""
    if gpus.hidden:
        return HIDDEN
    if not gpus.answered:
        return NO_ANSWER
    if gpus.nvml_code == VERSION_MISMATCH:
        return MISMATCH
    if gpus.cuda_code is None:
        return NO_TOOLKIT if gpus.signs else MISSING
    if gpus.num_devices == 0:
        return _without_device(gpus, gpus.cuda_code)
    if gpus.torch_cuda == "":
        return CPU_TORCH
    needed = _major(gpus.torch_cuda)
    return _too_old(gpus) if needed and gpus.cuda and gpus.cuda[0] < needed else None


def _without_device(gpus: Gpus, code: int) -> Fault:
    if gpus.num_lost:
        return LOST
    if code in TOO_OLD:
        return _too_old(gpus)
    if code not in (0, *CUDA_FAULTS):
        return Fault(
            slug="unusable",
            what=f"CUDA could not start: the driver answers with error {code}.",
            fix=f"{ELSEWHERE} nvidia-smi may say more.",
            passing=True,
        )
    found = CUDA_FAULTS.get(code, NO_DEVICE)
    return found if found is not NO_DEVICE or gpus.signs else MISSING


def _too_old(gpus: Gpus) -> Fault:
    """The driver is from before torch's CUDA; which one it takes is known of the major versions there are."""
    needed = _major(gpus.torch_cuda)
    least = LEAST_DRIVERS.get(needed or 0)
    wanted = f"driver {least} or newer" if least else "a newer driver"
    return Fault(
        slug="driver-too-old",
        what="The NVIDIA driver is too old for torch's CUDA.",
        fix=f"Install {wanted} on the host, or a torch that was built for the driver's CUDA.",
    )


def _major(version: str | None) -> int | None:
    found = re.match(r"\d+", version or "")
    return int(found[0]) if found else None
