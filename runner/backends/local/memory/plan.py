"""The micro-batch that fits: by the formula, then by a measured step.

Running out of memory while probing does no harm on a GPU; elsewhere the system would end the process, so what the
formula rules out is not tried.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from runner.backends.local.memory.meter import Meter, PeakMeter
from runner.backends.local.memory.shape import FP32, Shape, estimate
from runner.errors import Exit, Problem, RunnerError, Where

FILL = 0.9  # of what is there; the rest is for fragments, and rows that do not pack as the average does
PROBE_FACTOR = 4  # the second probe, in times of the longest row
WORTH_PROBING = 1.25  # two sizes nearer to each other than this say nothing about a slope
_ROW = Where(key="hyperparameters.max_length")
_SMALLER = "Lower hyperparameters.max_length, use approach.kind: qlora, or take a larger machine."
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "not enough memory")


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How many tokens a micro-batch has, and why: need = `fixed_bytes` + `bytes_per_token` x tokens.

    `measured`: a real step confirmed it. `optimizer_bytes` (gradients and moments) are part of `fixed_bytes` and are
    added to what a probe measures; set it to 0 where they exist before the probe. `bytes_per_token` 0 is unknown.
    """

    available_bytes: int | None
    estimate_bytes: int
    fixed_bytes: int
    bytes_per_token: float
    micro_batch_tokens: int
    activation_checkpointing: bool
    measured: bool
    optimizer_bytes: int = 0

    @property
    def fits(self) -> bool | None:
        """Whether a micro-batch should fit; None where nobody knows how much there is."""
        return None if self.available_bytes is None else self.estimate_bytes <= self.available_bytes


def plan_memory(
    shape: Shape,
    method: str,
    *,
    longest: int,
    labelled_share: float,
    step_tokens: int,
    available: int | None,
    weight_bytes: int,
    base_bytes: int = 0,
    logits_bytes: int | None = None,
    activation_checkpointing: bool | None = None,
) -> MemoryPlan:
    """The plan by the formula alone, before the weights are loaded; it may not fit (`fits`), which a probe settles.

    `base_bytes` is what the process holds before (`held_bytes`). Activations are recomputed only where the longest row
    does not fit otherwise, unless `activation_checkpointing` says so. Unknown memory gives the smallest micro-batch.
    """

    def need(tokens: int, again: bool) -> int:
        return base_bytes + estimate(
            shape,
            method,
            tokens=tokens,
            labelled_tokens=math.ceil(labelled_share * tokens),
            weight_bytes=weight_bytes,
            activation_checkpointing=again,
            logits_bytes=logits_bytes,
        )

    again = activation_checkpointing
    if again is None:
        again = available is not None and need(longest, False) > available
    low, high = longest, max(longest, step_tokens) if available is not None else longest
    while low < high:
        middle = (low + high + 1) // 2
        fits = need(middle, again) <= FILL * (available or 0)
        low, high = (middle, high) if fits else (low, middle - 1)
    fixed, whole = need(0, again), need(low, again)
    return MemoryPlan(
        available_bytes=available,
        estimate_bytes=whole,
        fixed_bytes=fixed,
        bytes_per_token=(whole - fixed) / low,
        micro_batch_tokens=low,
        activation_checkpointing=again,
        measured=False,
        optimizer_bytes=3 * FP32 * shape.trainable_parameters,
    )


@dataclass(frozen=True, kw_only=True)
class _Point:
    tokens: int
    bytes: int | None


@dataclass(frozen=True, kw_only=True)
class _Line:
    fixed: float
    per_token: float

    def at(self, tokens: int) -> float:
        return self.fixed + self.per_token * tokens

    def tokens_in(self, room: float) -> int:
        return math.floor(max(0.0, room - self.fixed) / self.per_token)


