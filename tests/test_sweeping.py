"""`runner run` of a manifest with a sweep: real points on a tiny model, each in its own process and directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit
from runner.identity import identify
from runner.manifest import load_manifest
from runner.outcome import MAX_BYTES
from runner.rundir import RunDirectory
from runner.sweep import ALONE, point_directory, points
from tests.errors import call
from tests.whole_runs import MARK, ROOT, Experiment, make_experiment, processes

GRID = {"grid": {"hyperparameters.learning_rate": [1e-3, 1e-2], "hyperparameters.rank": [4, 8]}}
GATE = {"policy": "warn", "reason": "a test", "arms": ["zero_shot"]}
SECONDS = 300.0


class Sweep:
    """A manifest with a sweep, its folder, and the command in processes of its own."""

    def __init__(self, folder: Path, model: Path, sweep: Mapping[str, Any] = GRID, **changes: Any):
        self.experiment: Experiment = make_experiment(folder, model, num_steps=3, gate=GATE, sweep=sweep, **changes)
        self.out = folder / "out"
        self.log = folder / "log.txt"
        self.message = folder / "message"
        self.message.touch()
        self.points = points(load_manifest(self.experiment.manifest))

    def start(self, *more: str, out: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        own = self.experiment.environment("sweep", out or self.out) | {
            "RUNNER_TERMINATION_LOG": str(self.message),
            **environment,
        }
        with self.log.open("w") as log:
            command = [*self.experiment.command(out or self.out), *more]
            return subprocess.Popen(command, cwd=ROOT, env=own, stdout=log, stderr=subprocess.STDOUT)

    def run(self, *more: str, **named: Any) -> int:
        return self.start(*more, **named).wait(SECONDS)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def folder(self, number: int) -> Path:
        return point_directory(self.out, self.points[number])

    def report(self, number: int) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder(number) / "report.json").read_text())
        return report

    def wait_for(self, number: int, stage: str, process: subprocess.Popen[bytes]) -> None:
        """Returns when the point's latest attempt has come to the stage."""
        while process.poll() is None:
            with suppress(OSError):
                attempt = (self.folder(number) / "events.jsonl").read_text().rpartition('"attempt"')[2]
                if f'"stage": "{stage}"' in attempt:
                    return
            time.sleep(0.02)
        raise AssertionError(f"the sweep ended before point {number} came to '{stage}':\n{self.said}")


