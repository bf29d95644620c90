"""One writer of a mirror at a time: a lease that is refreshed, and whose number grows with every machine that takes it.

Stores have no locks, but all of them can create an object only if there is none of its name. Each holder creates the
lease of the next number; who sees a higher number than their own has lost it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked
from runner.stores import Store

FOLDER = ".lease"
LEASE_SECONDS = 20.0  # without a sign of life, after which the holder's machine is taken for lost
BEAT_SECONDS = 5.0
RELEASE_SECONDS = 1.0


class StoreLease:
    """The lease on a mirror. It is refreshed by a thread until it is released; `lost` is called, by that thread, when
    another machine has taken it."""

    def __init__(self, store: Store, number: int, holder: Mapping[str, Any], lost: Callable[[], None]):
        self.number = number
        self._store, self._holder, self._lost = store, dict(holder), lost
        self._refreshed = time.monotonic()
        self._is_lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="mirror-lease", daemon=True)
        self._thread.start()

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have taken it by now."""
        return not self._is_lost and time.monotonic() - self._refreshed < LEASE_SECONDS

    @property
    def is_lost(self) -> bool:
        """Whether somebody else has taken it."""
        return self._is_lost

    def release(self) -> None:
        """Stops refreshing it, and says so, where the store answers soon: the next machine need not wait."""
        self._over.set()
        self._thread.join(timeout=RELEASE_SECONDS)
        if not self._is_lost:
            last = threading.Thread(target=self._say_released, daemon=True)  # a store may hang, and we must end
            last.start()
            last.join(timeout=RELEASE_SECONDS)

    def _say_released(self) -> None:
        with contextlib.suppress(Exception):  # it runs out by itself
            self._store.write(_name(self.number), _content({**self._holder, "released": True}))

    def _keep(self) -> None:
        beat = 0
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # a store that fails is asked again at the next beat
                if _newest(self._store) > self.number:
                    self._is_lost = True
                    self._lost()
                    return
                beat += 1
                began = time.monotonic()
                self._store.write(_name(self.number), _content({**self._holder, "beat": beat}))
                self._refreshed = began


def take_lease(store: Store, say: Callable[[str], None], lost: Callable[[], None]) -> StoreLease:
    """The lease on the mirror. Raises RunnerError (73) when another holder shows signs of life, and what the store's
    client raises.

    A holder on this machine that is dead is followed at once, one on another machine after LEASE_SECONDS.
    """
    newest = _newest(store)
    content = store.read(_name(newest)) if newest else None
    if content is not None and _may_live(content):
        say("Another machine had this run; waiting to see whether it still works on it.")
        _watch(store, newest, content)
    number, holder = newest + 1, _this_process()
    if not store.create(_name(number), _content(holder)) or store.read(_name(number)) != _content(holder):
        raise _held(store, store.read(_name(number)))
    store.remove(_name(old) for old in _numbers(store) if old < number)
    return StoreLease(store, number, holder, lost)


def _watch(store: Store, newest: int, content: bytes) -> None:
    """Returns once the lease was left alone for so long, or released; raises RunnerError (73) when it is refreshed."""
    until = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < until:
        time.sleep(LEASE_SECONDS / 20)
        now = store.read(_name(newest))
        if now is None or now != content:
            if now is not None and _read(now).get("released"):
                return
            raise _held(store, now or content)


def _may_live(content: bytes) -> bool:
    """Whether a lease's holder may still work: neither did it release it, nor is it a dead process of this machine."""
    holder = _read(content)
    if holder.get("released"):
        return False
    mine = _this_process()
    here = all(holder.get(key) == mine[key] for key in ("host", "boot", "processes"))
    return not here or _started(holder.get("pid")) == holder.get("started")


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "boot": _text(Path("/proc/sys/kernel/random/boot_id")),
        "processes": _link("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "token": _TOKEN,
    }


_TOKEN = secrets.token_hex(8)  # two processes of one number are not the same


def _started(pid: Any) -> str | None:
    """When a process was started, in the kernel's ticks; None where there is none."""
    text = _text(Path(f"/proc/{pid}/stat"))
    return text.rpartition(")")[2].split()[19] if text else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _content(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True).encode()


def _read(content: bytes | None) -> Mapping[str, Any]:
    """The facts of a lease; none where it is no JSON object."""
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06}.json"


def _numbers(store: Store) -> list[int]:
    names = (Path(name).stem for name in store.sizes(FOLDER))
    return sorted(int(name) for name in names if name.isdecimal())


def _newest(store: Store) -> int:
    return max(_numbers(store), default=0)


def _held(store: Store, content: bytes | None) -> RunnerError:
    holder = _read(content)
    who = f" ({holder['host']} pid {holder.get('pid')})" if holder.get("host") else ""
    problem = Problem(
        code="run/locked",
        what=f"Another machine is working on the run of this mirror{who}.",
        where=Where(path=masked(store.url)),
        fix="Wait for it, or give another --out.",
    )
    return RunnerError(problem, Exit.RUN_DIRECTORY)
