"""A run is the same again: in two clones of its repository, and from its directory alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runner.errors import Exit
from runner.schema import read_schema
from tests.lock.projects import MANIFEST, call, commit, git, make_project
from tests.lock.reports import comparable

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def record_of(out: Path) -> dict[str, Any]:
    """The record of a run, which satisfies its schema whatever happened."""
    record = read(out / "run.lock.json")
    Draft202012Validator(read_schema("run.lock")).validate(record)
    return record


@pytest.fixture(scope="module")
def finished(locked_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which a run is done, in the directory runs/first."""
    folder = shutil.copytree(locked_project, tmp_path_factory.mktemp("finished") / "project")
    assert call(folder, "run", MANIFEST, "--locked", "--out", "runs/first")[0] == Exit.DONE
    return folder


@pytest.fixture
def past(finished: Path, tmp_path: Path) -> Path:
    """A copy of that project with that run alone, its cache left behind, somewhere else."""
    unlike = shutil.ignore_patterns("*-repeat")
    return shutil.copytree(finished, tmp_path / "moved" / "project", ignore=unlike)


def test_two_clones_with_one_lock_give_one_report_and_one_hash(locked_project: Path, tmp_path: Path) -> None:
    reports, hashes = [], []
    for place, written in (("one", 1_000_000_000), ("somewhere/else", 1_700_000_000)):
        clone = tmp_path / place
        git(tmp_path, "clone", "-q", str(locked_project), str(clone))
        for path in clone.rglob("*"):
            os.utime(path, (written, written))
        code, said = call(clone, "run", MANIFEST, "--locked")
        assert code == Exit.DONE, said
        (out,) = (clone / "runs").iterdir()
        report = read(out / "report.json")
        reports.append(comparable({**report, "out": out.name}, str(clone)))
        hashes.append(report["training"]["weights_sha256"])
        record = record_of(out)
        assert record["git"]["dirty"] is False and record["git"]["tracked"] is True
        assert record["stands_on"]["data"][0]["rows"] == 60
    assert hashes[0] == hashes[1]
    assert reports[0] == reports[1]
    assert len(json.dumps(reports[0])) > 5_000, "most of it was compared"
    another = comparable({**report, "seed": 1}, str(clone))
    assert another != reports[1], "what differs is seen"


def test_a_run_is_repeated_from_its_directory_to_the_same_weights(finished: Path) -> None:
    code, said = call(finished, "run", "--from", "runs/first", "--locked")
    assert code == Exit.DONE, said
    assert "The weights are, bit for bit, those of the run that is repeated." in said
    (again,) = (finished / "runs").glob("*-repeat")
    first, second = record_of(finished / "runs/first"), record_of(again)
    assert first["weights_sha256"] == second["weights_sha256"] and first["run_id"] == second["run_id"]
    assert second["manifest"]["held_to"].endswith("runs/first/run.lock.json")
    assert (again / "manifest.yaml").read_text() == (finished / MANIFEST).read_text()
    assert "Already done" in call(finished, "run", "--from", "runs/first")[1]


def test_a_project_that_moved_with_its_runs_is_repeated_where_it_is(past: Path) -> None:
    code, said = call(past, "run", "--from", "runs/first", "--locked", "--out", "runs/second")
    assert code == Exit.DONE, said
    assert read(past / "runs/second/report.json")["manifest"]["path"] == str(past / MANIFEST)


def test_a_difference_is_told_and_refused_only_when_locked(past: Path) -> None:
    (past / MANIFEST).write_text("not even a manifest: [")  # the run directory has its own
    with (past / "rows.jsonl").open("a") as file:
        file.write("\n")
    code, said = call(past, "run", "--from", "runs/first", "--locked")
    assert code == Exit.MANIFEST and "error: rows.jsonl is not what was locked" in said
    assert "leave --locked out" in said
    code, said = call(past, "run", "--from", "runs/first", "--out", "runs/second")
    assert code == Exit.DONE and "warning: rows.jsonl is not what was locked" in said
    problems = [problem["code"] for problem in read(past / "runs/second/report.json")["problems"]]
    assert problems.count("lock/data") == 1


