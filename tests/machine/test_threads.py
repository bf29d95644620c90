"""Threads are settled once, from what the machine and its limits allow, and wait passively unless told otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.machine.cgroups import cpu_limit
from runner.machine.threads import PASSIVE, Threads, settle, unsettled


def machine(root: Path, cores: int = 4, threads_per_core: int = 1) -> Path:
    """A root whose sys tells of so many cores."""
    cpus = root / "sys/devices/system/cpu"
    for number in range(cores * threads_per_core):
        siblings = ",".join(str(number % cores + cores * i) for i in range(threads_per_core))
        (cpus / f"cpu{number}/topology").mkdir(parents=True)
        (cpus / f"cpu{number}/topology/thread_siblings_list").write_text(f"{siblings}\n")
    (cpus / "online").write_text(f"0-{cores * threads_per_core - 1}\n")
    return root


def limit(root: Path, group: str, text: str, version: int = 2) -> None:
    """A group's own limit, and this process in it."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    controllers = "" if version == 2 else "cpu,cpuacct"
    (root / "proc/self/cgroup").write_text(f"3:memory:/x\n0:{controllers}:{group}\n")
    folder = root / "sys/fs/cgroup" / ("" if version == 2 else "cpu,cpuacct") / group.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{text}\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(text.split()[0])
        (folder / "cpu.cfs_period_us").write_text(text.split()[1])


def settled(root: Path, mask: range = range(4), **environment: str) -> Threads:
    return settle(environment, root, mask)


def test_a_thread_for_each_core_of_a_machine_without_limits(tmp_path: Path) -> None:
    found = settled(machine(tmp_path))
    assert (found.count, found.origin) == (4, "the machine's cores (4)")


def test_two_hyperthreads_share_a_core(tmp_path: Path) -> None:
    assert settled(machine(tmp_path, cores=4, threads_per_core=2), range(8)).count == 4


def test_processors_that_we_may_not_run_on_do_not_count(tmp_path: Path) -> None:
    found = settled(machine(tmp_path), range(2))
    assert (found.count, found.origin) == (2, "the cores that this process may run on (2)")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("text", "limit_cpus", "count"),
    [
        ("150000 100000", 1.5, 1),
        ("250000 100000", 2.5, 2),
        ("100000 100000", 1.0, 1),
        ("10000 100000", 0.1, 1),
        ("800000 100000", 8.0, 4),
    ],
)
def test_a_containers_limit_is_honoured(tmp_path: Path, version: int, text: str, limit_cpus: float, count: int) -> None:
    limit(machine(tmp_path), "/docker/abc", text, version)
    assert cpu_limit(tmp_path) == limit_cpus
    found = settled(tmp_path)
    assert found.count == count
    assert ("limit of" in found.origin) == (count < 4)


def test_the_narrowest_limit_of_the_groups_around_us_holds(tmp_path: Path) -> None:
    limit(machine(tmp_path), "/pod", "100000 100000")
    limit(tmp_path, "/pod/container", "300000 100000")
    assert cpu_limit(tmp_path) == 1.0


@pytest.mark.parametrize(("version", "text"), [(2, "max 100000"), (1, "-1 100000"), (2, "broken")])
def test_no_limit_is_none(tmp_path: Path, version: int, text: str) -> None:
    limit(machine(tmp_path), "/a", text, version)
    assert cpu_limit(tmp_path) is None


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_persons_own_number_is_taken_and_is_each_processs(tmp_path: Path, name: str) -> None:
    found = settled(machine(tmp_path), **{name: "3,2"})
    assert (found.count, found.origin, found.of_each(2)) == (3, name, 3)


def test_what_is_no_number_of_threads_is_said_and_not_passed_on(tmp_path: Path) -> None:
    environment = {"OMP_NUM_THREADS": "many"}
    found = settle(environment, machine(tmp_path), range(4))
    assert found.count == 4 and "OMP_NUM_THREADS='many'" in found.origin
    assert environment["OMP_NUM_THREADS"] == "4"


def test_ranks_share_the_threads(tmp_path: Path) -> None:
    found = settled(machine(tmp_path))
    assert [found.of_each(n) for n in (1, 2, 3, 8)] == [4, 2, 1, 1]


@pytest.mark.parametrize(
    ("environment", "mask", "count"),
    [
        ({"LOCAL_WORLD_SIZE": "2"}, range(4), 2),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "4(x2),1"}, range(4), 1),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "2"}, range(2), 2),
        ({"SLURM_STEP_TASKS_PER_NODE": "4"}, range(4), 4),
    ],
)
def test_ranks_that_somebody_else_started_share_them_too(
    tmp_path: Path, environment: dict[str, str], mask: range, count: int
) -> None:
    """Where srun gave each task processors of its own, there is nothing more to share."""
    assert settle(environment, machine(tmp_path), mask).count == count


def test_threads_wait_passively_unless_somebody_said_how(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    found = settle(environment, machine(tmp_path), range(4))
    assert (found.waiting, found.waiting_origin) == ("passive", "default")
    assert environment == {**PASSIVE, "OMP_NUM_THREADS": "4"}
    for name, value in (("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "5"), ("KMP_BLOCKTIME", "200")):
        own = {name: value}
        found = settle(own, tmp_path, range(4))
        assert found.waiting_origin == f"{name}={value}"
        assert own == {name: value, "OMP_NUM_THREADS": "4"}


def test_what_comes_too_late_is_not_claimed(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    found = settle(environment, machine(tmp_path), range(4), is_late=True)
    assert found.waiting != "passive" and not environment


WHAT_TORCH_DOES = """
import os
from runner.backends import load
environment = load("lora").environment()
print(environment["num_threads"], environment["threads"]["count"], os.environ["OMP_WAIT_POLICY"])
"""


TRAIN = """
import sys
from pathlib import Path
from runner.machine.threads import settled
settled()
from tests.backends.local.test_loop import make_job
from tests.backends.local.test_session import open_session
from tests.fakes import FakeWatch
model, work = map(Path, sys.argv[1:])
print(open_session(model, work, "lora").train(make_job(work / "job", max_steps=4), FakeWatch()).weights_sha256)
"""


@pytest.mark.slow
def test_how_threads_wait_changes_no_weight(tiny_model: Path, tmp_path: Path) -> None:
    hashes = set()
    for name, own in (("passive", {}), ("spinning", {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"})):
        (tmp_path / name).mkdir()
        others = {key: value for key, value in os.environ.items() if key not in PASSIVE}
        command = [sys.executable, "-c", TRAIN, str(tiny_model), str(tmp_path / name)]
        done = subprocess.run(
            command, env={**others, **own, "OMP_NUM_THREADS": "2"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout.split()[-1])
    assert len(hashes) == 1


@pytest.mark.slow
def test_torch_computes_with_the_threads_that_were_settled() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", WHAT_TORCH_DOES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "PASSIVE"]


@pytest.mark.parametrize(
    "given",
    [{}, {"OMP_NUM_THREADS": "3"}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_NUM_THREADS": "2", "KMP_BLOCKTIME": "1"}],
)
def test_a_process_that_settles_for_itself_gets_what_was_given_and_no_more(
    tmp_path: Path, given: dict[str, str]
) -> None:
    environment = {"HOME": "/", **given}
    threads = settle(environment, machine(tmp_path), range(4))
    assert unsettled(environment, threads) == {"HOME": "/", **given}
    assert environment != {"HOME": "/", **given} or len(given) == 2
