"""Open models on this machine: load, count, train, answer, score."""
# ruff: noqa: E402 (the environment is set before the libraries that read it on import)

from __future__ import annotations

import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.machine.telemetry import silence
from runner.machine.threads import settled

# Before anything imports the hub client, which looks at the environment once.
silence(os.environ)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # threads of its own; nothing forks here
os.environ.setdefault("TQDM_DISABLE", "1")  # the person sees our bars, not those of five libraries

# Before torch loads OpenMP, which looks at the environment once.
settled()

# Said on every import and of no use to the person: a missing optional kernel, names that libraries renamed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl|peft")

import torch
import transformers

from runner.backends.base import Session, Watch
from runner.backends.local import worker
from runner.backends.local.device import compute_dtype
from runner.backends.local.embedded import EMBEDDED, converted_folder, find_problems
from runner.backends.local.opening import snapshot, split_revision, unsafe_files
from runner.backends.local.ranks.meeting import meeting
from runner.backends.local.session import LocalSession
from runner.backends.pins import Located
from runner.errors import Problem

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes", "liger-kernel")


def check(model: str) -> list[Problem]:
    """What stands against using this model here, found without loading it."""
    name, revision = split_revision(model)
    if name in EMBEDDED:
        return [_no_revision(name, revision)] if revision else find_problems(name)
    problems = []
    looks_local = Path(name).is_absolute()
    if looks_local and not (Path(name) / "config.json").is_file():
        problems.append(
            Problem(
                code="model/missing",
                what=f"There is no model in the folder '{name}' (no config.json).",
                fix="Correct approach.model: a folder with config.json, a hub id org/name@revision, or "
                + " or ".join(EMBEDDED)
                + ".",
            )
        )
    elif looks_local:
        problems += unsafe_files(Path(name))
    if not looks_local and name.count("/") != 1:
        problems.append(
            Problem(
                code="model/unknown",
                what=f"'{name}' is neither an embedded model, nor a hub id (org/name), nor a folder (./name).",
                fix="Use " + " or ".join(EMBEDDED) + ", org/name@revision, or ./folder.",
            )
        )
    return problems


def _no_revision(name: str, revision: str) -> Problem:
    what = f"The embedded model '{name}' has no revision '{revision}': there is one, whose hash is known."
    return Problem(code="model/revision", what=what, fix=f"Write approach.model: {name}")


def open_session(model: str, method: str, cache: Path, watch: Watch, *, trust_remote_code: bool = False) -> Session:
    """Loads the tokenizer at once and the weights when first needed."""
    return LocalSession(model=model, method=method, cache=cache, watch=watch, trust_remote_code=trust_remote_code)


def locate(model: str, cache: Path, watch: Watch, *, fetch: bool) -> Located | None:
    """Where a model's tokenizer and config lie here; unless they may be fetched, None where they do not.

    Raises RunnerError (66, 69, 77) when they are to be fetched and cannot be.
    """
    name, revision = split_revision(model)
    if name in EMBEDDED:
        carried = EMBEDDED[name]
        return Located(folder=converted_folder(name, cache, watch), files={carried.gguf: carried.sha256})
    return Located(folder=Path(name)) if Path(name).is_absolute() else snapshot(name, revision, fetch=fetch)


def follow(is_stopped: Callable[[], bool]) -> int:
    """A rank but 0: takes part in the training, and ends with rank 0's exit code."""
    return worker.follow(is_stopped)


def gather() -> None:
    """Rank 0: opens the place where the ranks meet."""
    meeting()


def dismiss(exit_code: int) -> None:
    """Rank 0: lets the other ranks end."""
    meeting().dismiss(exit_code)


def matmul_rate() -> float:
    """Measured FLOP/s of a square matrix product in the number format that models are loaded in here."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 1024
    a = torch.randn(size, size).to(device, compute_dtype())
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def environment() -> Mapping[str, Any]:
    """Versions and hardware that the figures depend on."""
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "threads": asdict(settled()),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "dtype": str(compute_dtype()).removeprefix("torch."),
        "attention": "sdpa",
        "determinism": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        },
        "packages": {name: metadata.version(name) for name in PACKAGES if _installed(name)},
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
