"""Managed training services that take results from folders of their own: SageMaker, Vertex AI, Azure ML."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked

VARIABLES = ("TRAINING_JOB_NAME", "SM_MODEL_DIR", "AIP_MODEL_DIR", "AIP_CHECKPOINT_DIR", "AZUREML_RUN_ID")
FAILURE_BYTES = 1024  # of SageMaker's FailureReason, which it takes from the file
REPORTS = ("report.json", "report.html")


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A service that runs us: `root` is where run directories survive the machine; None of the others: it takes none.

    `model` gets what was trained, `reports` the report and its page, `failure` one line on why a run failed.
    """

    name: str
    root: Path
    model: Path | None = None
    reports: Path | None = None
    failure: Path | None = None


def find_platform(environment: Mapping[str, str], top: Path = Path("/")) -> Platform | None:
    """The service that this process runs in, known by the variables it sets; `top` is the root of its folders. Raises
    RunnerError (73) where it names a bucket that is not mounted."""
    if "TRAINING_JOB_NAME" in environment or "SM_MODEL_DIR" in environment:
        return _sagemaker(environment, top / "opt/ml")
    if "AIP_MODEL_DIR" in environment or "AIP_CHECKPOINT_DIR" in environment:
        return _vertex(environment, top)
    if "AZUREML_RUN_ID" in environment:
        return Platform(name="Azure ML", root=Path("outputs"))
    return None


def _sagemaker(environment: Mapping[str, str], top: Path) -> Platform:
    """The checkpoint folder is mirrored to S3 during the job, where the job has one; else all goes up at the end."""
    output = top / "output"
    data = Path(environment.get("SM_OUTPUT_DATA_DIR") or output / "data")
    kept = top / "checkpoints"
    return Platform(
        name="SageMaker",
        root=kept if kept.is_dir() else data,
        model=Path(environment.get("SM_MODEL_DIR") or top / "model"),
        reports=data,
        failure=output / "failure",
    )


def _vertex(environment: Mapping[str, str], top: Path) -> Platform:
    model, kept = (_mounted(environment.get(name), name, top) for name in ("AIP_MODEL_DIR", "AIP_CHECKPOINT_DIR"))
    root = kept or model
    assert root is not None, "one of the two is set"
    return Platform(name="Vertex AI", root=root, model=model, reports=model)


def _mounted(url: str | None, name: str, top: Path) -> Path | None:
    """The folder under which Vertex AI mounts a bucket's URL."""
    if not url:
        return None
    bucket, _, prefix = url.removeprefix("gs://").rstrip("/").partition("/")
    mount = top / "gcs" / bucket
    if not url.startswith("gs://") or not mount.is_dir():
        problem = Problem(
            code="run/bucket-not-mounted",
            what=f"The environment variable {name} names {url}, which is not mounted here.",
            where=Where(path=str(mount)),
            fix="Check the bucket and the service account's rights to it, or give a folder as --out.",
        )
        raise RunnerError(problem, Exit.RUN_DIRECTORY)
    return mount / prefix


def hand_over(platform: Platform, run: Path) -> None:
    """Copies what a run delivered, and its report, to where the service looks for them. Raises OSError."""
    for name in ("model", "merged"):
        if platform.model and (run / name).is_dir():
            target = platform.model if name == "model" else platform.model / name
            shutil.copytree(run / name, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    for name in REPORTS:
        if platform.reports and (run / name).is_file():
            platform.reports.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / name, platform.reports / name)


def leave_failure(platform: Platform, reason: str) -> None:
    """Tells the service why a run failed, where it has a place for that."""
    if platform.failure and platform.failure.parent.is_dir():
        with contextlib.suppress(OSError):
            platform.failure.write_bytes(masked(reason).encode()[:FAILURE_BYTES])
