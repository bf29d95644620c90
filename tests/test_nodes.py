"""Two machines, which here are two command lines that know of each other only by a port, train as one machine does."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runner.backends import Node, node, place
from runner.cli.node import exit_of
from runner.errors import Exit, RunnerError
from tests.whole_runs import Run, left_alone, make_experiment, result, saved_step

TOLD = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "first", "PET_MASTER_PORT": "29400"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"PET_NNODES": "1", "PET_NPROC_PER_NODE": "8"}, None),
        ({**TOLD, "RANK": "3", "WORLD_SIZE": "4"}, None),
        ({**TOLD, "SLURM_STEP_ID": "0"}, None),
        (TOLD, Node(rank=1, size=2, processes=None, address="first", port=29400)),
        ({**TOLD, "PET_NPROC_PER_NODE": "4"}, Node(rank=1, size=2, processes=4, address="first", port=29400)),
    ],
)
def test_a_machine_knows_that_it_is_one_of_several(environment: Mapping[str, str], expected: Node | None) -> None:
    assert node(environment) == expected


def test_what_is_no_number_of_machines_is_the_command_lines_fault() -> None:
    with pytest.raises(RunnerError) as caught:
        node({**TOLD, "PET_NNODES": "1:4"})
    assert (caught.value.exit_code, caught.value.problems[0].code) == (Exit.USAGE, "usage/environment")
    assert "PET_NNODES is '1:4'" in caught.value.problems[0].what


def test_every_process_of_every_machine_has_a_place_of_its_own() -> None:
    places = [
        place(Node(rank=rank, size=2, processes=4, address="first", port=1).place(local, 4))
        for rank in range(2)
        for local in range(4)
    ]
    assert [found.rank for found in places] == list(range(8))
    assert {(found.size, found.local) for found in places} == {(8, local) for local in range(4)}


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], Exit.DONE),
        ([75, 75], Exit.INTERRUPTED),
        ([0, 78], Exit.MANIFEST),
        ([-9, 74], Exit.IO),
        ([1, 1], Exit.IO),
    ],
)
def test_a_machine_ends_with_the_runs_code_unless_a_process_was_killed(codes: list[int], code: Exit) -> None:
    assert exit_of(codes) == code


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Any, Mapping[str, Any]]:
    """An experiment of two processes, and the result where both are on one machine."""
    folder = tmp_path_factory.mktemp("two")
    experiment = make_experiment(folder, tiny_model, ranks=2, num_steps=30)
    return experiment, left_alone(experiment, folder / "one-machine")


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Runs that end with the test, whatever becomes of it."""
    started: list[Run] = []
    yield started
    for run in started:
        run.kill()


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def start(who: str, experiment: Any, out: Path, runs: list[Run]) -> list[Run]:
    """The command line of each of two machines, as torchrun, Kubeflow's trainer (and our jobs) or srun starts it."""
    port = str(free_port())
    found = []
    for rank in range(2):
        before: list[str] = []
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "HOSTNAME": f"machine-{rank}"}
        if who == "torchrun":
            before = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}"]
            before += ["--master-addr=127.0.0.1", f"--master-port={port}"]
        elif who == "kubeflow":
            environment = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_NODE_RANK": str(rank)}
            environment |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
        else:
            environment |= {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "2"}
            environment |= {"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
        found.append(Run(experiment, out, *before, environment=environment))
    runs += found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("who", ["torchrun", "kubeflow", "srun"])
def test_two_machines_train_the_weights_that_one_does(
    who: str, two: tuple[Any, Mapping[str, Any]], tmp_path: Path, runs: list[Run]
) -> None:
    experiment, expected = two
    assert [run.wait() for run in start(who, experiment, tmp_path / "run", runs)] == [0, 0]
    assert result(tmp_path / "run") == expected
    training = json.loads((tmp_path / "run" / "report.json").read_text())["training"]
    assert (training["num_processes"], training["strategy"]) == (2, "replicated")


@pytest.mark.long
def test_a_machine_alone_takes_nothing_from_what_several_would_be_told(
    two: tuple[Any, Mapping[str, Any]], tmp_path: Path, runs: list[Run]
) -> None:
    """Kubeflow's trainer sets the same variables for one machine, and torchrun, which we start there, reads them."""
    experiment, expected = two
    told = {**TOLD, "PET_NNODES": "1", "PET_NODE_RANK": "0", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "nowhere"}
    runs.append(Run(experiment, tmp_path / "run", environment=told))
    assert runs[0].wait() == 0
    assert result(tmp_path / "run") == expected


@pytest.mark.long
def test_a_machine_that_is_asked_to_stop_stops_all_and_they_go_on(
    two: tuple[Any, Mapping[str, Any]], tmp_path: Path, runs: list[Run]
) -> None:
    experiment, expected = two
    first, second = start("kubeflow", experiment, tmp_path / "run", runs)
    wait_for_step(tmp_path / "run", 3, first)
    second.process.send_signal(signal.SIGTERM)
    assert [run.wait(90) for run in (first, second)] == [Exit.INTERRUPTED, Exit.INTERRUPTED]
    assert [run.wait() for run in start("kubeflow", experiment, tmp_path / "run", runs)] == [0, 0]
    assert result(tmp_path / "run") == expected


@pytest.mark.long
@pytest.mark.parametrize("lost", [0, 1])
def test_a_machine_that_vanishes_ends_the_other_with_a_code_that_is_tried_again(
    lost: int, two: tuple[Any, Mapping[str, Any]], tmp_path: Path, runs: list[Run]
) -> None:
    experiment, expected = two
    both = start("kubeflow", experiment, tmp_path / "run", runs)
    wait_for_step(tmp_path / "run", 3, both[0])
    both[lost].kill()
    assert both[1 - lost].wait(120) == Exit.IO
    assert [run.wait() for run in start("kubeflow", experiment, tmp_path / "run", runs)] == [0, 0]
    assert result(tmp_path / "run") == expected


@pytest.mark.long
def test_a_process_that_is_killed_alone_ends_its_machine_with_a_code_that_is_tried_again(
    two: tuple[Any, Mapping[str, Any]], tmp_path: Path, runs: list[Run]
) -> None:
    experiment, _ = two
    first, second = start("kubeflow", experiment, tmp_path / "run", runs)
    wait_for_step(tmp_path / "run", 3, first)
    [child] = [pid for pids in second.members().values() for pid in pids if pid != second.process.pid]
    os.kill(child, signal.SIGKILL)
    assert [run.wait(120) for run in (first, second)] == [Exit.IO, Exit.IO]


def wait_for_step(out: Path, step: int, run: Run) -> None:
    deadline = time.monotonic() + 120
    while True:
        with suppress(OSError):
            if saved_step(out) >= step:
                return
        assert not run.is_over and time.monotonic() < deadline
        time.sleep(0.01)
