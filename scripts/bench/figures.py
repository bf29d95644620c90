"""Figures beside their bars: rounds of interleaved arms, ratios with their spread, and what to say of each."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

Result = Mapping[str, Any]  # what an arm measured, as plain values
Rounds = list[dict[str, list[Result]]]  # of each round: an arm's results, two for one that ran twice

LOSS_TOLERANCE = 0.02  # of the first step's loss: bf16 against float32


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A figure of the issue's table and what it has to reach; `aim` is what was hoped for beyond it."""

    name: str
    value: float
    baseline: str
    unit: str = "x"
    at_most: bool = False
    aim: float | None = None


BARS = {
    "cpu-train": Bar(
        name="CPU, embedded model, quickstart rows, LoRA: trained tokens/s", value=3.0, baseline="stock TRL"
    ),
    "cpu-busy": Bar(
        name="CPU, beside a neighbour of as many spinning threads as cores: training steps/s over the quiet speed",
        value=0.8,
        baseline="the fair share of it",
    ),
    "cpu-eval": Bar(name="CPU, base and tuned evaluation", value=2.0, baseline="two loads, padded generate, batch 8"),
    "gpu-chat": Bar(name="GPU, 8B LoRA, chat lengths: real tokens/s", value=3.4, baseline="stock TRL, batch 8"),
    "gpu-long": Bar(name="GPU, 8B LoRA, full 4k rows: tokens/s", value=1.7, baseline="stock TRL, batch 8"),
    "gpu-mfu": Bar(
        name="GPU, 8B LoRA, model-FLOPs utilisation at 4k", value=0.50, baseline="989 TFLOP/s", unit="", aim=0.56
    ),
    "gpu-qlora": Bar(name="GPU, QLoRA over own LoRA, >= 8k tokens a micro-batch", value=0.95, baseline="own LoRA"),
    "gpu-full": Bar(
        name="GPU, 1B full, of the measured matmul rate", value=0.50, baseline="8192^3 bf16", unit="", aim=0.57
    ),
    "gpu-peak": Bar(
        name="GPU, 8B LoRA, 8 chat rows: peak memory", value=0.4, baseline="stock TRL, batch 8", at_most=True
    ),
    "gpu-eval": Bar(name="GPU, base and tuned evaluation", value=8.0, baseline="two loads, padded generate, batch 8"),
    "gpu-memory": Bar(
        name="GPU, memory estimate error", value=0.05, baseline="max_memory_allocated", unit="", at_most=True
    ),
    "cpu-memory": Bar(name="CPU, memory estimate error", value=0.05, baseline="peak resident", unit="", at_most=True),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was measured for a bar, one value a round; without values, `reason` says why. `noise` are ratios of one arm
    to itself in the same rounds: a difference inside their spread is none."""

    bar: str
    values: tuple[float, ...] = ()
    noise: tuple[float, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    toy: bool = False

    @property
    def verdict(self) -> str:
        """met, not met, or not measured with the reason; the median of the rounds decides."""
        if self.toy:
            return "not measured: a toy run, which only shows that it works"
        if not self.values:
            return f"not measured: {self.reason or 'no round ended'}"
        found, bar = median(self.values), BARS[self.bar]
        if math.isnan(found):
            return "not measured: the figure is no number"
        return "met" if (found <= bar.value if bar.at_most else found >= bar.value) else "not met"


def in_rounds(order: Sequence[str], num_rounds: int, run: Callable[[str], Result]) -> Rounds:
    """Runs the arms in turn, every second round backwards, so that a drift of the machine falls on all alike."""
    rounds: Rounds = []
    for number in range(num_rounds):
        found: dict[str, list[Result]] = {}
        for name in order if number % 2 == 0 else reversed(order):
            found.setdefault(name, []).append(run(name))
        rounds.append(found)
    return rounds


def rate(results: Sequence[Result]) -> float:
    """Real tokens per second over the timed steps of all these results."""
    return float(sum(sum(r["tokens"]) for r in results) / sum(sum(r["seconds"]) for r in results))


def ratios(rounds: Rounds, ours: str, theirs: str, of: Callable[[Sequence[Result]], float] = rate) -> tuple[float, ...]:
    """Ours over theirs, round by round; rounds that lack either are left out."""
    whole = [(good(found.get(ours)), good(found.get(theirs))) for found in rounds]
    return tuple(of(mine) / of(other) for mine, other in whole if mine and other)


def noise(rounds: Rounds, name: str, of: Callable[[Sequence[Result]], float] = rate) -> tuple[float, ...]:
    """The first run of an arm over its second, in each round where both ended."""
    pairs = [good(found.get(name)) for found in rounds]
    return tuple(of(pair[:1]) / of(pair[1:]) for pair in pairs if len(pair) == 2)


def good(results: Sequence[Result] | None) -> list[Result]:
    """The results of runs that ended."""
    return [result for result in results or () if "failed" not in result]


def failures(rounds: Rounds, *names: str) -> str:
    """Why arms did not end, each reason once."""
    every = [(n, r["failed"]) for found in rounds for n in names for r in found.get(n, ()) if "failed" in r]
    return "; ".join(dict.fromkeys(f"{name}: {reason}" for name, reason in every))


def compare_losses(rounds: Rounds, ours: str, theirs: str) -> str:
    """Whether both arms had the same loss at the first step, which says that they trained on the same tokens."""
    firsts = [[r["losses"][0] for r in good(rounds[0].get(name))] for name in (ours, theirs)]
    if not all(firsts):
        return "first-step loss: not compared"
    mine, other = firsts[0][0], firsts[1][0]
    same = abs(mine - other) <= LOSS_TOLERANCE * abs(other)
    return f"first-step loss: {ours} {mine:.4f}, {theirs} {other:.4f}: {'equal' if same else 'DIFFERENT'}"


def show_spread(values: Sequence[float], unit: str = "") -> str:
    """Least, median and most."""
    parts = (min(values), median(values), max(values)) if values else ()
    return " / ".join(f"{part:.3g}{unit}" if part < 1 else f"{part:.2f}{unit}" for part in parts)


def show(lines: Sequence[Line]) -> str:
    """The table: each bar with its figure, the noise and the verdict, notes below."""
    shown = []
    for line in lines:
        bar = BARS[line.bar]
        limit = f"{'<=' if bar.at_most else '>='} {bar.value:g}{bar.unit}" + (f" (aim {bar.aim:g})" if bar.aim else "")
        shown += [bar.name, f"    bar {limit}, against {bar.baseline}"]
        spread = f"{show_spread(line.values, bar.unit)} (least / median / most of {len(line.values)})"
        shown += [f"    {spread}: {line.verdict}" if line.values else f"    {line.verdict}"]
        shown += [f"    noise, one arm over itself: {show_spread(line.noise, 'x')}"] if line.noise else []
        shown += [f"    {note}" for note in line.notes if note]
    return "\n".join(shown)


def machine() -> dict[str, Any]:
    """Where and when: without these, absolute figures mean nothing."""
    from bench.rows import local_backend

    facts = dict(local_backend().environment())
    return {**facts, "date": time.strftime("%Y-%m-%d %H:%M"), "load": [round(n, 2) for n in os.getloadavg()]}


def write_json(path: Path, lines: Sequence[Line], rounds: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Everything that was measured, as plain values."""
    bars = [{**asdict(BARS[line.bar]), **asdict(line), "verdict": line.verdict} for line in lines]
    path.write_text(json.dumps({"machine": facts, "bars": bars, "rounds": rounds}, indent=1) + "\n")
