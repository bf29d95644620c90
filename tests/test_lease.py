"""One runner a directory where locks do not reach: a lease that is refreshed, refused while it is, and taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner import lease, rundir
from runner.errors import Exit, RunnerError
from runner.lease import NAME, is_local, take_lease
from runner.rundir import RunDirectory

ROOT = Path(__file__).parents[1]
HOLDER = "import sys, time; from pathlib import Path; from runner.lease import take_lease\n"
HOLDER += "held = take_lease(Path(sys.argv[1]), lambda: None); assert held; print('held', flush=True); time.sleep(60)"


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts another process that holds the lease on the test's folder."""
    started: list[subprocess.Popen[str]] = []

    def start(*before: str) -> subprocess.Popen[str]:
        command = [*before, sys.executable, "-c", HOLDER, str(tmp_path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        if process.stdout.readline() != "held\n":
            pytest.skip(f"NOT TESTED: {process.stderr.read() if process.stderr else ''}")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/data/x", False),
        ("/data", False),
        ("/database", True),
        ("/mnt/a b/c", False),
        ("/unknown/x", False),
        ("/twice/x", False),
        ("/", True),
    ],
)
def test_only_known_kinds_of_local_mounts_are_trusted_with_locks(path: str, local: bool, tmp_path: Path) -> None:
    mounts = [
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        "2 1 0:50 / /data rw master:3 - nfs4 server:/data rw",
        "3 1 0:51 / /mnt/a\\040b rw - fuse.gcsfuse bucket rw",
        "4 1 0:52 / /unknown rw - newfs none rw",
        "5 1 0:53 / /twice rw - xfs /dev/sdb rw",
        "6 5 0:54 / /twice rw - fuse.s3fs s3fs rw",
    ]
    (tmp_path / "mountinfo").write_text("\n".join(mounts) + "\n")
    assert is_local(Path(path), tmp_path / "mountinfo") is local
    assert not is_local(Path(path), tmp_path / "missing")


def test_a_holder_that_lives_is_not_followed_and_that_is_known_soon(
    hold: Callable[..., object], tmp_path: Path
) -> None:
    hold()
    started = time.monotonic()
    assert take_lease(tmp_path, lambda: None) is None
    assert time.monotonic() - started < 2


def test_a_holder_of_another_namespace_that_lives_is_not_followed(hold: Callable[..., object], tmp_path: Path) -> None:
    hold("unshare", "--pid", "--fork", "--uts")
    assert take_lease(tmp_path, lambda: None) is None


def test_a_holder_on_this_machine_that_was_killed_is_followed_at_once(
    hold: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = hold()
    process.kill()
    process.wait()
    started = time.monotonic()
    found = take_lease(tmp_path, lambda: None)
    assert found is not None and time.monotonic() - started < 2
    found.release()


def elsewhere(folder: Path) -> None:
    """The marker of a holder on another machine."""
    found = take_lease(folder, lambda: None)
    assert found is not None
    text = (folder / NAME).read_text()
    found.release()
    host = next(line for line in text.splitlines() if line.startswith("host="))
    (folder / NAME).write_text(text.replace(host, "host=another-machine"))


def test_a_machine_that_is_lost_is_followed_once_its_lease_has_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.5)
    elsewhere(tmp_path)
    started = time.monotonic()
    found = take_lease(tmp_path, lambda: None)
    assert found is not None and time.monotonic() - started > 1.4
    found.release()


def test_a_machine_that_refreshes_its_lease_is_not_followed(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    over = threading.Event()

    def refresh() -> None:
        while not over.wait(0.3):
            os.utime(tmp_path / NAME)

    thread = threading.Thread(target=refresh)
    thread.start()
    started = time.monotonic()
    try:
        assert take_lease(tmp_path, lambda: None) is None
        assert time.monotonic() - started < 2
    finally:
        over.set()
        thread.join()


def test_a_run_directory_on_a_network_mount_is_leased_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "is_local", lambda path: False)
    run = RunDirectory(tmp_path)
    assert (tmp_path / NAME).exists()
    run.close()
    assert not (tmp_path / NAME).exists()


def test_a_run_directory_whose_holder_lives_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: Callable[..., object]
) -> None:
    monkeypatch.setattr(rundir, "is_local", lambda path: False)
    hold()
    with pytest.raises(RunnerError, match="Another run") as caught:
        RunDirectory(tmp_path)
    assert caught.value.exit_code == Exit.RUN_DIRECTORY


def test_a_run_that_lost_its_lease_writes_nothing_more_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "is_local", lambda path: False)
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    run = RunDirectory(tmp_path)
    try:
        (tmp_path / NAME).unlink()
        elsewhere(tmp_path)
        assert asked.wait(5)
        with pytest.raises(RunnerError) as caught:
            run.write_json("report.json", {})
        assert caught.value.exit_code == Exit.RUN_DIRECTORY
        assert not (tmp_path / "report.json").exists()
    finally:
        run.close()
        signal.signal(signal.SIGTERM, before)
