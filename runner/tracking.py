"""Facts -> the keys of a tracker: the manifest key, the report key and the tracked key are one word."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from runner.backends.base import Watch
from runner.backends.wandb import RunSettings, WandbRun
from runner.plan import Plan
from runner.report import Facts, to_json


class Tracker(Protocol):
    """Where a run is followed from outside; no call raises or changes the result."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...
    def finish(self, facts: Facts, exit_code: int, watch: Watch) -> Mapping[str, Any]: ...


class NullTracker:
    """Tracks nothing, because the manifest says so or the run never came that far."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Ignores the values."""

    def finish(self, facts: Facts, exit_code: int, watch: Watch) -> Mapping[str, Any]:
        """Says that nothing was tracked."""
        return {"wandb": "off", "url": None, "note": None}


class WandbTracker:
    """Tracks in Weights & Biases: online when a key is there, offline otherwise."""

    def __init__(self, plan: Plan, run_id: str, folder: Path, environment: Mapping[str, str]):
        wanted = plan.tracking.wandb
        has_key = bool(environment.get("WANDB_API_KEY"))
        allowed = environment.get("WANDB_MODE", "online") == "online" and not environment.get("WANDB_DISABLED")
        online = allowed and (wanted == "online" or (wanted == "auto" and has_key))
        settings = RunSettings(
            mode="online" if online else "offline",
            project=plan.tracking.project,
            entity=plan.tracking.entity,
            name=f"{plan.name}-{run_id}",
            run_id=_tracked_id(run_id, folder),
            tags=plan.tracking.tags,
            config={"manifest": to_json(plan.values), "model": to_json(plan.model_facts)},
            folder=folder,
        )
        self._folder = folder
        self._run = WandbRun(settings)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds points to the training curves."""
        self._run.log(values, step)

    def finish(self, facts: Facts, exit_code: int, watch: Watch) -> Mapping[str, Any]:
        """Writes scores, ROI and verdict into the run's summary and closes it; says where it went."""
        self._run.summarize(_summary(facts))
        self._run.finish(exit_code, watch)
        sync = f"wandb sync {self._folder}/wandb/offline-run-*" if self._run.mode == "offline" else None
        return {"wandb": self._run.mode, "url": self._run.url, "note": self._run.note, "sync": sync}


def _tracked_id(run_id: str, folder: Path) -> str:
    """The id under which all attempts in one run directory are one tracked run; the time is the first attempt's, so
    that a run made anew does not go on with the curves of an old one."""
    path = folder / "id"
    known = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not re.fullmatch(rf"{re.escape(run_id)}-\d+", known):
        known = f"{run_id}-{int(time.time())}"
        path.write_text(known, encoding="utf-8")
    return known


def open_tracker(plan: Plan, run_id: str, folder: Path, environment: Mapping[str, str]) -> Tracker:
    """The tracker that the manifest asks for."""
    return NullTracker() if plan.tracking.wandb == "off" else WandbTracker(plan, run_id, folder, environment)


def _summary(facts: Facts) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if facts.evaluation:
        values["verdict"] = facts.evaluation.verdict
        for comparison in facts.evaluation.comparisons:
            for key in ("untuned", "tuned", "difference", "ci_low", "ci_high"):
                values[f"evaluation/{comparison.against}/{comparison.metric}/{key}"] = getattr(comparison, key)
    if facts.decision:
        values["gate/verdict"] = facts.decision.verdict
        for arm in facts.decision.arms:
            for metric, interval in (arm.side.scores if arm.side else {}).items():
                values[f"gate/{arm.name}/{metric}"] = interval.mean if interval else None
    if facts.roi:
        for key in ("saving_usd_per_month", "payback_months", "pays_back", "net_usd_over_horizon"):
            values[f"roi/{key}"] = getattr(facts.roi, key)
    if facts.training:
        for key in ("num_steps", "best_step", "train_seconds", "tokens_per_second", "dev_loss", "final_loss"):
            values[f"training/{key}"] = getattr(facts.training, key)
        for key in ("available_bytes", "estimate_bytes", "peak_bytes", "micro_batch_tokens"):
            values[f"training/memory/{key}"] = getattr(facts.training.memory, key)
    return values
