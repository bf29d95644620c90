"""Weights & Biases, the real library. Nothing here may change the result of a run: every fault ends as a note."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from runner.backends.base import Watch
from runner.errors import Interrupted

Mode = Literal["online", "offline"]
INIT_TIMEOUT_SECONDS = 20
FINISH_TIMEOUT_SECONDS = 60
FINISH_GRACE_SECONDS = 2.0  # once we were asked to stop


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a W&B run is opened with; `config` holds only what the manifest and the plan say. A run id that the server
    knows goes on where it was."""

    mode: Mode
    project: str
    entity: str | None
    name: str
    run_id: str
    tags: Sequence[str]
    config: Mapping[str, Any]
    folder: Path


class WandbRun:
    """An open W&B run. `note` tells what went wrong with it, if anything did; the calls never raise."""

    def __init__(self, settings: RunSettings):
        self.mode: str = settings.mode
        self.url: str | None = None
        self.note: str | None = None
        self._run: Any = None
        try:
            self._run = _open(settings)
            self.url = self._run.url
        except Exception as error:  # whatever W&B does, the experiment goes on
            self.note = f"{settings.mode}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            self.mode = "failed"
            if settings.mode == "online":
                self._fall_back(replace(settings, mode="offline"))

    def _fall_back(self, settings: RunSettings) -> None:
        """Keeps the run offline when the server cannot be reached, to be synced later."""
        try:
            self._run = _open(settings)
            self.mode = "offline"
        except Exception as error:  # see above
            self.note = f"{self.note}; offline: {type(error).__name__}"

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Adds points to the curves."""
        self._try(lambda run: run.log(dict(values), step=step))

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Sets the run's summary, which W&B's tables compare runs by."""
        self._try(lambda run: run.summary.update(dict(values)))

    def finish(self, exit_code: int, watch: Watch) -> None:
        """Closes the run; after a request to stop it is not waited for long. The service of W&B, a process of its own,
        ends with ours."""
        try:
            with watch.interruptible(FINISH_GRACE_SECONDS):
                self._try(lambda run: run.finish(exit_code=exit_code))
        except Interrupted:
            self.note = self.note or "it was not waited for, since the run was asked to stop"
        self._run = None

    def _try(self, call: Any) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:  # see above
            self.note = self.note or f"{type(error).__name__}: {error}"


def _open(settings: RunSettings) -> Any:
    settings.folder.mkdir(parents=True, exist_ok=True)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[name] = str(settings.folder)  # else it falls back to a temporary folder, lost with the machine
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    return wandb.init(
        mode=settings.mode,
        project=settings.project,
        entity=settings.entity,
        name=settings.name,
        id=settings.run_id,
        resume="allow",
        tags=list(settings.tags),
        config=dict(settings.config),
        dir=str(settings.folder),
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            init_timeout=INIT_TIMEOUT_SECONDS,
            finish_timeout=FINISH_TIMEOUT_SECONDS,
            login_timeout=INIT_TIMEOUT_SECONDS,
        ),
    )
