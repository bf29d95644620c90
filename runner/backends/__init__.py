"""Vendors by name. `_import` is the one dynamic import of the project."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from runner.errors import Exit, Problem, RunnerError

if TYPE_CHECKING:
    from runner.backends.base import Backend, Chat, Embedder, Endpoint


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """Where a training approach is carried out; `module` is None while it is not built."""

    module: str | None
    extra: str


APPROACHES: dict[str, Vendor] = {
    "openai": Vendor(module=None, extra="openai"),
    "anthropic": Vendor(module=None, extra="bedrock"),
    "lora": Vendor(module="runner.backends.local", extra="train"),
    "qlora": Vendor(module="runner.backends.local", extra="train"),
    "full": Vendor(module="runner.backends.local", extra="train"),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """This process's place among those that were started together: its number, how many they are, and its number on
    this machine."""

    rank: int = 0
    size: int = 1
    local: int = 0


def place(environment: Mapping[str, str]) -> Place:
    """The place that torchrun (Kubeflow's trainer, too) or srun gave this process; alone where neither did.

    Raises RunnerError (64) where the variables hold no numbers.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        return Place(
            rank=rank, size=size, local=_number(environment, "LOCAL_RANK") if "LOCAL_RANK" in environment else rank
        )
    if "SLURM_STEP_ID" not in environment:
        return Place()
    size = _number(environment, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS")
    if size == 1:
        return Place()
    return Place(rank=_number(environment, "SLURM_PROCID"), size=size, local=_number(environment, "SLURM_LOCALID"))


@dataclass(frozen=True, kw_only=True)
class Node:
    """This machine among several, on each of which the runner was started once: its number, how many they are, how
    many processes it is to have (None: one for each GPU), and where all of them meet."""

    rank: int
    size: int
    processes: int | None
    address: str
    port: int

    def place(self, local: int, processes: int) -> dict[str, str]:
        """The environment, as torchrun sets it, of one of the processes of this machine."""
        return {
            "RANK": str(self.rank * processes + local),
            "WORLD_SIZE": str(self.size * processes),
            "LOCAL_RANK": str(local),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def node(environment: Mapping[str, str]) -> Node | None:
    """This machine among several, as torchrun's own PET_ variables tell it (Kubeflow's trainer sets them, and so do
    the jobs that we export); None where there is one machine, or processes have their places already.

    Raises RunnerError (64) where the variables hold no numbers.
    """
    if "RANK" in environment or "SLURM_STEP_ID" in environment or environment.get("PET_NNODES", "1") == "1":
        return None
    processes = environment.get("PET_NPROC_PER_NODE", "auto")
    return Node(
        rank=_number(environment, "PET_NODE_RANK"),
        size=_number(environment, "PET_NNODES"),
        processes=None if processes in ("auto", "gpu") else _number(environment, "PET_NPROC_PER_NODE"),
        address=environment.get("PET_MASTER_ADDR", "localhost"),
        port=_number(environment, "PET_MASTER_PORT"),
    )


def num_on_this_machine(environment: Mapping[str, str]) -> int:
    """Of the processes that were started together, those that are known to be on this machine."""
    local = environment.get("LOCAL_WORLD_SIZE", "1")
    return int(local) if local.isdecimal() else 1


def is_one_of_many(environment: Mapping[str, str]) -> bool:
    """Whether other processes were started together with this one; no where that cannot be told."""
    try:
        return place(environment).size > 1 or node(environment) is not None
    except RunnerError:
        return False


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "1" if name == "SLURM_NTASKS" else "")
    if not text.isdecimal():
        problem = Problem(
            code="usage/environment",
            what=f"The environment variable {name} is '{text}', which is no number of processes or of one of them.",
            fix="Leave it to torchrun, srun or the exported job to set it, or unset it.",
        )
        raise RunnerError(problem, Exit.USAGE)
    return int(text)


def load(approach: str) -> Backend:
    """The backend of an approach; raises RunnerError when a package it needs is not installed."""
    vendor = APPROACHES[approach]
    if vendor.module is None:
        raise RunnerError(
            Problem(
                code="approach/not-built",
                what=f"The approach '{approach}' is not built yet.",
                fix="Use lora, qlora or full.",
            ),
            Exit.MANIFEST,
        )
    return cast("Backend", _import(vendor.module, vendor.extra, "approach", f"The approach '{approach}'"))


def open_chat(endpoint: Endpoint, cache: Path, environment: Mapping[str, str]) -> Chat:
    """A chat with the endpoint; what it answers is kept under `cache` and asked for once. Sends nothing yet.

    The key is looked up in `environment`; raises RunnerError (66) when the SDK is not installed.
    """
    vendor = _import("runner.backends.openai", "train", "endpoint", f"Asking '{endpoint.model}'")
    return cast("Chat", vendor.ChatClient(endpoint, cache / "answers", environment))


def open_embedder(model: str) -> Embedder:
    """The embedding model of a folder or hub id; raises RunnerError (66) when it, or a package, is missing."""
    vendor = _import("runner.backends.local.embed", "train", "model", f"The embedding model '{model}'")
    return cast("Embedder", vendor.Embedder(model))


def _import(module: str, extra: str | None, area: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RunnerError(
            Problem(
                code=f"{area}/package-missing",
                what=f"{what} needs the package '{error.name}', which is not installed.",
                fix=f'Install it with: pip install "runner{f"[{extra}]" if extra else ""}"',
            ),
            Exit.INPUT_MISSING,
        ) from error
