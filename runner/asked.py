"""What a manifest asks for, as far as it makes a run the run it is: its values without those that change no result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PATIENCE = ("max_parallel", "timeout_seconds", "processes", "accelerator")
# What changes no result; of the budget, the price of the machine does count, as the return rests on it.
VOLATILE = ("description", "checkpoint", "tracking", "budget", "resources", "sweep")
WHITHER = ("to", "private")  # of what is delivered


def asked_for(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without tracking, checkpoints, limits, machines, a sweep's other points and where the weights go."""
    asked: dict[str, Any] = {key: _without_patience(item) for key, item in values.items() if key not in VOLATILE}
    if "delivery" in asked:  # but not where it goes
        asked["delivery"] = {key: value for key, value in asked["delivery"].items() if key not in WHITHER}
        asked = {key: value for key, value in asked.items() if key != "delivery" or value}
    asked["usd_per_hour"] = (values.get("budget") or {}).get("usd_per_hour")
    return asked


def _without_patience(value: Any) -> Any:
    """The values without how endpoints are waited for, over how many processes work is spread, and whether a GPU is
    asked for, which change no answer."""
    if isinstance(value, Mapping):
        return {key: _without_patience(item) for key, item in value.items() if key not in PATIENCE}
    return [_without_patience(item) for item in value] if isinstance(value, list) else value
