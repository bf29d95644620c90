"""lora, qlora and full from a job to a delivered model: what is trained, in how much memory, step by step, and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from runner.backends.base import TrainedModel, Watch
from runner.backends.local.adapt import add_noise, check_attention, prepare, share_moved
from runner.backends.local.checkpoints import Checkpoints
from runner.backends.local.deliver import deliver_weights, weights_hash, write_outcome
from runner.backends.local.device import compute_dtype
from runner.backends.local.findings import resumed, training_findings
from runner.backends.local.loop import Loop
from runner.backends.local.memory import MemoryPlan, PeakMeter, halved, is_out_of_memory
from runner.backends.local.ranks import Ranks, Strategy, check_strategy, shard, whole
from runner.backends.local.ranks.job import RankJob
from runner.backends.local.room import find_room, memory_use, noted, remember
from runner.backends.local.steps import make_steps
from runner.errors import Exit, Problem, RunnerError

KEPT = "checkpoints"


def train(
    model: Any, tokenizer: Any, told: RankJob, watch: Watch, ranks: Ranks, is_stopped: Callable[[], bool]
) -> tuple[Any, TrainedModel]:
    """The trained model (an adapter around the same weights, or the weights themselves) and what training did; rank 0
    leaves the model's files and, last, a note that the job is done.

    Raises RunnerError when the loss stops being a number or memory is too small, and Interrupted, with a checkpoint
    saved, when asked to stop.
    """
    job, hyper = told.job, told.job.hyperparameters
    rows, dev = told.rows, told.dev
    check_attention(model, int(max(rows.counts.total.max(), dev.counts.total.max())))
    torch.manual_seed(job.seed)
    if job.method == "full":
        model.float()  # bf16 swallows the small updates of a full tune
    model = prepare(model, job.method, hyper)
    add_noise(model, hyper.neftune_alpha)
    strategy = _strategy(job.method, ranks)
    if strategy == "sharded":
        shard(model, ranks)
    check_strategy(model, ranks, strategy)
    steps = make_steps(rows.counts.total, hyper, job.seed)
    checkpoints = Checkpoints(job.work_dir / KEPT, told.name, job.checkpoint.keep)
    with PeakMeter() as meter:
        loop = Loop(
            model=model,
            rows=rows,
            dev=dev,
            steps=steps,
            job=job,
            checkpoints=checkpoints,
            watch=watch,
            ranks=ranks,
            strategy=strategy,
            most_tokens=noted(job.work_dir).get("micro_batch_tokens"),
            is_stopped=is_stopped,
        )
        plan = find_room(loop, told, ranks)
        loop.use_room(plan.micro_batch_tokens, plan.activation_checkpointing)
        plan = _run(loop, plan, int(rows.counts.total.max()), ranks)
    if job.method == "full":
        model.to(compute_dtype())
    trained = _outcome(model, told, loop, plan, meter.bytes, ranks)
    weights = None
    if loop.is_sharded:
        weights = {name: whole(value) for name, value in model.state_dict().items()}
    if ranks.rank == 0:
        deliver_weights(model, tokenizer, job.model_dir, weights)
        trained = replace(trained, weights_sha256=weights_hash(job.model_dir))
        write_outcome(job.work_dir, told.name, trained)
        watch.saved("step", trained.num_steps)
        checkpoints.clear()
    ranks.wait()
    model.eval()
    return model, trained


def _strategy(method: str, ranks: Ranks) -> Strategy:
    """An adapter is small enough to be had on every rank; a full tune's gradients and moments are not."""
    if ranks.size == 1:
        return "alone"
    return "sharded" if method == "full" else "replicated"


def _run(loop: Loop, plan: MemoryPlan, longest: int, ranks: Ranks) -> MemoryPlan:
    """Trains to the end; where memory runs out on the way, in smaller micro-batches from the last step on, which
    changes nothing but the rounding. Returns the plan that held.

    A rank among several cannot do so alone: it notes what would fit and raises RunnerError (75).
    """
    while True:
        try:
            loop.run()
            return plan
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        plan = halved(_in_use(plan, loop), longest)
        remember(loop.job.work_dir, plan)
        if ranks.size > 1:
            raise RunnerError(
                Problem(
                    code="train/out-of-memory",
                    what=f"The memory of rank {ranks.rank} was full.",
                    fix="Run the same command again: it goes on from the last checkpoint, in smaller micro-batches.",
                ),
                Exit.INTERRUPTED,
            )
        loop.make_room(plan.micro_batch_tokens, plan.activation_checkpointing)


def _in_use(plan: MemoryPlan, loop: Loop) -> MemoryPlan:
    """The plan with the micro-batches that the loop has: those of the checkpoint that it went on from."""
    state = loop.state
    return replace(
        plan,
        micro_batch_tokens=state.micro_batch_tokens,
        activation_checkpointing=state.activation_checkpointing,
    )


def _outcome(
    model: Any,
    told: RankJob,
    loop: Loop,
    plan: MemoryPlan,
    peak_bytes: int | None,
    ranks: Ranks,
) -> TrainedModel:
    state, steps, counts = loop.state, loop.steps, told.rows.counts
    losses = [point.loss for point in state.points if point.loss is not None]
    looks = {point.step: point.dev_loss for point in state.points if point.dev_loss is not None}
    best = state.best_step if state.best_step is not None else state.step
    tokens = steps.tokens(0, state.step)
    curve = tuple(state.points)
    return TrainedModel(
        method=told.method,
        model_dir=str(told.job.model_dir),
        num_parameters=sum(p.numel() for p in model.parameters()),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(ranks.device),
        num_steps=state.step,
        best_step=best,
        stopped_early=loop.stopped_early and state.step < steps.num_steps,
        epochs=state.step / steps.per_epoch,
        train_tokens=tokens,
        labelled_tokens=sum(int(counts.labelled[steps.rows(step)].sum()) for step in range(state.step)),
        train_seconds=state.seconds,
        tokens_per_second=tokens / max(state.seconds, 1e-9),
        final_loss=losses[-1],
        dev_loss=looks[best],
        curve=curve,
        moved_adapters=share_moved(model),
        num_processes=ranks.size,
        strategy=loop.strategy,
        memory=memory_use(_in_use(plan, loop), peak_bytes),
        resumed_from=tuple(state.resumed_from),
        weights_sha256="",
        findings=(
            *training_findings(curve, best_step=best, stopped_early=loop.stopped_early, num_steps=steps.num_steps),
            *resumed(state.resumed_from, loop.quarantined, state.computed_on),
        ),
    )
