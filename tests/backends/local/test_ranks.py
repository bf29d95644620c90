"""Several processes that train as one: their places, what becomes of them, and that they train the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.backends.base import CheckpointPlan, TrainedModel
from runner.backends.local.ranks import ALONE, Ranks, blocks, check_strategy, placed
from runner.backends.local.ranks.job import RankJob
from runner.backends.local.ranks.status import leave_status, raise_outcome
from runner.backends.local.ranks.watch import RankWatch
from runner.errors import Exit, Interrupted, Problem, RunnerError, Where
from tests.backends.local.test_loop import dev_losses, make_job, train_losses
from tests.backends.local.test_session import open_session
from tests.fakes import FakeWatch


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, ALONE),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Ranks(rank=3, size=8, local=1)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, Ranks(rank=3, size=8, local=3)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, ALONE),
        (
            {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "1"},
            Ranks(rank=2, size=4, local=1),
        ),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, ALONE),
    ],
)
def test_a_process_knows_its_place_from_torchrun_or_srun(
    environment: Mapping[str, str], place: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell inside an allocation has SLURM's variables too, but no step: it is no rank."""
    monkeypatch.setattr(os, "environ", environment)
    assert placed() == place


def test_alone_nothing_is_asked_of_others() -> None:
    assert ALONE.any(True, False) == (True, False)
    assert ALONE.least(7) == 7
    assert ALONE.sum(torch.tensor(2.0)) == 2.0
    ALONE.wait()


def test_the_blocks_are_the_longest_list_of_modules() -> None:
    layers = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(3))
    model = torch.nn.ModuleDict({"experts": torch.nn.ModuleList([torch.nn.Linear(1, 1)]), "layers": layers})
    assert blocks(model) == list(layers)
    assert blocks(torch.nn.Linear(1, 1)) == []


@pytest.mark.parametrize(("size", "strategy"), [(2, "sharded"), (2, "alone"), (1, "replicated")])
def test_weights_that_lie_otherwise_than_meant_are_a_bug(size: int, strategy: Any) -> None:
    model = torch.nn.Linear(1, 1)
    check_strategy(model, Ranks(size=2), "replicated")
    check_strategy(model, ALONE, "alone")
    with pytest.raises(RunnerError) as caught:
        check_strategy(model, Ranks(size=size), strategy)
    assert caught.value.exit_code == Exit.BUG


def problem() -> Problem:
    return Problem(code="train/diverged", what="No number.", where=Where(key="hyperparameters.learning_rate"), fix="x")


def test_what_a_rank_says_went_wrong_comes_back_as_it_was(tmp_path: Path) -> None:
    leave_status(tmp_path, 0, Interrupted("train"))
    leave_status(tmp_path, 1, RunnerError(problem(), Exit.MANIFEST))
    with pytest.raises(RunnerError) as caught:
        raise_outcome(tmp_path, 2, 1, None)
    assert (caught.value.exit_code, list(caught.value.problems)) == (Exit.MANIFEST, [problem()])


def test_ranks_that_stopped_were_interrupted_and_those_that_ended_well_are_done(tmp_path: Path) -> None:
    leave_status(tmp_path, 0, None)
    leave_status(tmp_path, 1, None)
    raise_outcome(tmp_path, 2, 0, Interrupted("train"))
    leave_status(tmp_path, 1, Interrupted("train"))
    with pytest.raises(Interrupted):
        raise_outcome(tmp_path, 2, 1, None)


def test_a_bug_in_a_rank_is_a_bug(tmp_path: Path) -> None:
    leave_status(tmp_path, 0, KeyError("x"))
    with pytest.raises(RuntimeError, match="KeyError"):
        raise_outcome(tmp_path, 1, 1, None)


def test_a_rank_that_says_nothing_was_killed(tmp_path: Path) -> None:
    leave_status(tmp_path, 0, None)
    (tmp_path / "status-1.json").write_text('{"outc')
    with pytest.raises(RunnerError) as caught:
        raise_outcome(tmp_path, 2, 1, None)
    assert (caught.value.exit_code, caught.value.problems[0].code) == (Exit.IO, "train/rank-lost")
    assert "process 1 of 2" in caught.value.problems[0].what


