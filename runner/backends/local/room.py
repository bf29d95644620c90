"""How large a micro-batch this machine has room for: by the formula, then by a real step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runner.backends.base import Hyperparameters, MemoryUse
from runner.backends.local.adapt import recompute
from runner.backends.local.device import compute_dtype
from runner.backends.local.loop import Loop
from runner.backends.local.memory import (
    MemoryPlan,
    PeakMeter,
    Shape,
    available_bytes,
    estimate,
    held_bytes,
    is_out_of_memory,
    plan_memory,
    probe,
    shape_of,
)
from runner.backends.local.ranks import Ranks
from runner.backends.local.ranks.job import RankJob
from runner.backends.local.steps import make_steps
from runner.files import write_whole

NOTE = "memory.json"


def find_room(loop: Loop, told: RankJob, ranks: Ranks) -> MemoryPlan:
    """The plan that a real step on the longest rows confirmed; the same on every rank.

    Raises RunnerError (78) when not even the longest row fits.
    """
    steps, lengths = loop.steps, told.rows.counts.total
    longest = int(max(lengths.max(), told.dev.counts.total.max()))
    step_tokens = math.ceil(max(int(lengths[steps.rows(s)].sum()) for s in range(steps.per_epoch)) / ranks.size)
    shape = expected_shape(loop.model.config, told.method, told.job.hyperparameters)
    note = noted(told.job.work_dir)
    again = bool(note.get("activation_checkpointing")) or None  # None: the formula decides
    while True:
        expected = _by_formula(shape, told, longest, step_tokens, ranks, again)
        recompute(loop.model, expected.activation_checkpointing)
        plan = probe(
            lambda tokens: _try(loop, lengths, tokens, ranks),
            expected,
            longest=longest,
            step_tokens=step_tokens,
            meter=lambda: _AgreedMeter(ranks),
        )
        if plan.activation_checkpointing == expected.activation_checkpointing:
            break
        again = True  # what has to be computed twice is another plan, and measured anew
    tokens = max(longest, min(plan.micro_batch_tokens, note.get("micro_batch_tokens", plan.micro_batch_tokens)))
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
    counts, weight_bytes = told.rows.counts, compute_dtype().itemsize
    available = _agreed(available_bytes(), ranks, ranks.least)  # ranks that planned differently would wait for ever
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
        base_bytes=max(0, -ranks.least(-held_bytes()) - there),
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
    return memory_use(plan, None)


def memory_use(plan: MemoryPlan, peak_bytes: int | None) -> MemoryUse:
    """A plan as the report tells it, and the most that was taken where that is known."""
    return MemoryUse(
        available_bytes=plan.available_bytes,
        estimate_bytes=plan.estimate_bytes,
        peak_bytes=peak_bytes,
        measured=plan.measured,
        micro_batch_tokens=plan.micro_batch_tokens,
        activation_checkpointing=plan.activation_checkpointing,
    )


def remember(folder: Path, plan: MemoryPlan) -> None:
    """Notes for later attempts what a run that ran out of memory should have kept to."""
    held = {"micro_batch_tokens": plan.micro_batch_tokens, "activation_checkpointing": plan.activation_checkpointing}
    write_whole(folder / NOTE, json.dumps(held))


def noted(folder: Path) -> Mapping[str, int]:
    """What `remember` noted; empty where nothing was."""
    with suppress(OSError, ValueError):
        value = json.loads((folder / NOTE).read_text())
        return value if isinstance(value, dict) else {}
    return {}


class _AgreedMeter(PeakMeter):
    """The largest peak of all ranks."""

    def __init__(self, ranks: Ranks):
        super().__init__()
        self._ranks = ranks

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.bytes = _agreed(self.bytes, self._ranks, lambda value: -self._ranks.least(-value))


def _agreed(value: int | None, ranks: Ranks, of: Callable[[int], int]) -> int | None:
    """One value for all ranks; None where one of them does not know."""
    (unknown,) = ranks.any(value is None)
    return None if unknown or value is None else of(value)


def _try(loop: Loop, lengths: np.ndarray, tokens: int, ranks: Ranks) -> int:
    """A pass over the longest rows, of at least so many tokens together; gives how many. Raises where any rank's memory
    is too small for it."""
    order = np.argsort(-lengths, kind="stable")
    some = order[: int(np.searchsorted(np.cumsum(lengths[order]), tokens)) + 1]
    full = None
    try:
        loop.try_out(some.tolist())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or loop.is_sharded:  # shards wait for one another within the pass
            raise
        full = str(error)
    if ranks.any(full is not None)[0]:
        raise torch.OutOfMemoryError(full or "another rank's memory was full")
    return int(lengths[some].sum())
