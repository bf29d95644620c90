"""How large a micro-batch this machine has room for: by the formula, then by a real step."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runner.backends.base import Hyperparameters, MemoryUse
from runner.backends.local.adapt import recompute
from runner.backends.local.device import compute_dtype
from runner.backends.local.launch import RankJob
from runner.backends.local.loop import Loop
from runner.backends.local.memory import (
    MemoryPlan,
    Shape,
    available_bytes,
    estimate,
    held_bytes,
    plan_memory,
    probe,
    shape_of,
)
from runner.backends.local.ranks import Ranks
from runner.backends.local.steps import make_steps

NOTE = "memory.json"


def find_room(loop: Loop, told: RankJob, ranks: Ranks) -> MemoryPlan:
    """The plan that a real step on the longest rows confirmed; the same on every rank.

    Raises RunnerError (78) when not even the longest row fits.
    """
    steps, lengths = loop.steps, told.rows.counts.total
    longest = int(max(lengths.max(), told.dev.counts.total.max()))
    step_tokens = math.ceil(max(int(lengths[steps.rows(s)].sum()) for s in range(steps.per_epoch)) / ranks.size)
    shape = expected_shape(loop.model.config, told.method, told.job.hyperparameters)
    plan = None
    while plan is None or not plan.measured:
        again = plan.activation_checkpointing if plan else None
        plan = _by_formula(shape, told, longest, step_tokens, ranks, again)
        recompute(loop.model, plan.activation_checkpointing)
        before = plan
        plan = probe(lambda tokens: _try(loop, lengths, tokens), plan, longest=longest, step_tokens=step_tokens)
        if plan.activation_checkpointing == before.activation_checkpointing:
            break  # measured, or nobody can measure here
    tokens = max(longest, min(plan.micro_batch_tokens, noted(told.job.work_dir) or plan.micro_batch_tokens))
    return replace(plan, micro_batch_tokens=ranks.least(tokens))


def expected_shape(config: Any, method: str, hyper: Hyperparameters) -> Shape:
    """The shape of the model and of what is trained on it."""
    return shape_of(
        config,
        method=method,
        rank=hyper.rank,
        target_modules=hyper.target_modules,
        top_layers=hyper.top_layers,
        dora=hyper.dora,
        fused=not (hyper.dora or hyper.dropout),
    )


def _by_formula(
    shape: Shape, told: RankJob, longest: int, step_tokens: int, ranks: Ranks, again: bool | None
) -> MemoryPlan:
    """What the formula says, the weights, gradients and moments that are there already counted once."""
    counts, available, weight_bytes = told.rows.counts, available_bytes(), compute_dtype().itemsize
    there = estimate(
        shape, told.method, tokens=0, labelled_tokens=0, weight_bytes=weight_bytes, activation_checkpointing=False
    )
    shared = 1 if available is None or torch.cuda.is_available() else ranks.size
    plan = plan_memory(
        shape,
        told.method,
        longest=longest,
        labelled_share=float(counts.labelled.sum() / counts.total.sum()),
        step_tokens=step_tokens,
        available=None if available is None else available // shared,
        weight_bytes=weight_bytes,
        base_bytes=max(0, held_bytes() - there),
        activation_checkpointing=again,
    )
    return replace(plan, optimizer_bytes=0)


def expect(config: Any, method: str, hyper: Hyperparameters, total: np.ndarray, labelled: np.ndarray) -> MemoryUse:
    """What training should take, before any weights are loaded; `total` and `labelled` (N,) are tokens of the rows."""
    steps = make_steps(total, hyper, seed=0)
    plan = plan_memory(
        expected_shape(config, method, hyper),
        method,
        longest=int(total.max()),
        labelled_share=float(labelled.sum() / total.sum()),
        step_tokens=int(total.sum() / steps.per_epoch),
        available=available_bytes(),
        weight_bytes=compute_dtype().itemsize,
        base_bytes=held_bytes(),
    )
    return MemoryUse(
        available_bytes=plan.available_bytes,
        estimate_bytes=plan.estimate_bytes,
        peak_bytes=None,
        measured=False,
        micro_batch_tokens=plan.micro_batch_tokens,
        activation_checkpointing=plan.activation_checkpointing,
    )


def remember(folder: Path, plan: MemoryPlan) -> None:
    """Notes for later attempts what a run that ran out of memory should have kept to."""
    (folder / NOTE).write_text(json.dumps({"micro_batch_tokens": plan.micro_batch_tokens}))


def noted(folder: Path) -> int | None:
    """What `remember` noted."""
    with suppress(OSError, ValueError, LookupError):
        return int(json.loads((folder / NOTE).read_text())["micro_batch_tokens"])
    return None


def _try(loop: Loop, lengths: np.ndarray, tokens: int) -> int:
    """A pass over the longest rows, of at least so many tokens together; gives how many."""
    order = np.argsort(-lengths, kind="stable")
    some = order[: int(np.searchsorted(np.cumsum(lengths[order]), tokens)) + 1]
    loop.try_out(some.tolist())
    return int(lengths[some].sum())