def test_a_rank_that_fails_since_another_is_gone_is_no_bug(tmp_path: Path) -> None:
    leave_status(tmp_path, 0, RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Closed by peer"))
    with pytest.raises(RunnerError) as caught:
        raise_outcome(tmp_path, 2, 1, None)
    assert (caught.value.exit_code, caught.value.problems[0].code) == (Exit.IO, "train/rank-lost")
    assert "process 1 of 2" in caught.value.problems[0].what


def test_only_rank_0_tells_and_none_raises_when_asked_to_stop(tmp_path: Path) -> None:
    for rank in (0, 1):
        with (tmp_path / str(rank)).open("w") as out:
            watch = RankWatch(rank, out)
            watch.ask()
            watch.check()
            with watch.progress("train", 2) as bar:
                bar.advance(1, loss=1.0)
            assert watch.asked
    told = [json.loads(line)["runner"] for line in (tmp_path / "0").read_text().splitlines()]
    assert told == ["begin", "advance", "end"]
    assert (tmp_path / "1").read_text() == ""


def test_a_job_is_read_by_its_ranks_as_it_was_written(tiny_model: Path, tmp_path: Path) -> None:
    session: Any = open_session(tiny_model, tmp_path)
    plan = CheckpointPlan(every_steps=3, keep=1)
    told = session._tell(make_job(tmp_path, target_modules=("q_proj",), checkpoint=plan))
    found = RankJob.read(told.write())
    for name in ("model", "method", "name"):
        assert getattr(found, name) == getattr(told, name)
    assert found.job == replace(told.job, train=(), dev=())
    assert list(found.rows) == list(told.rows)
    assert list(found.dev) == list(told.dev)


def train(model: Path, tmp_path: Path, name: str, method: str, processes: int, **changes: Any) -> TrainedModel:
    made = make_job(tmp_path / name, method=method, processes=processes, **changes)
    return open_session(model, tmp_path, method).train(made, FakeWatch())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "strategy"), [("lora", "replicated"), ("full", "sharded")])
def test_two_processes_train_as_one_does(tiny_model: Path, tmp_path: Path, method: str, strategy: str) -> None:
    """Micro-batches of a row each, so that shards have unlike numbers of them, and an odd batch."""
    options = {"batch_size": 5, "epochs": 1.5, "packing": False, "learning_rate": 3e-3}
    one = train(tiny_model, tmp_path, "one", method, 1, **options)
    two = train(tiny_model, tmp_path, "two", method, 2, **options)
    assert (one.strategy, one.num_processes) == ("alone", 1)
    assert (two.strategy, two.num_processes) == (strategy, 2)
    assert train_losses(two) == pytest.approx(train_losses(one), abs=1e-4)
    assert dev_losses(two) == pytest.approx(dev_losses(one), abs=1e-4)
    assert two.train_tokens == one.train_tokens
    assert two.num_parameters == one.num_parameters
    assert two.trainable_parameters == one.trainable_parameters
    assert dev_losses(one)[one.num_steps] < dev_losses(one)[0] - 0.05


@pytest.mark.slow
def test_a_rank_that_lost_torchrun_while_it_started_ends(tiny_model: Path, tmp_path: Path) -> None:
    """The kernel ends a rank with its parent only once it has asked for that, some seconds after it was started."""
    session: Any = open_session(tiny_model, tmp_path)
    path = session._tell(make_job(tmp_path)).write()
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    environment |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "RANK_TEST": str(tmp_path)}
    parent = [sys.executable, "-c", "import subprocess, sys; subprocess.Popen(sys.argv[1:])"]
    worker = [sys.executable, "-m", "runner.backends.local.worker", str(path)]
    subprocess.run([*parent, *worker], env=environment, check=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while (left := _marked(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def _marked(mark: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"RANK_TEST={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
