"""One process or several that train together: what each is, and what they tell each other."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from runner.backends import Place, place
from runner.errors import Exit, Problem, RunnerError

PATIENCE = timedelta(minutes=30)  # a rank may save or look at the dev rows while the others wait
Strategy = Literal["alone", "replicated", "sharded"]


@dataclass(frozen=True, kw_only=True)
class Ranks(Place):
    """This process's place among those that train together, and what they tell each other."""

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return torch.device("cuda", self.local) if torch.cuda.is_available() else torch.device("cpu")

    @property
    def computer(self) -> str:
        """What is computed on, as far as sums round otherwise on another: processors or GPUs, threads, processes."""
        kind = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()
        threads = "" if self.device.type == "cuda" else f", {torch.get_num_threads()} threads"
        return f"{kind}{threads}, {self.size} process{'es' if self.size > 1 else ''}"

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, raised where any rank raises it. Goes through the processors, so no device is waited for."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in raised.tolist())

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Adds the gradients of all ranks up, in one message."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def least(self, value: int) -> int:
        """The smallest of the ranks' values."""
        if self.size == 1:
            return value
        held = torch.tensor(value)
        dist.all_reduce(held, op=dist.ReduceOp.MIN)
        return int(held)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The value added up over the ranks."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Waits until every rank is here."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()


def placed() -> Ranks:
    """This process's place, as its environment says."""
    return Ranks(**vars(place(os.environ)))


@contextlib.contextmanager
def joined(ranks: Ranks, store: Any = None) -> Iterator[Ranks]:
    """The process group, while open; `store` is where the ranks meet (None: as the environment says)."""
    if ranks.size == 1:
        yield ranks
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(ranks.local)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=PATIENCE)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def shard(model: Any, ranks: Ranks) -> None:
    """Divides the weights of each decoder block, and of the rest, among the ranks (FSDP2). Accelerate's own switch is
    not used: on processors it silently trains replicas instead, so no test could hold it to its word."""
    mesh = torch.distributed.device_mesh.init_device_mesh(ranks.device.type, (ranks.size,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def blocks(model: Any) -> list[torch.nn.Module]:
    """The decoder's blocks: the longest list of modules that the model holds."""
    lists = [list(m) for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


def check_strategy(model: Any, ranks: Ranks, strategy: Strategy) -> None:
    """Raises RunnerError (70) where the weights do not lie as the strategy says."""
    shards = [isinstance(p, DTensor) for p in model.parameters() if p.requires_grad]
    active = "alone" if ranks.size == 1 else "sharded" if shards and all(shards) else "replicated"
    if active != strategy or (any(shards) and not all(shards)):
        problem = Problem(
            code="train/strategy",
            what=f"Training was to run {strategy} over {ranks.size} processes, but its weights lie {active}.",
            fix="Please report it, with the model's name.",
        )
        raise RunnerError(problem, Exit.BUG)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in full, on the processor; every rank has to ask."""
    full: torch.Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def put(target: torch.Tensor, value: torch.Tensor) -> None:
    """Writes a full tensor into the target, or this rank's part of it."""
    value = value.to(target.device, target.dtype)
    with torch.no_grad():
        if isinstance(target, DTensor):
            value = distribute_tensor(value, target.device_mesh, target.placements)
        target.copy_(value)
