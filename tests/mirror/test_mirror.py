"""A run directory and its mirror: all of it there in the end, whatever the store does, and nothing that misleads."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from runner.backends.answers import KeptAnswers
from runner.backends.base import Reply
from runner.conversation import Completion
from runner.errors import Exit, RunnerError
from runner.mirror import Mirror, lease, mirror, open_mirror
from runner.rundir import RunDirectory
from tests.mirror.conftest import URL
from tests.store_server import BUCKET, StoreServer, failing, refusing

OURS = "r1"
CHECKPOINT = "exp/train/checkpoints/checkpoint-000020"


class Machine:
    """A machine with a disk of its own, at work on the run of the mirror while open."""

    def __init__(self, disk: Path):
        self.disk, self.said = disk, list[str]()
        self._stack = ExitStack()

    def begin(self, url: str = URL, run_id: str = OURS, *, fresh: bool = False) -> Mirror:
        self.run = RunDirectory(self.disk / "run")
        self._stack.callback(self.run.close)
        opened = open_mirror(url, self.run, run_id, self.disk / "answers", self.said.append, fresh=fresh)
        self.mirror = self._stack.enter_context(opened)
        if self.run.claim(run_id, fresh=fresh) is None:
            self.run.write_json("run.lock.json", {"run_id": run_id})
        return self.mirror

    def flush(self) -> RunnerError | None:
        return self.mirror.flush(lambda: False)

    def end(self) -> None:
        self._stack.close()

    def die(self) -> None:
        """The machine is gone: nothing is said to anybody."""
        self.mirror._over.set()
        self.mirror._lease._over.set()
        self.mirror._lease.release = lambda: None  # type: ignore[method-assign]
        self._stack.close()
        shutil.rmtree(self.disk)


@pytest.fixture
def machines(
    tmp_path: Path, server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Machine]]:
    """Machines by their names; what they wait for is short."""
    monkeypatch.setattr(mirror, "LEAST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(mirror, "PAUSES_SECONDS", (0.05,))
    monkeypatch.setattr(mirror, "PASS_SECONDS", 0.2)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    started: list[Machine] = []

    def start(name: str) -> Machine:
        started.append(Machine(tmp_path / name))
        return started[-1]

    yield start
    server.fault = lambda request: None
    for machine in started:
        machine.end()


def uploads(server: StoreServer) -> list[str]:
    """The keys that are written and removed from now on, in their order."""
    seen: list[str] = []

    def watch(request: dict[str, Any]) -> None:
        if request["REQUEST_METHOD"] in ("PUT", "DELETE") and "/.lease/" not in request["PATH_INFO"]:
            mark = "-" if request["REQUEST_METHOD"] == "DELETE" else ""
            seen.append(mark + request["PATH_INFO"].removeprefix(f"/{BUCKET}/"))

    server.fault = watch
    return seen


def test_an_empty_machine_goes_on_from_what_was_committed(
    machines: Callable[[str], Machine], checkpoint: Callable[..., Path]
) -> None:
    first = machines("a")
    first.begin()
    checkpoint(first.run.path, 10)
    checkpoint(first.run.path, 20, b"more weights")
    first.run.event("saved", what="step", amount=20)
    assert first.flush() is None
    first.die()
    second = machines("b")
    second.begin()
    folder = second.run.path / "train" / "checkpoints" / "checkpoint-000020"
    assert (folder / "adapter.safetensors").read_bytes() == b"more weights"
    assert (folder / "COMMIT.json").is_file()
    assert '"amount": 20' in (second.run.path / "events.jsonl").read_text()


def test_a_marker_is_sent_last_and_removed_first(
    machines: Callable[[str], Machine], server: StoreServer, checkpoint: Callable[..., Path]
) -> None:
    machine = machines("a")
    machine.begin()
    machine.flush()
    seen = uploads(server)
    folder = checkpoint(machine.run.path, 20)
    machine.flush()
    assert seen == [f"{CHECKPOINT}/{name}" for name in ("adapter.safetensors", "state.json", "COMMIT.json")]
    seen.clear()
    shutil.rmtree(folder)
    machine.flush()
    assert seen[0] == f"-{CHECKPOINT}/COMMIT.json" and len(seen) == 3
    checkpoint(machine.run.path, 20, b"first")
    machine.flush()
    seen.clear()
    checkpoint(machine.run.path, 20, b"again, and otherwise")
    machine.flush()
    assert seen[0] == f"-{CHECKPOINT}/COMMIT.json" and seen[-1] == f"{CHECKPOINT}/COMMIT.json"


def test_a_folder_that_was_sent_in_part_is_not_gone_on_from(
    machines: Callable[[str], Machine], server: StoreServer, checkpoint: Callable[..., Path]
) -> None:
    first = machines("a")
    first.begin()
    checkpoint(first.run.path, 10)
    first.flush()
    server.write(f"{CHECKPOINT}/adapter.safetensors", b"half")
    first.die()
    second = machines("b")
    second.begin()
    folder = second.run.path / "train" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["checkpoint-000010"]
    assert second.flush() is None
    assert not server.names(CHECKPOINT)


def test_what_this_disk_sent_last_is_kept_and_what_it_did_not_send_any_more_goes_up(
    machines: Callable[[str], Machine], server: StoreServer, checkpoint: Callable[..., Path]
) -> None:
    first = machines("a")
    first.begin()
    first.flush()
    first.end()
    checkpoint(first.run.path, 20)  # committed in the moment in which the process was killed
    seen = uploads(server)
    again = machines("a")
    again.begin()
    again.flush()
    assert f"{CHECKPOINT}/COMMIT.json" in seen
    assert (again.run.path / "train" / "checkpoints" / "checkpoint-000020").is_dir()


def test_a_disk_that_another_machine_has_overtaken_takes_what_that_one_sent(
    machines: Callable[[str], Machine], checkpoint: Callable[..., Path]
) -> None:
    first, second = machines("a"), machines("b")
    first.begin()
    checkpoint(first.run.path, 10)
    first.flush()
    first.end()
    second.begin()
    checkpoint(second.run.path, 30)
    shutil.rmtree(second.run.path / "train" / "checkpoints" / "checkpoint-000010")
    second.flush()
    second.end()
    back = machines("a")
    back.begin()
    folder = back.run.path / "train" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["checkpoint-000030"]


def test_answers_go_up_as_they_are_given_and_are_not_asked_for_again(
    machines: Callable[[str], Machine], tmp_path: Path
) -> None:
    def reply(text: str) -> Reply:
        completion = Completion(text=text, prompt_tokens=1, output_tokens=1, seconds=0.1, finish="stop")
        return Reply(completion=completion, model="m")

    first = machines("a")
    before = KeptAnswers(first.disk / "answers", "base")
    before.put({"old": reply("of another run")})
    first.begin()
    before.put({"new": reply("of this run")})
    first.flush()
    first.die()
    second = machines("b")
    KeptAnswers(second.disk / "answers", "base").put({"own": reply("of this machine")})
    second.begin()
    kept = KeptAnswers(second.disk / "answers", "base")
    found = {key: kept.get(key) for key in ("old", "new", "own")}
    assert found["old"] is None
    assert found["new"] and found["new"].completion and found["new"].completion.text == "of this run"
    assert found["own"] is not None
    second.die()
    third = machines("c")
    third.begin()
    assert KeptAnswers(third.disk / "answers", "base").get("new") is not None


def test_a_store_that_fails_now_and_then_has_everything_in_the_end(
    machines: Callable[[str], Machine], server: StoreServer, checkpoint: Callable[..., Path]
) -> None:
    machine = machines("a")
    machine.begin()
    server.fault = failing(0.3)
    for step in (10, 20):
        checkpoint(machine.run.path, step)
        machine.run.event("saved", what="step", amount=step)
    assert machine.flush() is None
    server.fault = lambda request: None
    here = {path.relative_to(machine.run.path) for path in machine.run.path.rglob("[!.]*") if path.is_file()}
    there = {Path(name).relative_to("exp") for name in server.names() if "/.lease/" not in name}
    assert here == there


def test_keys_that_lose_their_rights_are_told_at_once_and_the_run_goes_on(
    machines: Callable[[str], Machine], server: StoreServer
) -> None:
    machine = machines("a")
    machine.begin()
    machine.flush()
    server.fault = refusing
    machine.run.event("saved", what="step", amount=1)
    behind = machine.flush()
    assert behind is not None and (behind.exit_code, behind.problems[0].code) == (Exit.CREDENTIALS, "store/refused")
    assert any(line.startswith("warning: The store refuses access") for line in machine.said)
    server.fault = lambda request: None
    assert machine.flush() is None
    assert machine.said[-1] == "The mirror is up to date again."


def test_a_store_that_is_down_is_waited_for_only_so_long(
    machines: Callable[[str], Machine], server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "PATIENCE_SECONDS", 1.0)
    machine = machines("a")
    machine.begin()
    machine.flush()
    server.fault = failing(1.0)
    machine.run.event("saved", what="step", amount=1)
    behind = machine.flush()
    assert behind is not None and behind.exit_code == Exit.UNAVAILABLE


def test_a_slow_store_is_in_nobodys_way_and_a_request_to_stop_ends_the_waiting(
    machines: Callable[[str], Machine], server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "STOPPED_SECONDS", 0.5)
    machine = machines("a")
    machine.begin()
    machine.flush()
    server.delay_seconds = 2.0
    began = time.monotonic()
    for i in range(20):
        machine.run.write_json(f"evaluation/{i}.json", i)
    assert time.monotonic() - began < 2.0
    behind = machine.mirror.flush(lambda: True)
    server.delay_seconds = 0.0
    assert behind is not None and (behind.exit_code, behind.problems[0].code) == (Exit.UNAVAILABLE, "store/behind")
    assert "files" in behind.problems[0].what


def test_a_machine_that_was_overtaken_writes_no_more(
    machines: Callable[[str], Machine], server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr("runner.rundir.os.kill", lambda pid, number: killed.append(number))
    machine = machines("a")
    machine.begin()
    machine.flush()
    server.write("exp/.lease/000002.json", json.dumps({"host": "other"}).encode())
    until = time.monotonic() + 10
    while not killed and time.monotonic() < until:
        time.sleep(0.05)
    seen = uploads(server)
    with pytest.raises(RunnerError) as refused:
        machine.run.write_json("report.json", {})
    assert refused.value.exit_code == Exit.RUN_DIRECTORY
    assert machine.flush() is not None
    assert seen == []


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda server: server.write("exp/run.lock.json", b'{"run_id": "other"}'), "run/other-run"),
        (lambda server: server.write("exp/run.lock.json", b"torn"), "run/other-run"),
        (lambda server: server.write("exp/thesis.doc", b"x"), "run/foreign-files"),
    ],
)
def test_a_mirror_that_is_not_this_runs_is_left_alone(
    machines: Callable[[str], Machine], server: StoreServer, prepare: Callable[[StoreServer], None], code: str
) -> None:
    prepare(server)
    before = server.names()
    with pytest.raises(RunnerError) as refused:
        machines("a").begin()
    assert (refused.value.exit_code, refused.value.problems[0].code) == (Exit.RUN_DIRECTORY, code)
    assert refused.value.problems[0].where.path == URL
    assert server.names() == before


def test_a_directory_that_was_never_sent_is_not_given_up_for_the_mirror(
    machines: Callable[[str], Machine], tmp_path: Path
) -> None:
    first = machines("a")
    first.begin()
    first.flush()
    first.end()
    own = RunDirectory(tmp_path / "b" / "run")
    own.write_json("run.lock.json", {"run_id": OURS})
    own.close()
    with pytest.raises(RunnerError) as refused:
        machines("b").begin()
    assert refused.value.problems[0].code == "run/not-mirrored"
    assert (tmp_path / "b" / "run" / "run.lock.json").is_file()


def test_fresh_removes_what_an_earlier_run_left_in_the_mirror(
    machines: Callable[[str], Machine], server: StoreServer
) -> None:
    server.write("exp/run.lock.json", b'{"run_id": "other"}')
    server.write("exp/report.json", b"{}")
    server.write("exp/answers/000001/base.jsonl", b"{}")
    machine = machines("a")
    machine.begin(fresh=True)
    machine.flush()
    kept = [name for name in server.names() if "/.lease/" not in name]
    assert kept == ["exp/run.lock.json"]
    assert json.loads(server.read(kept[0]))["run_id"] == OURS


@pytest.mark.parametrize(
    ("url", "fault", "exit_code", "code"),
    [
        ("s3://no-such-bucket/exp", None, Exit.RUN_DIRECTORY, "store/no-bucket"),
        (URL, refusing, Exit.CREDENTIALS, "store/refused"),
        (URL, lambda request: (403, "InvalidAccessKeyId"), Exit.CREDENTIALS, "store/refused"),
        (URL, lambda request: (500, "InternalError"), Exit.UNAVAILABLE, "store/unavailable"),
        ("s3://bucket", None, Exit.USAGE, "store/bad-url"),
        ("s3://key:secret@bucket/exp", None, Exit.USAGE, "store/bad-url"),
        ("s3:///exp", None, Exit.USAGE, "store/bad-url"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_before_anything_is_done(
    machines: Callable[[str], Machine], server: StoreServer, url: str, fault: Any, exit_code: Exit, code: str
) -> None:
    server.fault = fault or server.fault
    with pytest.raises(RunnerError) as refused:
        machines("a").begin(url)
    (problem,) = refused.value.problems
    assert (refused.value.exit_code, problem.code) == (exit_code, code)
    assert problem.fix and "secret" not in f"{problem.what} {problem.where} {problem.fix}"


def test_a_large_file_goes_up_in_parts_and_comes_back_as_it_was(
    machines: Callable[[str], Machine], server: StoreServer
) -> None:
    first = machines("a")
    first.begin()
    (first.run.path / "model").mkdir()
    content = bytes(range(256)) * (50 << 12)  # 52 MB
    (first.run.path / "model" / "weights.safetensors").write_bytes(content)
    seen: list[str] = []
    server.fault = lambda request: seen.append(request["QUERY_STRING"])
    first.run.event("saved", what="step", amount=1)
    assert first.flush() is None
    assert sum("partNumber" in query for query in seen) >= 3
    first.die()
    second = machines("b")
    second.begin()
    assert (second.run.path / "model" / "weights.safetensors").read_bytes() == content


def test_a_store_that_hangs_does_not_keep_a_run_from_ending(
    machines: Callable[[str], Machine], server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "STOPPED_SECONDS", 0.5)
    machine = machines("a")
    machine.begin()
    machine.flush()
    server.delay_seconds = 30.0
    machine.run.event("saved", what="step", amount=1)
    began = time.monotonic()
    assert machine.mirror.flush(lambda: True) is not None
    machine.end()
    server.delay_seconds = 0.0
    assert time.monotonic() - began < 8
