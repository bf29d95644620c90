"""run.lock.json: what a run stood on and what became of its attempts, written early and completed as more is known."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner import __version__
from runner.attempts import PastAttempt, read_attempts
from runner.git import look_at_repository
from runner.lock import look
from runner.machine.hardware import look_at_hardware
from runner.machine.threads import settled
from runner.manifest import Manifest
from runner.packages import digest, installed
from runner.plan import without_secrets
from runner.report import Facts, to_json
from runner.rundir import EVENTS, KEPT_MANIFEST, RECORD, RECORD_VERSION, RunDirectory

# Variables that change a result or its speed, and hold no secret; nothing else of the environment is written down.
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_AFFINITY"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF"),
    *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NCCL_ALGO", "NCCL_PROTO", "PYTHONHASHSEED", "TOKENIZERS_PARALLELISM"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "HF_HUB_OFFLINE", "RUNNER_POINT"),
)


def begin_record(
    manifest: Manifest, run_id: str, folder: Path, cache: Path, environment: Mapping[str, str], held_to: str | None
) -> dict[str, Any]:
    """What is known before the model is opened. `folder` is the run directory; `held_to` the lock, or the record of
    another run, that this one is held to."""
    packages = installed()
    text = manifest.document.text.encode()
    return {
        "schema_version": RECORD_VERSION,
        "run_id": run_id,
        "runner_version": __version__,
        "command": Path(sys.argv[0]).name,
        "manifest": {
            "path": str(manifest.path.absolute()),
            "from_here": os.path.relpath(manifest.path.resolve(), folder.resolve()),
            "sha256": hashlib.sha256(text).hexdigest(),
            "overrides": without_secrets(list(manifest.overrides)),
            "trust_remote_code": manifest.trust_remote_code,
            "held_to": held_to,
        },
        "stands_on": look(manifest, cache),
        "git": look_at_repository(manifest.path, environment),
        "image": {
            "digest": _known(environment.get("RUNNER_IMAGE_DIGEST")),
            "revision": _known(environment.get("RUNNER_IMAGE_REVISION")),
        },
        "hardware": {**look_at_hardware(), "gpus": None, "driver": None},
        "software": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "packages": packages,
            "packages_sha256": digest(packages),
            "cuda": None,
            "cudnn": None,
        },
        "compute": {"dtype": None, "attention": None, "determinism": None, "world_size": None, "strategy": None},
        "seed": None,
        "threads": to_json(vars(settled())),
        "environment": {name: environment[name] for name in VARIABLES if name in environment},
        "weights_sha256": None,
        "attempts": [],
    }


def _known(value: str | None) -> str | None:
    """A fact of the image; "unknown" is what it was built with where nobody said it."""
    return value if value not in ("", "unknown") else None


def write_record(run: RunDirectory, facts: Facts) -> None:
    """Writes the record with all that the stages have found so far: a kill leaves the old one or the new one."""
    run.write_json(RECORD, {**facts.record, **_found(facts), "attempts": _attempts(run)})


def keep_manifest(run: RunDirectory, manifest: Manifest) -> None:
    """Keeps the manifest's text, so that the run can be repeated from its directory."""
    run.write_text(KEPT_MANIFEST, manifest.document.text)


def machine_in_short(record: Mapping[str, Any]) -> dict[str, str]:
    """What an attempt notes of where it takes place."""
    hardware = record["hardware"]
    machine = f"{hardware['processor']}, {hardware['num_usable_cores']} cores"
    return {"machine": machine, "packages_sha256": record["software"]["packages_sha256"]}


def _found(facts: Facts) -> dict[str, Any]:
    seen, plan, trained = facts.environment, facts.plan, facts.training
    record = facts.record
    compute = {name: seen.get(name) for name in ("dtype", "attention", "determinism")}
    ran = {"world_size": trained and trained.num_processes, "strategy": trained and trained.strategy}
    return {
        "stands_on": {**record["stands_on"], **_stood_on(facts)},
        "hardware": {**record["hardware"], "gpus": seen.get("gpus"), "driver": seen.get("driver")},
        "software": {**record["software"], "cuda": seen.get("cuda"), "cudnn": seen.get("cudnn")},
        "compute": {**compute, **ran},
        "seed": plan and plan.seed,
        "weights_sha256": trained and trained.weights_sha256,
    }


def _stood_on(facts: Facts) -> dict[str, Any]:
    """Models with their commits and hashes, and data with its rows, once they were opened."""
    found = {"models": facts.models, "data": facts.sources}
    return {name: entries for name, entries in found.items() if entries}


def _attempts(run: RunDirectory) -> list[dict[str, Any]]:
    return [_attempt(i, past) for i, past in enumerate(read_attempts(run.path / EVENTS), start=1)]


def _attempt(number: int, past: PastAttempt) -> dict[str, Any]:
    return {
        "number": number,
        "started_at": _iso(past.started),
        "ended_at": _iso(past.ended),
        "stage": past.stage,
        "saved_step": past.step,
        "saved_answers": past.num_answers,
        "exit_code": past.exit_code,
        "machine": past.machine,
        "packages_sha256": past.packages_sha256,
    }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
