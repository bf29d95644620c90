"""Which un-tuned arm reaches the target, and which one to use instead of tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from runner.render.units import Units

Report = Mapping[str, Any]
Reach = Literal["reached", "open", "missed"]


def reach(arm: Report, target: Report, units: Units) -> Reach | None:
    """Whether the arm's whole interval is as good as the target, some of it, or nothing; None without a score."""
    score = arm["side"]["scores"].get(target["metric"]) if arm["side"] else None
    if score is None:
        return None
    sign = _sign(target, units)
    worse, better = (score["low"], score["high"]) if sign > 0 else (score["high"], score["low"])
    if worse is not None and sign * (worse - target["value"]) >= 0:
        return "reached"
    return "open" if better is None or sign * (better - target["value"]) >= 0 else "missed"


def recommended(gate: Report) -> Report | None:
    """The arm to use instead of tuning; None when the gate does not advise against tuning for one's sake."""
    return next((arm for arm in gate["arms"] if arm["name"] == gate["enough"]), None)


def _sign(target: Report, units: Units) -> int:
    return 1 if units.of(target["metric"]).higher_is_better else -1
