"""The one loop of lora, qlora and full: it can stop at any step and go on from there as if it had not."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from runner.backends.base import CurvePoint, TrainJob, Watch
from runner.backends.local.adapt import recompute
from runner.backends.local.checkpoints import Checkpoints, Quarantined
from runner.backends.local.device import compute_dtype
from runner.backends.local.encoded import EncodedRows
from runner.backends.local.generate import held_out_loss, packed_rows
from runner.backends.local.head import answer_losses
from runner.backends.local.optimizer import Optimizer
from runner.backends.local.pack import pack
from runner.backends.local.ranks import Ranks, Strategy
from runner.backends.local.state import State
from runner.backends.local.steps import Steps, divide, learning_rate
from runner.errors import Exit, Interrupted, Problem, RunnerError

LOOKS = 5
LOG_STEPS_GPU = 10  # between two logging steps nothing waits for the device
SAVE_SECONDS = 30.0
SAVE_SHARE = 0.02  # of the time, at most, goes into checkpoints that only time asks for
T = TypeVar("T")


class Loop:
    """One training run of the parameters that are open to gradients. `run` begins where the newest good checkpoint is,
    or at the start."""

    def __init__(
        self,
        *,
        model: Any,
        rows: EncodedRows,
        dev: EncodedRows,
        steps: Steps,
        job: TrainJob,
        checkpoints: Checkpoints,
        watch: Watch,
        ranks: Ranks,
        strategy: Strategy,
        most_tokens: int | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ):
        self.model = model
        self.state = State()
        self.steps = steps
        self._has_begun = False
        self.job = job
        self._rows, self._dev = rows, dev
        self._labelled = rows.counts.labelled
        self._checkpoints = checkpoints
        self.strategy = strategy
        self._watch, self._ranks = watch, ranks
        self._is_stopped = is_stopped
        self._most_tokens = most_tokens or sys.maxsize
        self._optimizer = Optimizer(model, job.hyperparameters)
        self._look_steps = job.hyperparameters.eval_steps or math.ceil(steps.num_steps / LOOKS)
        self._log_steps = LOG_STEPS_GPU if ranks.device.type == "cuda" else 1
        self._loss = torch.zeros((), device=ranks.device)
        self._seen_tokens = 0
        self._saved_at, self._save_cost = time.perf_counter(), 0.0
        self._saved_step = -1

    def run(self) -> None:
        """Trains to the end, or until the dev loss stops falling; the best weights are then in the model.

        Raises Interrupted, with a checkpoint saved, when asked to stop, and RunnerError when the loss is no number.
        """
        if not self._has_begun:
            self._restore()
            self.state.go_on_with(self._ranks.computer)
            self._show_restored()
            self._has_begun = True
        started, before = time.perf_counter(), self.state.seconds
        with self._watch.progress("train", self.steps.num_steps) as progress, self._computing():
            if self.state.step:
                progress.advance(self.state.step)
            try:
                while True:
                    if self._look_is_due():
                        self._look()
                    self.state.seconds = before + time.perf_counter() - started
                    if self.is_finished:
                        break
                    self._step()
                    self.state.seconds = before + time.perf_counter() - started
                    stop = self._finish_step()
                    progress.advance(1, **self._shown(time.perf_counter() - started))
                    if stop:
                        raise Interrupted("train")
            except Interrupted:
                self.save()
                raise
        self._use_best()

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or the dev loss has not fallen for so long that more would do no good."""
        return self.state.step >= self.steps.num_steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether training ended because the dev loss stopped falling."""
        patience = self.job.hyperparameters.early_stopping_patience
        return patience is not None and self.state.looks_without_better >= patience

    @property
    def quarantined(self) -> list[Quarantined]:
        """Checkpoints that were damaged."""
        return self._checkpoints.quarantined

    @property
    def is_sharded(self) -> bool:
        """Whether the ranks need one another for every pass."""
        return self.strategy == "sharded"

    def use_room(self, tokens: int, activation_checkpointing: bool) -> None:
        """How many tokens a micro-batch holds from now on, and whether its activations are computed twice."""
        self.state.micro_batch_tokens, self.state.activation_checkpointing = tokens, activation_checkpointing
        recompute(self.model, activation_checkpointing)

    def make_room(self, tokens: int, activation_checkpointing: bool) -> None:
        """After memory ran out in the middle of a step: lets go of it, saves the last whole step, and will go on from
        there in smaller micro-batches."""
        self._optimizer.forget()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.use_room(tokens, activation_checkpointing)
        self.save()

    def save(self) -> None:
        """Writes a checkpoint of this step; every rank has to take part."""
        if self._saved_step == self.state.step:
            return
        started = time.perf_counter()
        self._fold_loss()
        if not math.isfinite(self.state.unlogged_loss):
            raise _diverged(self.state.step, self.job.hyperparameters.learning_rate)
        parts = {"weights": self._optimizer.weights(), "optimizer": self._optimizer.moments()}
        if self._ranks.rank == 0:
            self._checkpoints.save(self.state.step, parts, self.state.to_json(), needs=self._best_name())
            self._watch.saved("step", self.state.step)
        self._ranks.wait()
        self._saved_step, self._saved_at = self.state.step, time.perf_counter()
        self._save_cost = self._saved_at - started

    def _restore(self) -> None:
        """Goes back to the newest good checkpoint, where there is one."""
        found = self._in_turn(self._checkpoints.latest)
        if found is None:
            return
        again = self.state.activation_checkpointing  # what this machine needs, whichever one saved
        self.state = State.of(found.state)
        tokens = min(self.state.micro_batch_tokens, self._most_tokens)
        self.use_room(tokens, self.state.activation_checkpointing or again)
        self.state.resumed_from.append(found.step)
        self._saved_step = found.step
        self._optimizer.put_weights(found.tensors("weights"))
        self._optimizer.put_moments(found.tensors("optimizer"), found.step)

    def _in_turn(self, read: Callable[[], T]) -> T:
        """Reads on rank 0 first: it moves away what is damaged."""
        if self._ranks.rank > 0:
            self._ranks.wait()
            return read()
        found = read()
        self._ranks.wait()
        return found

    def _step(self) -> None:
        """One optimizer step over all ranks: the loss is that of every labelled token of the step, evenly."""
        state, ranks = self.state, self._ranks
        rows = self.steps.rows(state.step)
        num_labels = int(self._labelled[rows].sum())
        torch.manual_seed(hash((self.job.seed, state.step, ranks.rank)) % 2**63)
        self.model.train()
        loss = torch.zeros_like(self._loss)
        for some, weight in self._micro_batches(rows):
            self._watch.check()
            losses = self.losses(some).sum() * (weight / num_labels)
            (losses * (ranks.size if self.is_sharded else 1)).backward()  # shards are averaged
            loss += losses.detach()
        if self.strategy == "replicated":
            ranks.sum_gradients(self._optimizer.parameters)
        self._optimizer.update(learning_rate(state.step, self.steps.num_steps, self.job.hyperparameters))
        self._loss += ranks.sum(loss)
        state.step += 1
        state.unlogged_steps += 1
        self._seen_tokens += int(self.steps.lengths[rows].sum())

    def losses(self, some: Sequence[int]) -> torch.Tensor:
        """The loss of every labelled token of these rows, in one pack (N,)."""
        device = self._ranks.device
        self.model.rows_in_pack = len(some)
        batch = pack([self._rows[int(row)] for row in some])
        return answer_losses(self.model, {name: value.to(device, non_blocking=True) for name, value in batch.items()})

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """On packed rows; weights that are trained themselves are kept in float32, and computed with in the machine's
        own format. Autocast must not keep copies: it would go on with those of weights that have since been updated."""
        lower = self.job.method == "full" and compute_dtype() != torch.float32
        with (
            torch.autocast(self._ranks.device.type, dtype=compute_dtype(), enabled=lower, cache_enabled=False),
            packed_rows(self.model),
        ):
            yield

    def try_out(self, some: Sequence[int]) -> None:
        """One forward and backward pass over these rows, which changes nothing."""
        self.model.train()
        try:
            with self._computing():
                self.losses(some).sum().backward()
        finally:
            self._optimizer.forget()

    def _micro_batches(self, rows: Any) -> Iterator[tuple[Any, float]]:
        """This rank's packs and what each counts. Where weights are sharded every rank has to go through the model
        equally often: one with fewer packs repeats a row that counts nothing."""
        room = self.state.micro_batch_tokens if self.job.hyperparameters.packing else 0
        shares = divide(rows, self.steps.lengths, self._ranks.size, room)
        mine = shares[self._ranks.rank]
        yield from ((some, 1.0) for some in mine)
        if self.is_sharded:
            yield from [(rows[:1], 0.0)] * (max(map(len, shares)) - len(mine))

    def _finish_step(self) -> bool:
        """Logs and saves where it is time; says whether to stop."""
        state = self.state
        if state.step % self._log_steps == 0 or state.step == self.steps.num_steps:
            self._log()
        stop, due = self._ranks.any(self._is_stopped(), self._save_is_due())
        if due and not stop and state.step < self.steps.num_steps:
            self.save()
        return stop

    def _save_is_due(self) -> bool:
        every = self.job.checkpoint.every_steps
        if every is not None:
            return self.state.step % every == 0
        return time.perf_counter() - self._saved_at > max(SAVE_SECONDS, self._save_cost / SAVE_SHARE)

    def _fold_loss(self) -> None:
        """Fetches the loss that has gathered on the device."""
        self.state.unlogged_loss += float(self._loss)
        self._loss.zero_()

    def _log(self) -> None:
        state = self.state
        self._fold_loss()
        loss = state.unlogged_loss / state.unlogged_steps
        if not math.isfinite(loss):
            raise _diverged(state.step, self.job.hyperparameters.learning_rate)
        state.unlogged_loss, state.unlogged_steps = 0.0, 0
        rate = learning_rate(state.step - 1, self.steps.num_steps, self.job.hyperparameters)
        self._add(CurvePoint(step=state.step, loss=loss, learning_rate=rate))

    def _add(self, point: CurvePoint) -> None:
        self.state.points.append(point)
        self._tell(point)

    def _tell(self, point: CurvePoint) -> None:
        names = {"train/loss": point.loss, "train/dev_loss": point.dev_loss, "train/learning_rate": point.learning_rate}
        self._watch.log({name: value for name, value in names.items() if value is not None}, point.step)

    def _show_restored(self) -> None:
        """The tracker of this attempt gets the curve of the earlier ones."""
        if self.state.resumed_from:
            self._watch.say(f"Going on from the checkpoint of step {self.state.resumed_from[-1]:,}.")
        for point in self.state.points:
            self._tell(point)

    def _look_is_due(self) -> bool:
        step = self.state.step
        return not self.state.has_looked and (step % self._look_steps == 0 or step == self.steps.num_steps)

    def _look(self) -> None:
        """The dev loss; the best weights so far are kept on disk."""
        state = self.state
        loss = self._dev_loss()
        if not math.isfinite(loss):
            raise _diverged(state.step, self.job.hyperparameters.learning_rate)
        self._add(CurvePoint(step=state.step, dev_loss=loss))
        if state.step and state.is_better(loss):
            self._keep_best()

    def _dev_loss(self) -> float:
        """Replicas look at a part of the rows each; shards need one another for every row."""
        ranks = self._ranks
        if self.strategy != "replicated" or len(self._dev) < ranks.size:
            return held_out_loss(self.model, self._dev, self._watch).mean
        found = held_out_loss(self.model, self._dev[ranks.rank :: ranks.size], self._watch)
        total, count = ranks.sum(torch.tensor([found.mean * found.num_tokens, found.num_tokens], dtype=torch.float64))
        return float(total / count)

    def _keep_best(self) -> None:
        if self.state.step == self.steps.num_steps:
            return  # they are in the model and stay there
        weights = self._optimizer.weights()
        if self._ranks.rank == 0:
            self._checkpoints.save_weights(_best_name(self.state.step), weights)
        self._ranks.wait()

    def _best_name(self) -> str | None:
        best = self.state.best_step
        return None if best is None or best == self.steps.num_steps else _best_name(best)

    def _use_best(self) -> None:
        """Puts the weights with the lowest dev loss back, where later ones were worse."""
        best = self.state.best_step
        if best is None or best == self.state.step:
            return
        weights = self._in_turn(lambda: self._checkpoints.weights(_best_name(best)))
        if weights is None:
            raise RunnerError(
                Problem(
                    code="train/best-lost",
                    what=f"The best weights, of step {best:,}, were damaged on disk while training went on.",
                    fix="Check the disk, and run the same command again: it goes on from a checkpoint before them.",
                ),
                Exit.IO,
            )
        self._optimizer.put_weights(weights)

    def _shown(self, seconds: float) -> dict[str, float | str]:
        latest = {name: self.state.latest(name) for name in ("loss", "dev_loss")}
        known = {name: round(value, 4) for name, value in latest.items() if value is not None}
        return {"tok_s": round(self._seen_tokens / seconds), **known}


def _best_name(step: int) -> str:
    return f"best-{step:06d}"


def _diverged(step: int, learning_rate: float) -> RunnerError:
    return RunnerError(
        Problem(
            code="train/diverged",
            what=f"The loss is no longer a number at step {step}, with learning rate {learning_rate:g}.",
            fix="Lower hyperparameters.learning_rate (a tenth is a good next try).",
        ),
        Exit.MANIFEST,
    )
