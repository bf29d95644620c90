"""Facts -> the keys of a tracker: the manifest key, the report key and the tracked key are one word."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from runner.backends.base import Watch
from runner.backends.wandb import (
    Mode,
    Refused,
    RunSettings,
    Unreachable,
    WandbRun,
    check_login,
    close_service,
    has_login,
    server_of,
)
from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked_value
from runner.plan import Plan
from runner.report import Facts, to_json


class Tracker(Protocol):
    """Where a run is followed from outside; once it is open, no call raises or changes the result."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...
    def finish(self, facts: Facts, exit_code: int, watch: Watch) -> Mapping[str, Any]: ...


class NullTracker:
    """Tracks nothing, because the manifest says so or the run never came that far."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Ignores the values."""

    def finish(self, facts: Facts, exit_code: int, watch: Watch) -> Mapping[str, Any]:
        """Says that nothing was tracked."""
        return {"wandb": "off", "url": None, "synced": False, "note": None}


class WandbTracker:
    """Tracks in Weights & Biases: online when a key is there, offline otherwise."""

    def __init__(
        self, plan: Plan, run_id: str, folder: Path, environment: Mapping[str, str], mode: Mode, why: str | None
    ):
        self._why_offline = why
        settings = RunSettings(
            mode=mode,
            project=plan.tracking.project,
            entity=plan.tracking.entity,
            name=f"{plan.name}-{run_id}",
            run_id=_tracked_id(run_id, folder),
            tags=masked_value(plan.tracking.tags),
            config=masked_value({"manifest": to_json(plan.values), "model": to_json(plan.model_facts)}),
            folder=folder,
        )
        self._folder = folder
        try:
            self._run = WandbRun(settings)
        except Refused as refused:
            self._why_offline = _offline_or_refused(plan.tracking.wandb, environment, refused)
            close_service()
            self._run = WandbRun(replace(settings, mode="offline"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds points to the training curves."""
        self._run.log(values, step)

    def finish(self, facts: Facts, exit_code: int, watch: Watch) -> Mapping[str, Any]:
        """Writes scores, ROI and verdict into the run's summary and closes it; says where it went."""
        self._run.summarize(_summary(facts))
        self._run.finish(exit_code, watch)
        note = self._why_offline or self._run.note
        synced = self._run.mode == "online" and note is None
        kind = "offline-run" if self._run.mode == "offline" else "run"
        sync = None if synced or self._run.mode == "failed" else f"wandb sync {self._folder}/wandb/{kind}-*"
        return {"wandb": self._run.mode, "url": self._run.url, "synced": synced, "note": note, "sync": sync}


def choose_mode(wanted: str, environment: Mapping[str, str]) -> tuple[Mode | Literal["off"], str | None]:
    """How W&B will be used, found out for nothing; where it was wanted online and will not be, with the reason.

    Raises RunnerError (77) when the manifest wants it online and there is no key, or the server refuses it. That the
    server cannot be reached is no reason not to train: the run is kept offline, and can be sent later.
    """
    if wanted in ("off", "offline"):
        return "off" if wanted == "off" else "offline", None
    if environment.get("WANDB_MODE", "online") != "online" or environment.get("WANDB_DISABLED"):
        return "offline", "the environment says so (WANDB_MODE, WANDB_DISABLED)" if wanted == "online" else None
    if not has_login(environment):
        if wanted == "online":
            raise _no_login("no key is set", environment)
        return "offline", None
    try:
        check_login(environment)
    except Refused as refused:
        return "offline", _offline_or_refused(wanted, environment, refused)
    except Unreachable as error:
        return "offline", f"{server_of(environment)} cannot be reached: {error}"
    return "online", None


def _offline_or_refused(wanted: str, environment: Mapping[str, str], refused: Refused) -> str:
    """Why the run is kept offline after a refusal; raises RunnerError (77) where the manifest wants it online."""
    why = f"{server_of(environment)} refuses the key: {refused}"
    if wanted == "online":
        raise _no_login(why, environment)
    return why


def _no_login(why: str, environment: Mapping[str, str]) -> RunnerError:
    problem = Problem(
        code="tracking/refused",
        what=f"W&B cannot be used online: {why}.",
        where=Where(key="tracking.wandb"),
        fix="Set WANDB_API_KEY to a key that may write to the project (or WANDB_API_KEY_FILE to a file that holds it), "
        "or set tracking.wandb to auto.",
    )
    return RunnerError(problem, Exit.CREDENTIALS)


def _tracked_id(run_id: str, folder: Path) -> str:
    """The id under which all attempts in one run directory are one tracked run; the time is the first attempt's, so
    that a run made anew does not go on with the curves of an old one."""
    path = folder / "id"
    known = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not re.fullmatch(rf"{re.escape(run_id)}-\d+", known):
        known = f"{run_id}-{int(time.time())}"
        path.write_text(known, encoding="utf-8")
    return known


def open_tracker(
    plan: Plan, run_id: str, folder: Path, environment: Mapping[str, str], mode: Mode | Literal["off"], why: str | None
) -> Tracker:
    """The tracker in the mode and for the reason that `choose_mode` gave; raises RunnerError (77) where the manifest
    wants it online and the server refuses the run itself."""
    return NullTracker() if mode == "off" else WandbTracker(plan, run_id, folder, environment, mode, why)


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
