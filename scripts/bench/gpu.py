"""The GPU's part: llamas at random, made-up rows, one part of the table at a time, until the time is used up."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import figures, flops, models
from bench.figures import Line, Result, Rounds
from bench.rows import MadeUpRows, chat_lengths
from bench.training import ours_on_made_up, train_with_trl

RANK = 16


class Part:
    """One part's arms on one kind of rows: `batch` rows a step, in every arm the same."""

    def __init__(self, args: argparse.Namespace, *, size: str, lengths: str, batch: int, rank: int = RANK):
        toy = args.toy
        self.size = "toy" if toy else size
        self.longest = (64 if toy else 4096) if lengths == "long" else (64 if toy else 1024)
        self.batch = min(batch, 4) if toy else batch
        self.small = min(8, self.batch)  # rows of a micro-batch of TRL's
        self.options = {
            "method": "lora",
            "warm": args.warm,
            "steps": args.steps,
            "seed": 0,
            "hyper": {"batch_size": self.batch, "max_length": self.longest, "rank": rank, "alpha": 2 * rank},
        }
        count = (args.warm + args.steps) * self.batch
        mean = 24 if toy else 240
        drawn = chat_lengths(count, mean, self.longest) if lengths == "chat" else [self.longest] * count
        self.rows = MadeUpRows(_array(drawn), models.SIZES[self.size]["vocab_size"], all_labelled=lengths == "long")

    def run(self, name: str) -> Result:
        """One arm, on a fresh model; an arm that fails says why."""
        started = time.perf_counter()
        try:
            result = dict(ARMS[name](self))
        except Exception as error:  # whatever a library raises: the other arms go on
            result = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
        models.free()
        shown = result.get("failed") or f"{figures.rate([result]):,.0f} tokens/s"
        print(f"  {name}: {shown} ({time.perf_counter() - started:.0f} s)", flush=True)
        return result


def _array(values: Any) -> Any:
    import numpy as np

    return np.asarray(values)


# --- arms -------------------------------------------------------------------------------------------------


def _ours(part: Part, method: str = "lora") -> Result:
    import torch

    dtype = torch.float32 if method == "full" else models.model_dtype()  # as the session loads them
    model = models.random_model(part.size, dtype)
    if method == "qlora":
        model = models.quantised(model)
        models.free()
    return ours_on_made_up({**part.options, "method": method}, model, part.rows)


def _trl(part: Part, *, packing: bool = False) -> Result:
    """Stock: float32, as a model given by name is loaded. Packing: bf16 weights, packs of the longest row."""
    import torch

    model = models.random_model(part.size, models.model_dtype() if packing else torch.float32)
    extra: dict[str, Any] = {
        "per_device_train_batch_size": part.small,
        "gradient_accumulation_steps": part.batch // part.small,
    }
    if packing:
        tokens = int(part.rows.counts.total[: part.batch].sum())
        width = 64 if part.size == "toy" else 4096
        extra = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": max(1, tokens // width)}
        extra |= {"packing": True, "max_length": width}
    return train_with_trl(part.options, model, models.bare_tokenizer(), part.rows, extra)


ARMS: dict[str, Callable[[Part], Result]] = {
    "ours": _ours,
    "ours, qlora": lambda part: _ours(part, "qlora"),
    "ours, full": lambda part: _ours(part, "full"),
    "trl": _trl,
    "trl, packing": lambda part: _trl(part, packing=True),
}


# --- the parts -------------------------------------------------------------------------------------------------------


def run_part(name: str, args: argparse.Namespace, found: dict[str, Any]) -> list[Line]:
    """Runs one part's rounds and gives its lines; what was measured is left in `found`."""
    part, order = PARTS[name](args)
    missing = [arm for arm in order if _needs(arm) and importlib.util.find_spec(_needs(arm)) is None]
    order = [arm for arm in order if arm not in missing]
    print(f"{name}: {part.batch} rows a step, {int(part.rows.counts.total.sum()):,} tokens in all", flush=True)
    rounds = figures.in_rounds(order, args.rounds, lambda arm: _unless_late(part, arm, args.deadline))
    found[name] = rounds
    absent = "; ".join(dict.fromkeys(f"{_needs(arm)} is not installed" for arm in missing))
    return LINES[name](part, rounds, found, absent)


def _needs(arm: str) -> str:
    return {"trl": "trl", "trl, packing": "trl", "ours, qlora": "bitsandbytes"}.get(arm, "")


def _unless_late(part: Part, arm: str, deadline: float) -> Result:
    return {"failed": "out of time"} if time.perf_counter() > deadline else part.run(arm)


