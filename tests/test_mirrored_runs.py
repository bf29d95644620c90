"""Whole runs whose directory has a mirror in an object store: machines come and go, the run stays."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runner.errors import Exit
from tests.store_server import BUCKET, StoreServer, refusing, serving_store
from tests.tiny import make_model
from tests.whole_runs import Experiment, Run, left_alone, make_experiment, result

SCRIPT = Path(__file__).parents[1] / "scripts" / "soak_kill.py"
URL = f"s3://{BUCKET}/exp"
pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with serving_store() as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def mirrored(tmp_path: Path, server: StoreServer, model: Path) -> Experiment:
    """A run with a mirror."""
    return replace(make_experiment(tmp_path / "exp", model), mirror=URL, store=server.environment)


def run_cli(experiment: Experiment, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runner", *arguments]
    environment = {**experiment.environment("mirror", out), "RUNNER_LOG": "text"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def begun(run: Run) -> None:
    """Returns once the run is in its first stage, and so has its mirror."""
    while run.stage == "start" and not run.is_over:
        time.sleep(0.05)


@pytest.fixture
def soak_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak_kill", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak_kill", module)
    spec.loader.exec_module(module)
    return module


def test_machines_that_are_lost_one_after_another_change_nothing(
    soak_script: ModuleType, server: StoreServer, tmp_path: Path
) -> None:
    done = soak_script.soak(tmp_path, kills=3, per_run=3, seed=3, store=server, say=lambda _: None)
    assert len(done.kills) == 3


def test_a_run_that_is_done_is_done_on_every_machine(mirrored: Experiment, server: StoreServer, tmp_path: Path) -> None:
    assert Run(mirrored, tmp_path / "a").wait() == Exit.DONE
    alone = make_experiment(tmp_path / "alone", Path(json.loads(mirrored.manifest.read_text())["approach"]["model"]))
    assert result(tmp_path / "a") == left_alone(alone, tmp_path / "alone" / "run")
    before = {name: server.read(f"exp/{name}") for name in ("report.json", "events.jsonl")}
    mirrored.lose_machine(tmp_path / "a")
    again = run_cli(mirrored, tmp_path / "b", str(mirrored.manifest), "--out", URL)
    assert (again.returncode, "Already done" in again.stdout) == (Exit.DONE, True)
    assert {name: server.read(f"exp/{name}") for name in before} == before
    assert (tmp_path / "b" / "report.html").is_file() and not (tmp_path / "b" / "model").exists()
    fetched = run_cli(mirrored, tmp_path / "b", "fetch", URL, str(tmp_path / "c"))
    assert fetched.returncode == Exit.DONE, fetched.stdout
    delivered = json.loads((tmp_path / "c" / "report.json").read_text())["training"]["weights_sha256"]
    assert delivered == result(tmp_path / "b")["weights_sha256"]
    assert (tmp_path / "c" / "model" / "adapter_model.safetensors").is_file()


def test_a_store_that_refuses_in_the_middle_lets_the_run_end_and_is_told_in_its_code(
    mirrored: Experiment, server: StoreServer, tmp_path: Path
) -> None:
    run = Run(mirrored, tmp_path / "a")
    begun(run)
    server.fault = refusing
    assert run.wait() == Exit.CREDENTIALS
    assert result(tmp_path / "a")["status"] == "done"
    server.fault = lambda request: None
    assert Run(mirrored, tmp_path / "a").wait() == Exit.DONE
    assert json.loads(server.read("exp/report.json"))["status"] == "done"


@pytest.mark.parametrize(
    ("url", "prepare", "code", "slug"),
    [
        (f"s3://no-such-{BUCKET}/exp", lambda server: None, Exit.RUN_DIRECTORY, "store/no-bucket"),
        (URL, lambda server: setattr(server, "fault", refusing), Exit.CREDENTIALS, "store/refused"),
        (URL, lambda server: server.close(), Exit.UNAVAILABLE, "store/unavailable"),
        (URL, lambda server: server.write("exp/run.lock.json", b"{}"), Exit.RUN_DIRECTORY, "run/other-run"),
        ("s3://bucket", lambda server: None, Exit.USAGE, "store/bad-url"),
    ],
)
def test_a_mirror_that_cannot_be_had_is_told_before_the_work(
    mirrored: Experiment,
    server: StoreServer,
    tmp_path: Path,
    url: str,
    prepare: Callable[[StoreServer], Any],
    code: Exit,
    slug: str,
) -> None:
    prepare(server)
    done = run_cli(mirrored, tmp_path / "a", str(mirrored.manifest), "--out", url)
    assert (done.returncode, f"[{slug}]" in done.stdout, "Traceback" in done.stderr) == (code, True, False), done.stdout
    assert not (tmp_path / "a" / "report.json").exists()


def test_of_two_machines_on_one_mirror_one_is_refused(server: StoreServer, model: Path, tmp_path: Path) -> None:
    long = make_experiment(tmp_path / "exp", model, num_steps=100_000)
    mirrored = replace(long, mirror=URL, store=server.environment)
    first = Run(mirrored, tmp_path / "a")
    begun(first)
    second = run_cli(mirrored, tmp_path / "b", str(mirrored.manifest), "--out", URL)
    first.kill()
    assert (second.returncode, "[run/locked]" in second.stdout) == (Exit.RUN_DIRECTORY, True)
    shutil.rmtree(tmp_path / "a")


def test_several_machines_need_a_directory_that_all_of_them_see(mirrored: Experiment, tmp_path: Path) -> None:
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    several = replace(mirrored, store={**mirrored.store, **ranks})
    done = run_cli(several, tmp_path / "a", str(mirrored.manifest), "--out", URL)
    assert (done.returncode, "[run/mirror-of-many]" in done.stdout) == (Exit.RUN_DIRECTORY, True)


def test_the_points_of_a_sweep_have_their_mirrors_side_by_side(
    server: StoreServer, model: Path, tmp_path: Path
) -> None:
    made = make_experiment(tmp_path / "exp", model, num_steps=4, sweep={"seeds": [1, 2]})
    mirrored = replace(made, mirror=URL, store=server.environment)
    assert Run(mirrored, tmp_path / "a").wait() == Exit.DONE
    reports = [name for name in server.names("exp/") if name.endswith("/report.json")]
    assert len(reports) == 2 and {"exp/sweep.json", "exp/sweep.html"} <= set(server.names("exp/"))
    mirrored.lose_machine(tmp_path / "a")
    before = server.num_requests
    again = run_cli(mirrored, tmp_path / "b", str(mirrored.manifest), "--out", URL)
    assert again.returncode == Exit.DONE and again.stdout.count("Already done") == 2, again.stdout
    assert server.num_requests - before < 40
