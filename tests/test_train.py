"""The train stage: what the backend is asked to do."""

from __future__ import annotations

from pathlib import Path

from runner.backends.base import CheckpointPlan
from runner.rundir import RunDirectory
from runner.train import train
from tests.fakes import FakeSession, FakeWatch, make_dataset, make_test_plan


def test_the_job_is_what_the_plan_says(tmp_path: Path) -> None:
    plan = make_test_plan("approach.processes=2", "checkpoint={ every_steps: 7, keep: 4 }", "seed=5")
    session, dataset = FakeSession(), make_dataset()
    train(plan, dataset, session, RunDirectory(tmp_path), FakeWatch())
    (job,) = session.jobs
    assert (job.method, job.seed, job.processes, job.checkpoint) == (
        "lora",
        5,
        2,
        CheckpointPlan(every_steps=7, keep=4),
    )
    assert job.hyperparameters is plan.hyperparameters
    assert (job.train, job.dev) == (dataset.train, dataset.dev)
