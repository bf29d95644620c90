"""Everything that comes from outside a run, in one argument: environment, clock, cache, backends, watcher, tracker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from runner.answerer import Answerer
from runner.backends import load, open_chat, open_embedder
from runner.backends.base import Backend, Chat, Embedder, Endpoint, Sampling, Session, TrainedModel, Watch
from runner.backends.wandb import Mode
from runner.data.ledger import Ledger
from runner.errors import Exit, Problem, RunnerError
from runner.lock import Locked, find_fetched_drifts, find_opened_drifts, locate_models, read_data, settle
from runner.machine.gpu import look
from runner.machine.gpu.accelerator import Look, confirm, settle_accelerator
from runner.manifest import Manifest
from runner.plan import Plan, model_reference
from runner.pushing import open_place
from runner.report import Facts
from runner.rundir import RunDirectory
from runner.tracking import NullTracker, Tracker, choose_mode, open_tracker


@dataclass(kw_only=True)
class World:
    """What the lifecycle may ask of the outside; tests pass their own."""

    watch: Watch
    cache: Path
    environment: MutableMapping[str, str]
    load_backend: Callable[[str], Backend] = load
    load_chat: Callable[[Endpoint, Path, Mapping[str, str]], Chat] = open_chat
    load_embedder: Callable[[str], Embedder] = open_embedder
    look_for_gpus: Look = look
    clock: Callable[[], float] = time.perf_counter
    tracker: Tracker = field(default_factory=NullTracker)
    locked: Locked | None = None  # what the run is held to, and what was found to differ before it began
    told: Sequence[Problem] = ()
    _embedders: dict[str, Embedder] = field(default_factory=dict)
    _tracking: tuple[Mode | Literal["off"], str | None] | None = None

    @contextlib.contextmanager
    def stage(self, name: str, run: RunDirectory, facts: Facts, *, saves: bool = False) -> Iterator[None]:
        """Announces and times a stage. A request to stop ends it at once; one that `saves` first looks for itself."""
        self.watch.stage(name)
        self.watch.check()
        run.event("stage", stage=name)
        started = self.clock()
        try:
            with contextlib.nullcontext() if saves else self.watch.interruptible():
                yield
            self.watch.check()
        finally:
            facts.timings[name] = self.clock() - started

    def choose_tracking(self, manifest: Manifest) -> tuple[Mode | Literal["off"], str | None]:
        """How the run will be tracked, and why not online where it should be; asked once, for nothing, before anything
        is fetched. Raises RunnerError (77)."""
        if self._tracking is None:
            wanted = manifest.values.get("tracking", {}).get("wandb", "auto")
            self._tracking = choose_mode(wanted, self.environment)
        return self._tracking

    def track(self, plan: Plan, run: RunDirectory, facts: Facts) -> None:
        """Opens the tracker that the manifest asks for; curves logged by the watcher go there."""
        assert facts.run_id is not None and facts.manifest is not None
        chosen = self.choose_tracking(facts.manifest)
        self.tracker = open_tracker(plan, facts.run_id, run.folder("wandb"), self.environment, *chosen)
        self.watch.send_curves_to(self.tracker.log)

    def open_backend(
        self, manifest: Manifest, *, refuses: bool = True
    ) -> tuple[Backend, Mapping[str, Any], list[Problem]]:
        """The backend of the manifest's approach, the machine as it sees it, and what to know of the GPU, which is
        looked at before anything is loaded or fetched. Raises RunnerError (66, and 69 or 78 where it `refuses` to go on
        without a GPU that is required)."""
        approach = manifest.values["approach"]
        accelerator = approach.get("accelerator", "auto")
        settled = settle_accelerator(accelerator, self.environment, self.look_for_gpus, refuses=refuses)
        backend = self.load_backend(approach["kind"])
        machine = backend.environment()
        problems = [*settled.problems, *confirm(accelerator, settled, machine.get("gpus") or (), refuses=refuses)]
        for problem in problems:
            self.watch.say(f"{problem.severity}: {problem.what} {problem.fix}")
        return backend, {**machine, "driver": settled.gpus.driver if settled.gpus else None}, problems

    def open_session(self, manifest: Manifest, backend: Backend) -> Session:
        """The manifest's model, opened but without its weights; raises RunnerError when a preflight finds something."""
        model = model_reference(manifest)
        try:
            if problems := backend.check(model):
                raise RunnerError(problems, Exit.INPUT_MISSING)
            kind, trust = manifest.values["approach"]["kind"], manifest.trust_remote_code
            return backend.open_session(model, kind, self.cache, self.watch, trust_remote_code=trust)
        except RunnerError as error:
            where = manifest.document.where(("approach", "model"), value=True)
            placed = [problem if str(problem.where) else problem.at(where) for problem in error.problems]
            raise RunnerError(placed, error.exit_code) from error

    def look_at_models(self, manifest: Manifest, backend: Backend) -> tuple[list[dict[str, Any]], list[Problem]]:
        """The manifest's models as they lie here, now that they were opened, and how they differ from what was locked.
        Raises RunnerError (78) where the lock refuses that."""
        models = list(locate_models(manifest, backend, self.cache, self.watch, fetch=False))
        return models, settle(self.locked, find_opened_drifts(self.locked, models)) if self.locked else []

    def look_at_data(self, manifest: Manifest, ledger: Ledger) -> tuple[list[dict[str, Any]], list[Problem]]:
        """The data that was read, and how it differs from what was locked; raises RunnerError (78) where the lock
        refuses that."""
        data = read_data(manifest, ledger, self.cache)
        return data, settle(self.locked, find_fetched_drifts(self.locked, data)) if self.locked else []

    def check_weights(self, trained: TrainedModel) -> list[Problem]:
        """Whether the weights are those of the run that is repeated, where one is."""
        before = self.locked.weights_sha256 if self.locked else None
        if before is None:
            return []
        if before == trained.weights_sha256:
            self.watch.say("The weights are, bit for bit, those of the run that is repeated.")
            return []
        now = trained.weights_sha256
        what = f"The weights differ from those of the run that is repeated: {before[:12]} then, {now[:12]} now."
        fix = "docs/reproducing.md says on which machines they agree."
        return [Problem(code="repeat/other-weights", what=what, fix=fix, severity="warning")]

    def check_primary(self, plan: Plan) -> None:
        """Asks whether what the primary metric needs from outside is there; raises RunnerError (66, 69, 77, 78) where
        not. Other endpoints that fail are left out when they are needed, and the run ends with that."""
        judge, embedding, primary = plan.eval.judge, plan.eval.embedding, plan.eval.metrics[0]
        if judge and primary == "judge":
            self.open_chat(judge.endpoint).check()
        if embedding and primary == "similarity":
            self.open_embedder(embedding)

    def check_destination(self, plan: Plan) -> None:
        """Looks whether the weights can be sent where they are to go; raises RunnerError (64, 69, 73, 77)."""
        delivery = plan.delivery
        if delivery.to:
            open_place(delivery.to, private=delivery.private, environment=self.environment).check()

    def open_chat(self, endpoint: Endpoint) -> Chat:
        """The client of an endpoint; it keeps what was answered in the cache."""
        return self.load_chat(endpoint, self.cache, self.environment)

    def open_embedder(self, model: str) -> Embedder:
        """The embedding model, opened once."""
        if model not in self._embedders:
            self._embedders[model] = self.load_embedder(model)
        return self._embedders[model]

    def answerer(
        self, plan: Plan, session: Session, sampling: Sampling, schema: Mapping[str, object] | None
    ) -> Answerer:
        """Whom the gate and the evaluation ask."""
        return Answerer(
            session=session,
            open_chat=self.open_chat,
            open_embedder=self.open_embedder,
            sampling=sampling,
            schema=schema,
            embedding=plan.eval.embedding,
            watch=self.watch,
        )

    def now(self) -> str:
        """The time in ISO 8601, UTC."""
        return datetime.now(UTC).isoformat(timespec="seconds")