def state(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Callable[..., Sweep]:
    return lambda *args, **changes: Sweep(tmp_path / "sweep", tiny_model, *args, **changes)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Sweep:
    """A sweep of two by two that was asked to stop while it trained its second point."""
    sweep = Sweep(tmp_path_factory.mktemp("stopped") / "sweep", tiny_model)
    process = sweep.start()
    sweep.wait_for(1, "train", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == Exit.INTERRUPTED, sweep.said
    return sweep


@pytest.mark.slow
def test_a_sweep_of_two_by_two_is_stopped_goes_on_and_is_not_repeated(stopped: Sweep) -> None:
    sweep = stopped
    assert [sweep.report(i)["status"] for i in (0, 1)] == ["done", "interrupted"]
    assert not sweep.folder(2).exists()
    assert json.loads((sweep.out / "sweep.json").read_text())["status"] == "interrupted"
    end = json.loads(sweep.message.read_text())
    assert (end["exit_code"], end["retry"]) == (75, True) and "Best so far" in end["verdict_text"]
    assert end["next"].endswith(f"{sweep.experiment.manifest} --out {sweep.out}")
    assert processes("sweep") == []

    first, answers = state(sweep.folder(0)), state(sweep.experiment.cache)
    assert sweep.run() == Exit.DONE, sweep.said
    assert state(sweep.folder(0)) == first, "a finished point is not touched"
    assert "(1 of 4): learning_rate=0.001,rank=4: already done" in sweep.said

    after = state(sweep.experiment.cache)
    shared = {path: when for path, when in answers.items() if "tuned-" not in path.name}
    assert len(shared) > 3 and any(path.name.startswith("base-") for path in shared)
    assert {path: after[path] for path in shared} == shared, "rows are not prepared again, nor is the base asked again"
    assert {path for path in after if path not in answers} == {p for p in after if "tuned-" in p.name} - set(answers)

    before = state(sweep.out)
    assert sweep.run() == Exit.DONE and state(sweep.out) == before
    assert len(sweep.message.read_bytes()) <= MAX_BYTES
    code, said = call("list", str(sweep.out))
    assert (code, said.count(" done "), said.splitlines()[-1]) == (Exit.DONE, 4, "4 runs")
    code, said = call("report", str(sweep.out))
    assert (code, "Best by dev loss" in said) == (Exit.DONE, True)
    report = json.loads((sweep.out / "sweep.json").read_text())
    losses = [row["dev_loss"] for row in report["points"]]
    assert report["best"]["number"] == losses.index(min(losses))
    assert all(sweep.points[i].label in (sweep.out / "sweep.html").read_text() for i in range(4))


@pytest.mark.slow
def test_a_point_alone_is_the_very_same_run(stopped: Sweep, tmp_path: Path) -> None:
    """By its number, by the environment, and by hand: one run id, and the finished one is not repeated."""
    sweep, point = stopped, stopped.points[0]
    assert sweep.report(0)["run_id"] == point.run_id
    before = state(sweep.folder(0))
    assert sweep.run("--point", "0") == sweep.run(RUNNER_POINT="0") == Exit.DONE, sweep.said
    assert "Already done" in sweep.said and state(sweep.folder(0)) == before
    sets = [word for value in (ALONE, *point.overrides) for word in ("--set", value)]
    assert sweep.run(*sets, out=tmp_path / "alone") == Exit.DONE
    alone = json.loads((tmp_path / "alone" / "report.json").read_text())
    assert alone["run_id"] == point.run_id
    assert alone["training"]["weights_sha256"] == sweep.report(0)["training"]["weights_sha256"]


@pytest.mark.slow
def test_a_fault_of_one_point_does_not_stop_the_others(make: Callable[..., Sweep]) -> None:
    points = {"gone": {"data.train": "gone.jsonl"}, "good": {}}
    sweep = make({"points": points}, tracking={"wandb": "offline"})
    assert sweep.run("--log", "json") == Exit.INPUT_MISSING, sweep.said
    assert [sweep.report(i)["status"] for i in (0, 1)] == ["failed", "done"]
    events = [json.loads(line) for line in sweep.said.splitlines() if line.startswith("{")]
    assert [event["status"] for event in events if event["event"] == "point"] == ["failed", "done"]
    end = events[-1]
    assert (end["event"], end["exit_code"], end["status"]) == ("end", 66, "failed")
    assert [problem["code"] for problem in end["problems"]] == ["sweep/point-failed"]
    assert "The data file cannot be read" in end["problems"][0]["what"]
    assert "Best by dev loss: point 1" in end["verdict_text"]
    (tracked,) = sweep.folder(1).rglob("run-*.wandb")
    assert b"soak-sweep" in tracked.read_bytes(), "W&B shows the points as a group"


@pytest.mark.slow
def test_a_point_that_is_killed_is_for_the_next_time_and_the_others_go_on(make: Callable[..., Sweep]) -> None:
    sweep = make({"seeds": [1, 2]})
    process = sweep.start()
    sweep.wait_for(0, "train", process)
    (own,) = [pid for pid in processes("sweep") if pid != process.pid]
    os.kill(own, signal.SIGKILL)
    assert process.wait(SECONDS) == Exit.INTERRUPTED, sweep.said
    assert "point 0 was ended by signal 9" in sweep.said
    statuses = [row["status"] for row in json.loads((sweep.out / "sweep.json").read_text())["points"]]
    assert statuses == ["killed", "done"]


@pytest.mark.slow
def test_no_point_outlives_a_sweep_that_is_killed(make: Callable[..., Sweep]) -> None:
    sweep = make({"seeds": [1, 2]})
    process = sweep.start()
    sweep.wait_for(0, "plan", process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while processes("sweep") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes("sweep") == []


@pytest.mark.slow
def test_a_disk_that_fails_one_point_would_fail_the_others(make: Callable[..., Sweep], tmp_path: Path) -> None:
    """Codes that are worth a retry leave the other points for it."""
    sweep = make({"points": {"a": {}, "b": {"hyperparameters.rank": 4}}}, budget={"max_idle_attempts": 3})
    sweep.experiment.cache.write_text("no folder")
    assert sweep.run() == Exit.IO, sweep.said
    assert sweep.report(0)["exit_code"] == Exit.IO and not sweep.folder(1).exists()


def test_a_sweep_is_not_made_in_the_directory_of_a_run(make: Callable[..., Sweep]) -> None:
    sweep = make()
    sweep.out.mkdir()
    (sweep.out / "run.lock.json").write_text('{"run_id": "x"}')
    assert sweep.run() == Exit.RUN_DIRECTORY
    assert "[sweep/run-directory]" in sweep.said and not (sweep.out / "sweep.json").exists()


def test_a_second_runner_of_a_sweep_is_turned_away(make: Callable[..., Sweep]) -> None:
    sweep = make()
    run = RunDirectory(sweep.out)
    assert sweep.run() == Exit.RUN_DIRECTORY and "[run/locked]" in sweep.said
    run.close()


def test_processes_that_train_together_are_given_one_point(make: Callable[..., Sweep]) -> None:
    sweep = make()
    assert sweep.run(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="localhost", MASTER_PORT="1") == Exit.USAGE
    assert "[sweep/several-processes]" in sweep.said


def test_a_point_that_there_is_not_is_a_fault_of_the_command_line(make: Callable[..., Sweep]) -> None:
    sweep = make()
    assert sweep.run("--point", "4") == Exit.USAGE and "points 0 to 3" in sweep.said
    assert not sweep.out.exists()


def test_a_plan_shows_the_points_and_what_all_of_them_would_take(
    make: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make()
    monkeypatch.setenv("RUNNER_CACHE", str(sweep.experiment.cache))
    _, said = call("plan", str(sweep.experiment.manifest), "--point", "3")
    assert all(point.label in said and point.run_id in said for point in sweep.points)
    assert "What follows is of point 3" in said and "hours, 4 points like this one" in said
    assert identify(sweep.points[3].manifest) == sweep.points[3].run_id


def test_a_sweep_by_itself_loads_nothing_heavy(make: Callable[..., Sweep]) -> None:
    """What trains is a process of its own."""
    sweep = make()
    heavy = "{'torch', 'transformers', 'numpy', 'pyarrow'}"
    code = f"import sys, runner.cli.running\nassert not {heavy} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=sweep.experiment.environment(MARK, sweep.out), check=False
    )
    assert done.returncode == 0
