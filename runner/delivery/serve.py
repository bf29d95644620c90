"""The command lines that serve what was delivered."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from runner.plan import Plan

MAX_RANKS = (16, 32, 64, 128, 256, 320, 512)  # that vLLM can be started with, its default first


@dataclass(frozen=True, kw_only=True)
class ServeLine:
    """A server, and the command that starts it with the tuned model; the model is asked for under the plan's name (by
    transformers, under its folder's)."""

    name: str
    command: str


def serve_lines(plan: Plan, base: str, model_dir: str, merged_dir: str | None) -> tuple[ServeLine, ...]:
    """Only lines that work: `transformers serve` takes no adapter, and vLLM no DoRA and no rank above 512."""
    lines = [_vllm_adapter(plan, base, model_dir)] if takes_adapter(plan) else []
    whole = model_dir if plan.approach == "full" else merged_dir
    if whole:
        lines += [
            ServeLine(name="vLLM", command=_line("vllm", "serve", whole, "--served-model-name", plan.name)),
            ServeLine(name="transformers serve", command=_line("transformers", "serve", whole)),
        ]
    return tuple(lines)


def takes_adapter(plan: Plan) -> bool:
    """Whether there is an adapter that vLLM can put on the base model."""
    hyper = plan.hyperparameters
    return plan.approach != "full" and not hyper.dora and hyper.rank <= MAX_RANKS[-1]


def _vllm_adapter(plan: Plan, base: str, model_dir: str) -> ServeLine:
    words = ["vllm", "serve", base]
    if plan.model_facts.revision:
        words += ["--revision", plan.model_facts.revision]
    if plan.approach == "qlora":
        words += ["--quantization", "bitsandbytes"]  # the adapter was trained on 4-bit weights, and is at home on them
    words += ["--enable-lora", "--lora-modules", f"{plan.name}={model_dir}"]
    most = next(rank for rank in MAX_RANKS if rank >= plan.hyperparameters.rank)
    if most > MAX_RANKS[0]:
        words += ["--max-lora-rank", str(most)]
    return ServeLine(name="vLLM with the adapter", command=_line(*words))


def _line(*words: str) -> str:
    return shlex.join(words)
