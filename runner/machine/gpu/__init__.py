"""NVIDIA GPUs, looked at before anything heavy is loaded or fetched: what is here."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.machine.cgroups import ROOT

PROBE = Path(__file__).with_name("probe.py")
ANSWER_SECONDS = 60.0  # eight GPUs without the persistence daemon take some ten seconds
NVIDIA_PCI, DISPLAY_CLASSES = "0x10de", ("0x0300", "0x0302")  # VGA and 3D controllers
SAYS_NOTHING = ("", "void", "none", "all")  # of NVIDIA_VISIBLE_DEVICES: "all" is what images set for every machine
GPU_IS_LOST = 15  # of nvmlReturn_t


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """What is known of a machine's GPUs without loading torch; None is unknown.

    `signs` say why there should be one, `hidden` that CUDA_VISIBLE_DEVICES hides them all, `answered` that the driver
    did so in time. Codes are the driver's own: 0 is well, None that its library is not here. `cuda` is the newest
    version that the driver runs, `torch_cuda` the one that torch was built for ("": none), `torch` its version.
    """

    signs: tuple[str, ...] = ()
    hidden: bool = False
    answered: bool = True
    cuda_code: int | None = None
    cuda: tuple[int, int] | None = None
    num_devices: int = 0
    nvml_code: int | None = None
    driver: str | None = None
    names: tuple[str, ...] = ()
    num_lost: int = 0
    ecc_errors: int = 0
    torch: str | None = None
    torch_cuda: str | None = None

    @property
    def versions(self) -> str:
        """The driver's and torch's versions, as a sentence to stand behind a problem."""
        cuda = f" (CUDA up to {self.cuda[0]}.{self.cuda[1]})" if self.cuda else ""
        driver = f"driver {self.driver or 'of an unknown version'}{cuda}" if self.signs or self.cuda else "no driver"
        if self.signs and not self.cuda:
            driver = f"{driver} ({', '.join(self.signs)})"
        if self.torch is None:
            return f"Here: {driver}; torch is not installed."
        built = "of an unknown build" if self.torch_cuda is None else f"built for CUDA {self.torch_cuda}"
        return f"Here: {driver}; torch {self.torch}, {built if self.torch_cuda != '' else 'built without CUDA'}."


def look(environment: Mapping[str, str], root: Path = ROOT) -> Gpus:
    """What is here. The driver is asked in a process of its own, since a broken one may hang or crash."""
    said = _ask_driver(environment)
    gpus = said["gpus"] if said else []
    version, cuda = _torch_build()
    return Gpus(
        signs=tuple(_signs(environment, root)),
        hidden=environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"),
        answered=said is not None,
        cuda_code=said["cuda_code"] if said else None,
        cuda=tuple(said["cuda_version"]) if said and said["cuda_version"] else None,
        num_devices=said["num_devices"] if said else 0,
        nvml_code=said["nvml_code"] if said else None,
        driver=(said["driver"] if said else None) or _kernel_module(root),
        names=tuple(gpu["name"] for gpu in gpus if gpu["code"] == 0),
        num_lost=sum(gpu["code"] == GPU_IS_LOST for gpu in gpus),
        ecc_errors=sum(gpu["ecc_errors"] or 0 for gpu in gpus),
        torch=version,
        torch_cuda=cuda,
    )


def _ask_driver(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What the probe printed; None where it crashed or hung."""
    command = [sys.executable, "-I", "-S", str(PROBE)]
    try:
        done = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True
        )
        said: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        return None
    return said


def _signs(environment: Mapping[str, str], root: Path) -> Iterator[str]:
    """What speaks for a GPU being meant to be here; all of it can be seen in a container that was given none."""
    if _kernel_module(root):
        yield "the NVIDIA kernel module is loaded"
    if any((root / "dev").glob("nvidia[0-9]*")):
        yield "/dev has NVIDIA devices"
    if any(_is_gpu(folder) for folder in (root / "sys/bus/pci/devices").glob("*")):
        yield "there is an NVIDIA GPU on the PCI bus"
    if (given := environment.get("NVIDIA_VISIBLE_DEVICES", "").strip()) not in SAYS_NOTHING:
        yield f"NVIDIA_VISIBLE_DEVICES is {given}"


def _is_gpu(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        is_nvidia = (folder / "vendor").read_text().strip() == NVIDIA_PCI
        return is_nvidia and (folder / "class").read_text().startswith(DISPLAY_CLASSES)
    return False


def _kernel_module(root: Path) -> str | None:
    """The version of the driver's kernel module; None where it is not loaded."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else "of an unknown version"


def _torch_build() -> tuple[str | None, str | None]:
    """torch's version, and the CUDA version that it was built for, read from its files: importing it takes seconds."""
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        with contextlib.suppress(OSError):
            text = (Path(folder) / "version.py").read_text()
            version = re.search(r"^__version__ = ['\"]([^'\"]+)", text, re.MULTILINE)
            built = re.search(r"^cuda\b[^=]*= (?:['\"]([^'\"]*)['\"]|None)", text, re.MULTILINE)
            has_rocm = re.search(r"^hip\b[^=]*= ['\"]", text, re.MULTILINE)  # AMD's; we cannot judge it
            cuda = None if has_rocm or built is None else built[1] or ""
            return version[1] if version else "of an unknown version", cuda
    return None, None
