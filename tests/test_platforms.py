"""Managed training services: where a run goes, and what they get of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runner.errors import Exit, RunnerError
from runner.platforms import find_platform, hand_over, leave_failure

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("environment", "folders", "root", "model"),
    [
        ({}, (), None, None),
        ({"TRAINING_JOB_NAME": "job"}, (), "opt/ml/output/data", "opt/ml/model"),
        ({"TRAINING_JOB_NAME": "job"}, ("opt/ml/checkpoints",), "opt/ml/checkpoints", "opt/ml/model"),
        ({"AIP_MODEL_DIR": "gs://bucket/a/model/"}, ("gcs/bucket",), "gcs/bucket/a/model", "gcs/bucket/a/model"),
        (
            {"AIP_MODEL_DIR": "gs://bucket/m", "AIP_CHECKPOINT_DIR": "gs://bucket/c"},
            ("gcs/bucket",),
            "gcs/bucket/c",
            "gcs/bucket/m",
        ),
        ({"AIP_CHECKPOINT_DIR": "gs://bucket/c"}, ("gcs/bucket",), "gcs/bucket/c", None),
    ],
)
def test_each_service_has_its_folders(
    environment: Mapping[str, str], folders: tuple[str, ...], root: str | None, model: str | None, tmp_path: Path
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    found = find_platform(environment, tmp_path)
    assert (found.root if found else None) == (tmp_path / root if root else None)
    assert (found.model if found else None) == (tmp_path / model if model else None)


def test_sagemakers_own_variables_win(tmp_path: Path) -> None:
    found = find_platform({"SM_MODEL_DIR": "/m", "SM_OUTPUT_DATA_DIR": "/d"}, tmp_path)
    assert found is not None
    assert (found.model, found.root, found.reports) == (Path("/m"), Path("/d"), Path("/d"))


def test_azure_ml_takes_what_lies_in_outputs() -> None:
    found = find_platform({"AZUREML_RUN_ID": "run"})
    assert found is not None and found.root == Path("outputs")


@pytest.mark.parametrize("url", ["gs://missing/x", "s3://bucket/x", "bucket"])
def test_a_bucket_that_is_not_mounted_is_said(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="AIP_MODEL_DIR") as caught:
        find_platform({"AIP_MODEL_DIR": url}, tmp_path)
    assert caught.value.exit_code == Exit.RUN_DIRECTORY


def test_what_was_delivered_is_handed_over_readable_by_others(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "adapter_model.safetensors").write_bytes(b"weights")
    (run / "model" / "adapter_model.safetensors").chmod(0o600)
    (run / "report.json").write_text("{}")
    found = find_platform({"TRAINING_JOB_NAME": "job"}, tmp_path)
    assert found is not None
    hand_over(found, run)
    hand_over(found, run)
    copied = tmp_path / "opt/ml/model/adapter_model.safetensors"
    assert copied.read_bytes() == b"weights"
    assert copied.stat().st_mode & 0o044
    assert (tmp_path / "opt/ml/output/data/report.json").read_text() == "{}"


def test_the_reason_of_a_failure_is_left_in_so_many_bytes(tmp_path: Path) -> None:
    found = find_platform({"TRAINING_JOB_NAME": "job"}, tmp_path)
    assert found is not None
    leave_failure(found, "nobody takes it")
    (tmp_path / "opt/ml/output").mkdir(parents=True)
    leave_failure(found, "x" * 5000)
    assert (tmp_path / "opt/ml/output/failure").read_bytes() == b"x" * 1024


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runner", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_on_a_service_lies_where_it_survives_and_leaves_model_and_report(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = write_experiment(gate={"policy": "skip", "reason": "a test"}, hyperparameters={"epochs": 0.2})
    environment = {"SM_MODEL_DIR": str(tmp_path / "model"), "SM_OUTPUT_DATA_DIR": str(tmp_path / "data")}
    done = start(str(manifest), **environment)
    assert done.returncode in (Exit.DONE, Exit.SAID_NO), done.stderr
    [run] = (tmp_path / "data").glob("tiny-*")
    report = json.loads((tmp_path / "data" / "report.json").read_text())
    assert report == json.loads((run / "report.json").read_text())
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("url", ["ftp://host/prefix", "hdfs://name/x", "s3:/bucket", "https://host/x", "dbfs:/x"])
def test_an_output_that_cannot_be_served_is_refused_and_makes_no_folder(url: str, tmp_path: Path) -> None:
    quickstart = str(ROOT / "manifests" / "quickstart.yaml")
    command = [sys.executable, "-m", "runner", quickstart]
    for arguments, environment in (((), {"RUNNER_OUT": url}), (("--out", url), {})):
        done = subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, "[run/url]" in done.stdout) == (Exit.RUN_DIRECTORY, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    from runner.destination import find_destination

    assert find_destination(f"file://{tmp_path}", {}).folder == tmp_path
