"""Everything that comes from outside a run, in one argument: environment, clock, cache, backends, watcher, tracker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from runner.backends import load
from runner.backends.base import Backend, Session, Watch
from runner.errors import Exit, RunnerError
from runner.manifest import Manifest
from runner.plan import Plan, model_reference
from runner.report import Facts
from runner.rundir import RunDirectory
from runner.tracking import NullTracker, Tracker, open_tracker


@dataclass(kw_only=True)
class World:
    """What the lifecycle may ask of the outside; tests pass their own."""

    watch: Watch
    cache: Path
    environment: Mapping[str, str]
    load_backend: Callable[[str], Backend] = load
    clock: Callable[[], float] = time.perf_counter
    tracker: Tracker = field(default_factory=NullTracker)

    @contextlib.contextmanager
    def stage(self, name: str, run: RunDirectory, facts: Facts) -> Iterator[None]:
        """Announces and times a stage, and looks before it whether the run was asked to stop."""
        self.watch.stage(name)
        self.watch.check()
        run.event("stage", stage=name)
        started = self.clock()
        try:
            yield
        finally:
            facts.timings[name] = self.clock() - started

    def track(self, plan: Plan, run: RunDirectory, facts: Facts) -> None:
        """Opens the tracker that the manifest asks for; curves logged by the watcher go there."""
        assert facts.run_id is not None
        self.tracker = open_tracker(plan, facts.run_id, run.folder("wandb"), self.environment)
        self.watch.send_curves_to(self.tracker.log)

    def open_session(self, manifest: Manifest, backend: Backend) -> Session:
        """The manifest's model, opened but without its weights; raises RunnerError when a preflight finds something."""
        model = model_reference(manifest)
        problems = backend.check(model)
        if problems:
            raise RunnerError(problems, Exit.INPUT_MISSING)
        return backend.open_session(model, manifest.values["approach"]["kind"], self.cache, self.watch)

    def now(self) -> str:
        """The time in ISO 8601, UTC."""
        return datetime.now(UTC).isoformat(timespec="seconds")
