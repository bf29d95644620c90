"""What to know of a training at a glance, and its memory as a bar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.render.headline import Tone

Training = Mapping[str, Any]
DAMAGED = "train/checkpoint-damaged"
LATER: Training = {
    "best_step": None,
    "stopped_early": False,
    "epochs": None,
    "num_processes": 1,
    "strategy": "alone",
    "memory": None,
    "resumed_from": (),
    "weights_sha256": None,
    "findings": (),
}


@dataclass(frozen=True, kw_only=True)
class MemoryBar:
    """Where available, peak and estimated memory end, in percent of the bar's width; None is unknown.

    `free_bytes` is what the peak left of what was available, below zero where it took more; `error` the estimate's, as
    a share of the peak.
    """

    available: float | None
    peak: float | None
    estimate: float
    free_bytes: int | None
    error: float | None


def known(training: Training) -> Training:
    """The report's part on training; what an older report does not tell is None or empty."""
    return {**LATER, **training}


def glance(training: Training) -> Iterator[tuple[str, Tone]]:
    """How training went, in a few words each with its tone."""
    best, last, dev_loss = training["best_step"], training["num_steps"], training["dev_loss"]
    looks = {point["step"]: point["dev_loss"] for point in training["curve"] if point["dev_loss"] is not None}
    if 0 in looks and dev_loss is not None:
        fell = dev_loss < looks[0]
        word = "✓ dev loss fell" if fell else "✗ dev loss did not fall: it went"
        yield f"{word} from {looks[0]:.3f} to {dev_loss:.3f}", "good" if fell else "warn"
    if best is not None and best < last:
        yield f"best step kept: {best:,} of {last:,}", "good"
    if training["stopped_early"]:
        yield f"stopped early, at step {last:,}", "calm"
    if training["resumed_from"]:
        yield f"{_interrupted(len(training['resumed_from']))}, and went on where it was", "calm"
    if damaged := sum(finding["code"] == DAMAGED for finding in training["findings"]):
        yield f"{damaged:,} damaged checkpoint{'' if damaged == 1 else 's'} set aside, nothing lost but time", "calm"


def processes(training: Training) -> str:
    """How many processes trained, and what each had of the model."""
    held = {"replicated": ", each with the whole model", "sharded": ", each with a part of the model"}
    return f"{training['num_processes']:,}{held.get(training['strategy'], '')}"


def memory_bar(memory: Mapping[str, Any]) -> MemoryBar:
    """Available, peak and estimated memory on one scale, which the largest of them fills."""
    available, peak, estimate = (memory[f"{name}_bytes"] for name in ("available", "peak", "estimate"))
    full = max(available or 0, peak or 0, estimate) or 1

    def share(num_bytes: int) -> float:
        return round(100 * num_bytes / full, 2)

    return MemoryBar(
        available=None if available is None else share(available),
        peak=None if peak is None else share(peak),
        estimate=share(estimate),
        free_bytes=None if available is None or peak is None else available - peak,
        error=None if not peak else (estimate - peak) / peak,
    )


def _interrupted(times: int) -> str:
    return {1: "interrupted once", 2: "interrupted twice"}.get(times, f"interrupted {times:,} times")
