"""One machine at a time writes to a mirror, whatever becomes of the one before."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from runner.errors import Exit, RunnerError
from runner.mirror import lease
from runner.mirror.lease import StoreLease, take_lease
from runner.stores import Store, open_store
from tests.mirror.conftest import URL
from tests.store_server import StoreServer

FAST = 1.0
Take = Callable[..., StoreLease]


@pytest.fixture
def store(server: StoreServer) -> Store:
    return open_store(URL, "--out")


@pytest.fixture
def take(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Take]:
    """Takes the lease, as fast as a test wants it."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", FAST / 6)
    monkeypatch.setattr(lease, "LEASE_SECONDS", FAST)
    taken: list[StoreLease] = []

    def begin(lost: Callable[[], None] = lambda: None) -> StoreLease:
        taken.append(take_lease(store, lambda _: None, lost))
        return taken[-1]

    yield begin
    for one in taken:
        one.release()


def elsewhere(server: StoreServer, number: int, **facts: object) -> None:
    """A lease of another machine."""
    content = {"host": "other", "boot": "b", "processes": "p", "pid": 7, "started": "1", **facts}
    server.write(f"exp/.lease/{number:06}.json", json.dumps(content).encode())


def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes it a failure to watch the holder for signs of life."""
    monkeypatch.setattr(lease, "_watch", lambda *_: pytest.fail("it waited"))


def test_a_second_machine_is_refused_while_the_first_one_lives(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    take()
    monkeypatch.setattr(lease.socket, "gethostname", lambda: "another")
    with pytest.raises(RunnerError) as refused:
        take()
    assert (refused.value.exit_code, refused.value.problems[0].code) == (Exit.RUN_DIRECTORY, "run/locked")


def test_a_living_process_of_this_machine_is_refused_too(take: Take) -> None:
    take()
    with pytest.raises(RunnerError):
        take()


def test_a_lease_that_was_released_is_followed_at_once_by_one_of_a_higher_number(
    take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take()
    first.release()
    no_waiting(monkeypatch)
    assert (first.number, take().number) == (1, 2)


def test_a_dead_process_of_this_machine_is_followed_at_once(
    take: Take, server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = lease._this_process()
    elsewhere(server, 4, **{**mine, "pid": 2**22 + 1, "started": "1"})
    no_waiting(monkeypatch)
    assert take().number == 5


def test_a_machine_that_is_gone_is_followed_after_a_while(take: Take, server: StoreServer) -> None:
    elsewhere(server, 1)
    began = time.monotonic()
    assert take().number == 2
    assert time.monotonic() - began >= FAST
    assert server.names("exp/.lease/") == ["exp/.lease/000002.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_lease_is_one_of_a_machine_that_may_live(take: Take, server: StoreServer, content: bytes) -> None:
    server.write("exp/.lease/000003.json", content)
    began = time.monotonic()
    assert take().number == 4
    assert time.monotonic() - began >= FAST


def test_who_was_followed_learns_it_and_writes_no_more(take: Take, server: StoreServer) -> None:
    lost = threading.Event()
    first = take(lost.set)
    elsewhere(server, 2)
    assert lost.wait(5)
    assert first.is_lost and not first.is_held
    first.release()
    assert json.loads(server.read("exp/.lease/000002.json"))["host"] == "other"


def test_of_two_that_take_it_in_one_moment_only_one_has_it(store: Store, server: StoreServer) -> None:
    elsewhere(server, 1, released=True)
    ready = threading.Barrier(4)
    found: list[StoreLease | Exit] = []

    def begin() -> None:
        ready.wait()
        try:
            found.append(take_lease(store, lambda _: None, lambda: None))
        except RunnerError as error:
            found.append(error.exit_code)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    holders = [one for one in found if isinstance(one, StoreLease)]
    for one in holders:
        one.release()
    assert len(holders) == 1 and found.count(Exit.RUN_DIRECTORY) == 3


def test_a_store_that_cannot_be_reached_takes_the_lease_away_until_it_can(take: Take, server: StoreServer) -> None:
    held = take()
    server.fault = lambda request: (403, "AccessDenied")
    assert _becomes(lambda: not held.is_held)
    server.fault = lambda request: None
    assert _becomes(lambda: held.is_held)


def _becomes(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.02)
    return False