def edit_record(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "runs/first/run.lock.json"
        record = read(path)
        change(record)
        path.write_text(json.dumps(record))

    return edit


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "words", "code", "exit_code"),
    [
        (lambda folder: None, ("--out", "runs/first"), "repeat/same-directory", Exit.RUN_DIRECTORY),
        (lambda folder: None, (MANIFEST,), "usage/run", Exit.USAGE),
        (lambda folder: None, ("--set", "seed=1"), "usage/run", Exit.USAGE),
        (lambda folder: (folder / "runs/first/run.lock.json").unlink(), (), "repeat/missing", Exit.INPUT_MISSING),
        (lambda folder: shutil.rmtree(folder / "runs/first"), (), "repeat/missing", Exit.INPUT_MISSING),
        (write("runs/first/run.lock.json", '{"run_id": '), (), "repeat/damaged", Exit.MANIFEST),
        (write("runs/first/run.lock.json", "[]"), (), "repeat/damaged", Exit.MANIFEST),
        (write("runs/first/run.lock.json", '{"run_id": "a"}'), (), "repeat/version", Exit.MANIFEST),
        (edit_record(lambda record: record.update(schema_version=9)), (), "repeat/version", Exit.MANIFEST),
        (edit_record(lambda record: record.pop("stands_on")), (), "repeat/damaged", Exit.MANIFEST),
        (edit_record(lambda record: record["stands_on"].update(data=3)), (), "repeat/damaged", Exit.MANIFEST),
        (
            edit_record(lambda record: record["manifest"].update(overrides=["seed=9"])),
            (),
            "repeat/damaged",
            Exit.MANIFEST,
        ),
        (write("runs/first/manifest.yaml", "name: other\n"), (), "repeat/damaged", Exit.MANIFEST),
        (lambda folder: (folder / "runs/first/manifest.yaml").unlink(), (), "repeat/damaged", Exit.MANIFEST),
        (write("runs/first/report.json", "{}"), ("--locked",), "repeat/unfinished", Exit.MANIFEST),
    ],
)
def test_a_directory_that_cannot_be_repeated_says_why(
    damage: Callable[[Path], object], words: tuple[str, ...], code: str, exit_code: Exit, past: Path
) -> None:
    damage(past)
    got, said = call(past, "run", "--from", "runs/first", *words)
    assert (got, f"[{code}]" in said) == (exit_code, True), said
    assert "fix:" in said and "Traceback" not in said and not list((past / "runs").glob("*-repeat"))


def test_a_run_whose_files_are_gone_says_where_they_were_looked_for(finished: Path, tmp_path: Path) -> None:
    lone = shutil.copytree(finished / "runs/first", tmp_path / "lone")
    record = read(lone / "run.lock.json")
    record["manifest"]["path"] = str(tmp_path / "gone/soak.yaml")
    (lone / "run.lock.json").write_text(json.dumps(record))
    code, said = call(tmp_path, "run", "--from", str(lone))
    assert code == Exit.INPUT_MISSING and "[repeat/moved]" in said
    assert f"nor in {tmp_path / 'gone'}: rows.jsonl is missing" in said


def test_a_run_with_set_values_is_repeated_with_them(past: Path) -> None:
    words = ("--set", "hyperparameters.max_steps=2", "--set", "gate.reason=other words")
    assert call(past, "run", MANIFEST, "--out", "runs/set", *words)[0] == Exit.DONE
    code, said = call(past, "run", "--from", "runs/set", "--locked", "--out", "runs/again")
    assert code == Exit.DONE and "bit for bit" in said
    assert read(past / "runs/again/report.json")["training"]["num_steps"] == 2


def test_a_run_that_was_killed_keeps_both_attempts_in_its_record(project: Path) -> None:
    out = project / "out"
    command = [sys.executable, "-m", "runner", MANIFEST, "--out", "out", "--set", "hyperparameters.max_steps=40"]
    cache = str(project.parent / f"{project.name}-cache")
    own = {"RUNNER_CACHE": cache, "RUNNER_IMAGE_DIGEST": "sha256:0123", "MY_API_KEY": "a-secret-of-mine"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RUNNER_LOG": "text", **own}
    first = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.DEVNULL)
    while first.poll() is None and not list(out.glob("train/checkpoints/checkpoint-*/COMMIT.json")):
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    record = record_of(out)
    assert record["attempts"][-1]["exit_code"] is None and record["weights_sha256"] is None
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == Exit.DONE, done.stdout
    record = record_of(out)
    killed, last = record["attempts"]
    assert (killed["number"], killed["exit_code"], killed["ended_at"], killed["stage"]) == (1, None, None, "train")
    assert (last["number"], last["exit_code"], last["stage"]) == (2, 0, "roi") and last["saved_step"] == 40
    assert killed["started_at"] <= last["started_at"] <= last["ended_at"]
    assert killed["packages_sha256"] == last["packages_sha256"] == record["software"]["packages_sha256"]
    assert record["image"]["digest"] == "sha256:0123" and record["environment"]["OMP_NUM_THREADS"] == "1"
    assert record["hardware"]["processor"] and record["software"]["packages"]["torch"]
    assert "a-secret-of-mine" not in (out / "run.lock.json").read_text() and "MY_API_KEY" not in str(record)
    assert record["weights_sha256"] == read(out / "report.json")["training"]["weights_sha256"]


def test_a_manifest_whose_secrets_were_masked_is_not_repeated_from_its_directory(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "project", tiny_model)
    text = (folder / MANIFEST).read_text().replace('"a soak"', f'"see https://user:{"pass" * 3}@host.test/x"')
    (folder / MANIFEST).write_text(text)
    commit(folder)
    code, said = call(folder, "run", MANIFEST, "--out", "out")
    assert code == Exit.DONE, said
    assert "passpasspass" not in "".join(path.read_text() for path in (folder / "out").glob("*.*"))
    code, said = call(folder, "run", "--from", "out")
    assert code == Exit.MANIFEST and "[repeat/damaged]" in said and "a secret was masked" in said