def _against_trl(bar: str) -> Callable[..., list[Line]]:
    def lines(part: Part, rounds: Rounds, found: dict[str, Any], absent: str) -> list[Line]:
        packed = figures.ratios(rounds, "ours", "trl, packing")
        notes = [figures.compare_losses(rounds, "ours", "trl")]
        notes += [f"over TRL with packing, bf16: {figures.show_spread(packed, 'x')}"] if packed else []
        made = [
            Line(
                bar=bar,
                values=figures.ratios(rounds, "ours", "trl"),
                noise=figures.noise(rounds, "ours"),
                reason=absent or figures.failures(rounds, "ours", "trl"),
                notes=tuple(notes),
            )
        ]
        return made + ([_utilisation("gpu-mfu", part, rounds, "ours", flops.H100_PEAK)] if bar == "gpu-long" else [])

    return lines


def _utilisation(bar: str, part: Part, rounds: Rounds, arm: str, peak: float, note: str = "") -> Line:
    """Model FLOP/s over a peak, one value for each run of the arm."""
    from transformers import LlamaConfig

    rank = None if arm == "ours, full" else part.options["hyper"]["rank"]
    need = flops.flop_per_token(LlamaConfig(**models.SIZES[part.size]), part.longest, rank)
    runs = [result for found in rounds for result in figures.good(found.get(arm))]
    return Line(
        bar=bar,
        values=tuple(figures.rate([run]) * need / peak for run in runs),
        noise=figures.noise(rounds, arm),
        reason=figures.failures(rounds, arm),
        notes=(f"{need / 1e9:.3g} GFLOP a token", note),
    )


def _full(part: Part, rounds: Rounds, found: dict[str, Any], absent: str) -> list[Line]:
    peak = found["ceilings"]["matmul_flops"]
    note = f"measured matmul {peak / 1e12:.3g} TFLOP/s"
    return [_utilisation("gpu-full", part, rounds, "ours, full", peak, note)]


def _qlora(part: Part, rounds: Rounds, found: dict[str, Any], absent: str) -> list[Line]:
    runs = [run for found in rounds for run in figures.good(found.get("ours, qlora"))]
    sizes = sorted({run["micro_batch_tokens"] for run in runs})
    return [
        Line(
            bar="gpu-qlora",
            values=figures.ratios(rounds, "ours, qlora", "ours"),
            noise=figures.noise(rounds, "ours"),
            reason=absent or figures.failures(rounds, "ours", "ours, qlora"),
            notes=(f"tokens a micro-batch: {sizes}", figures.compare_losses(rounds, "ours", "ours, qlora")),
        )
    ]


def _peak(part: Part, rounds: Rounds, found: dict[str, Any], absent: str) -> list[Line]:
    def most(results: Sequence[Result]) -> float:
        return float(max(result["peak_bytes"] or float("nan") for result in results))

    runs = [(arm, run) for arm in ("ours", "trl") for got in rounds for run in figures.good(got.get(arm))]
    shown = ", ".join(f"{arm} {run['peak_bytes'] / 1e9:.2f} GB" for arm, run in runs if run["peak_bytes"])
    return [
        Line(
            bar="gpu-peak",
            values=figures.ratios(rounds, "ours", "trl", most),
            reason=absent or figures.failures(rounds, "ours", "trl"),
            notes=(shown,),
        )
    ]


def memory_line(rounds_by_part: dict[str, Any]) -> Line:
    """The error of the memory plan's estimate in every run of ours."""
    parts = [rounds for name, rounds in rounds_by_part.items() if name in PARTS]
    runs = [run for rounds in parts for got in rounds for some in got.values() for run in figures.good(some)]
    errors = tuple(run["memory_error"] for run in runs if run.get("memory_error") is not None)
    return Line(bar="gpu-memory", values=errors, reason="no run of ours ended")


PARTS: dict[str, Callable[[argparse.Namespace], tuple[Part, list[str]]]] = {
    "chat": lambda args: (
        Part(args, size="8b", lengths="chat", batch=128),
        ["ours", "trl", "trl, packing", "ours"],
    ),
    "long": lambda args: (
        Part(args, size="8b", lengths="long", batch=8),
        ["ours", "trl", "trl, packing", "ours"],
    ),
    "peak": lambda args: (Part(args, size="8b", lengths="chat", batch=8), ["ours", "trl"]),
    "qlora": lambda args: (Part(args, size="8b", lengths="long", batch=4), ["ours", "ours, qlora", "ours"]),
    "full": lambda args: (Part(args, size="1b", lengths="long", batch=8), ["ours, full", "ours, full"]),
}
LINES: dict[str, Callable[..., list[Line]]] = {
    "chat": _against_trl("gpu-chat"),
    "long": _against_trl("gpu-long"),
    "peak": _peak,
    "qlora": _qlora,
    "full": _full,
}