def probe(
    run: Callable[[int], int],
    first: MemoryPlan,
    *,
    longest: int,
    step_tokens: int,
    meter: Callable[[], Meter] = PeakMeter,
) -> MemoryPlan:
    """The plan after real steps: at the longest row, and at a larger size where that decides anything.

    `run(tokens)` does one forward and backward pass on about so many, frees the gradients, and returns how many they
    were. If the longest row does not fit, the plan comes back with activation checkpointing on and unmeasured: switch
    it on and probe again. Raises RunnerError (train/too-long-for-memory) when that does not help either.
    One probe is enough where, by the formula's slope, a whole step needs less than half of what is there: that is safe
    as long as the formula is not wrong by more than a factor of two.
    """
    available, cap = first.available_bytes, max(longest, step_tokens)
    if first.fits is False and not torch.cuda.is_available():  # there the system would end the process
        return _with_checkpointing(first, longest, _too_long(longest, first.estimate_bytes, available))
    one = _measure(run, longest, meter)
    if one is None or (one.bytes is not None and available and one.bytes + first.optimizer_bytes > available):
        need = first.estimate_bytes if one is None or one.bytes is None else one.bytes + first.optimizer_bytes
        return _with_checkpointing(first, longest, _too_long(longest, need, available))
    if one.bytes is None:
        return first
    points = [(one.tokens, one.bytes + first.optimizer_bytes)]
    line = _fit(points, first.bytes_per_token)
    if available and cap > one.tokens and line.at(cap) > available / 2:
        steeper = _fit(points, 2 * first.bytes_per_token)  # a CPU's probe that does not fit ends the process
        size = min(cap, PROBE_FACTOR * longest, steeper.tokens_in(FILL * available))
        two, cap = _measure_below(run, size, one.tokens, cap, meter)
        if two is not None and two.bytes is not None:
            points.append((two.tokens, two.bytes + first.optimizer_bytes))
            line = _fit(points, first.bytes_per_token / 2)
    return _filled(first, line, longest, cap)


def halved(plan: MemoryPlan, longest: int) -> MemoryPlan:
    """The next plan to try when memory ran out during the run: half the micro-batch, at least the longest row; there,
    activation checkpointing (to be probed again). Raises RunnerError (train/out-of-memory) when all that is used up."""
    if plan.micro_batch_tokens > longest:
        tokens = max(longest, plan.micro_batch_tokens // 2)
        need = math.ceil(plan.fixed_bytes + plan.bytes_per_token * tokens)
        return replace(plan, micro_batch_tokens=tokens, estimate_bytes=need)
    what = f"Memory ran out during training, with a single row of {longest:,} tokens at a time."
    return _with_checkpointing(plan, longest, Problem(code="train/out-of-memory", what=what, where=_ROW, fix=_SMALLER))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch's error on a GPU, Python's own, or that of torch's CPU allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _measure(run: Callable[[int], int], tokens: int, meter: Callable[[], Meter]) -> _Point | None:
    """What one real step took; None when memory ran out, which is free again then."""
    try:
        with meter() as peak:
            used = run(tokens)
        return _Point(tokens=used, bytes=peak.bytes)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()  # only here: while the error is caught, its traceback holds the tensors
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _measure_below(
    run: Callable[[int], int], size: int, known: int, cap: int, meter: Callable[[], Meter]
) -> tuple[_Point | None, int]:
    """A second step larger than the `known` one, and the cap: after running out of memory, what was seen to fit."""
    while size >= WORTH_PROBING * known:
        point = _measure(run, size, meter)
        if point is not None:
            return (point if point.tokens > known else None), cap if cap > known else point.tokens
        size, cap = (known + size) // 2, known
    return None, cap


def _fit(points: Sequence[tuple[int, int]], least: float) -> _Line:
    """The line through the measured (tokens, bytes), at or above each; its slope is at least `least`, since a peak that
    something else dominates shows none. Without any slope all is charged to the tokens, which is always enough."""
    (tokens, size), (more, larger) = points[0], points[-1]
    slope = max(least, (larger - size) / (more - tokens) if more > tokens else 0.0)
    if slope <= 0:
        slope = larger / more
    return _Line(fixed=max(0.0, *(b - slope * t for t, b in points)), per_token=slope)


def _filled(first: MemoryPlan, line: _Line, longest: int, cap: int) -> MemoryPlan:
    room = 0.0 if first.available_bytes is None else FILL * first.available_bytes
    tokens = max(longest, min(cap, line.tokens_in(room)))
    return replace(
        first,
        estimate_bytes=math.ceil(line.at(tokens)),
        fixed_bytes=math.ceil(line.fixed),
        bytes_per_token=line.per_token,
        micro_batch_tokens=tokens,
        measured=True,
    )


def _with_checkpointing(plan: MemoryPlan, longest: int, otherwise: Problem) -> MemoryPlan:
    if plan.activation_checkpointing:
        raise RunnerError(otherwise, Exit.MANIFEST)
    return replace(
        plan,
        estimate_bytes=plan.fixed_bytes,  # at least; the slope of recomputed activations is not known here
        bytes_per_token=0.0,
        micro_batch_tokens=longest,
        activation_checkpointing=True,
        measured=False,
    )


def _too_long(longest: int, need: int, available: int | None) -> Problem:
    there = "" if available is None else f", and {available / 1e9:.1f} GB are there"
    what = f"Training on the longest row, {longest:,} tokens, needs about {need / 1e9:.1f} GB{there}."
    return Problem(code="train/too-long-for-memory", what=what, where=_ROW, fix=_SMALLER)
