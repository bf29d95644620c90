"""The train stage: hands the job to the backend and guards what comes back."""

from __future__ import annotations

from runner.backends.base import Session, TrainedModel, TrainJob, Watch
from runner.data.prepare import Dataset
from runner.errors import Exit, Problem, RunnerError
from runner.plan import Plan
from runner.rundir import RunDirectory


def train(plan: Plan, dataset: Dataset, session: Session, run: RunDirectory, watch: Watch) -> TrainedModel:
    """Trains; raises RunnerError when the loss stops being a number or the adapter learned nothing at all."""
    job = TrainJob(
        method=plan.approach,
        hyperparameters=plan.hyperparameters,
        train=dataset.train,
        dev=dataset.dev,
        work_dir=run.folder("train"),
        model_dir=run.folder("model"),
        seed=plan.seed,
        processes=plan.processes,
        checkpoint=plan.checkpoint,
    )
    trained = session.train(job, watch)
    if trained.moved_adapters == 0:
        raise RunnerError(
            Problem(
                code="train/nothing-learned",
                what="After training, every layer of the adapter is as it began.",
                fix="Train for more steps, or raise the learning rate.",
            ),
            Exit.MANIFEST,
        )
    return trained
