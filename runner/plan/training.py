"""How the model is trained where the manifest leaves it open: defaults for the approach and the model's size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runner.backends.base import Hyperparameters, ModelFacts
from runner.rules import ADAPTER_KEYS

SMALL_MODEL = 1_000_000_000  # parameters; below, models bear and need higher learning rates and ranks


def resolve_hyperparameters(
    kind: str, facts: ModelFacts, values: dict[str, Any], origins: dict[str, str]
) -> Hyperparameters:
    """Fills in what is empty among the section's values, and the origins with the reasons.

    A key that the run does not use becomes None among the values, so that nobody reads it as a fact; in the result it
    has its default, which the trainer does not look at.
    """
    unused = _unused(kind, values)
    for key, (value, why) in _defaults(kind, facts, values).items():
        if values[key] is None or origins[f"hyperparameters.{key}"] == "default":
            values[key], origins[f"hyperparameters.{key}"] = value, f"derived: {why}"
    modules = values["target_modules"]
    resolved = Hyperparameters(**{**values, "target_modules": None if modules == "auto" else tuple(modules)})
    for key, why in unused.items():
        values[key], origins[f"hyperparameters.{key}"] = None, f"unused: {why}"
    return resolved


def _unused(kind: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The keys that nothing looks at, each with the reason."""
    unused = dict.fromkeys(ADAPTER_KEYS, "full tuning has no adapter") if kind == "full" else {}
    for loser, winner in (("epochs", "max_steps"), ("batch_size", "batch_tokens")):
        if values[winner] is not None:
            unused[loser] = f"{winner} decides"
    return unused


def _defaults(kind: str, facts: ModelFacts, values: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Defaults that depend on the approach, the model or other keys, each with its reason."""
    small = facts.num_parameters is not None and facts.num_parameters < SMALL_MODEL
    size = "a model under 1B parameters" if small else "a model of 1B parameters or more"
    if facts.num_parameters is None:
        size = "a model of unknown size"
    if kind == "full":
        by_approach: dict[str, tuple[Any, str]] = {
            "epochs": (2, "full tuning overfits after few passes"),
            "batch_size": (16, "full tuning"),
            "learning_rate": (1e-4 if small else 2e-5, f"full tuning, {size}"),
            "weight_decay": (0.01, "full tuning, AdamW's usual"),
        }
    else:
        by_approach = {
            "epochs": (2, "an adapter learns a narrow task in few passes"),
            "batch_size": (8, "adapters"),
            "learning_rate": (1e-3 if small else 2e-4, f"adapters, {size}"),
            "weight_decay": (0, "adapters begin at zero and stay small"),
        }
    rank = values["rank"] or (32 if small else 16)
    family = f" ({facts.family})" if facts.family else ""
    return {
        **by_approach,
        "rank": (rank, f"adapters, {size}"),
        "alpha": _alpha(rank, rslora=values["rslora"]),
        "target_modules": ("auto", f"every linear layer of the decoder's blocks{family}"),
    }


def _alpha(rank: int, *, rslora: bool) -> tuple[int, str]:
    """The alpha that scales an adapter by about 2, by the scale's formula: alpha / rank, or with rsLoRA
    (arXiv:2312.03732) alpha / sqrt(rank)."""
    return (round(2 * math.sqrt(rank)), "twice the root of the rank") if rslora else (2 * rank, "twice the rank")
