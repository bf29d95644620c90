"""The run directory: one run at a time, files that appear whole or not at all, and a note of every event."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import write_whole
from runner.lease import NAME, is_local, is_refreshed, take_lease
from runner.masking import masked, masked_value

if TYPE_CHECKING:
    from filelock import SoftFileLease

EVENTS, REPORT = "events.jsonl", "report.json"
LOOKS_SECONDS = (0.01, 0.05)
STAGES = ("data", "gate", "train", "model", "merged", "evaluation", "wandb")
KEPT = ("train", "model", "merged", "wandb")  # what the next attempt of the same run goes on from
MIRROR_NOTE = ".mirror.json"
RECORD, RECORD_VERSION = "run.lock.json", 1
KEPT_MANIFEST = "manifest.yaml"
FILES = (REPORT, "report.html", EVENTS, KEPT_MANIFEST, RECORD)  # the one that says whose it is goes last


class RunDirectory:
    """An opened and locked run directory; `close` gives it back. The lock dies with the process.

    Where a lock does not reach other machines there is a lease too; when that is lost, every write raises RunnerError
    (73), and the process is asked to stop.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock: IO[str] | None = None
        self._lease: SoftFileLease | None = None
        self._is_lost = False
        self._changed: Callable[[], None] = lambda: None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / ".lock").open("a+")
            self._take_lock(self._lock)
            if not is_local(path):
                self._lease = take_lease(path, self.lose)
                if self._lease is None:
                    raise BlockingIOError
            self._lock.truncate(0)
            self._lock.write(f"{socket.gethostname()} pid {os.getpid()} since {_now()}\n")
            self._lock.flush()
        except BlockingIOError as error:
            problem = self._locked()
            self.close()
            raise RunnerError(problem, Exit.RUN_DIRECTORY) from error
        except OSError as error:
            self.close()
            raise RunnerError(self._unusable(error), Exit.RUN_DIRECTORY) from error

    def _take_lock(self, file: IO[str]) -> None:
        try:
            self._try_lock(file)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK) or is_local(self.path):
                raise  # a mount without locks has the lease alone

    def _try_lock(self, file: IO[str]) -> None:
        """Takes the lock; whoever only looks whether the directory is held has it for less than an instant."""
        for pause in LOOKS_SECONDS:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(pause)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def lose(self) -> None:
        """Says that another runner has taken the directory, or its mirror."""
        self._is_lost = True
        os.kill(os.getpid(), signal.SIGTERM)

    def tell_changes(self, changed: Callable[[], None]) -> None:
        """Names who is called after every file and event that is written here."""
        self._changed = changed

    def close(self) -> None:
        """Gives the directory back; another run may then take it."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def folder(self, stage: str) -> Path:
        """The stage's own folder."""
        path = self.path / stage
        path.mkdir(exist_ok=True)
        return path

    def is_vacant(self) -> bool:
        """Whether no run has taken the directory: it holds at most the report of a manifest that was faulty."""
        return not (self.path / RECORD).exists() and not self._strangers()

    def _strangers(self) -> list[str]:
        """Files that no run of ours wrote, where none has taken the directory; a report is ours by its schema."""
        ours = {".lock", MIRROR_NOTE, *(f".{name}.partial" for name in (*FILES, MIRROR_NOTE))}
        ours |= {path.name for path in self.path.glob(f"{NAME}*")}
        if "schema_version" in (read_object(self.path / "report.json") or {}):
            ours |= {*FILES}
        return sorted({path.name for path in self.path.iterdir()} - ours)

    def claim(self, run_id: str, *, fresh: bool) -> Mapping[str, Any] | None:
        """Takes the directory for a run: the report of the same run if it is finished, else None.

        Raises RunnerError (73) when no run of ours began here and yet it holds files, which are then somebody's, or
        when it holds another run, unless `fresh`, which removes what that left (and nothing else).
        """
        lock_file = self.path / RECORD
        if not lock_file.is_file():
            if strangers := self._strangers():
                raise RunnerError(self._foreign(strangers), Exit.RUN_DIRECTORY)
            self.clear()
            return None
        if fresh:
            self.clear()
            return None
        held = (read_object(lock_file) or {}).get("run_id", "its run.lock.json is unreadable")
        if held != run_id:
            problem = Problem(
                code="run/other-run",
                what=f"The directory holds another run ({held}); this one is {run_id}.",
                where=Where(path=str(self.path)),
                fix="Give another --out, or --fresh to remove what the earlier run left.",
            )
            raise RunnerError(problem, Exit.RUN_DIRECTORY)
        return finished_report(self.path, run_id)

    def begin(self) -> None:
        """Removes what an unfinished attempt left and this one makes again, now that it has what it needs to go
        further; the report of that attempt stands until it is replaced."""
        self._remove(name for name in STAGES if name not in KEPT)

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a JSON file whole; NaN and infinity are refused."""
        text = json.dumps(masked_value(value), ensure_ascii=False, indent=2, sort_keys=False, allow_nan=False)
        return self.write_text(name, text + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Writes a text file whole and without secrets: a reader sees the old file or the new one, never a part."""
        self._check_lease()
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written = write_whole(path, masked(text))
        self._changed()
        return written

    def event(self, name: str, **facts: Any) -> None:
        """Adds one line to events.jsonl."""
        self._check_lease()
        line = json.dumps({"time": time.time(), "event": name, **masked_value(facts)}, ensure_ascii=False, default=str)
        with (self.path / EVENTS).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n" if self._is_torn(file) else f"{line}\n")
        self._changed()

    def _is_torn(self, file: IO[str]) -> bool:
        """Whether a kill left a line of the file without its end."""
        if not file.tell():
            return False
        with (self.path / EVENTS).open("rb") as held:
            held.seek(-1, os.SEEK_END)
            return held.read(1) != b"\n"

    def _check_lease(self) -> None:
        if self._is_lost:
            raise RunnerError(self._locked(), Exit.RUN_DIRECTORY)

    def _remove(self, stages: Iterable[str]) -> None:
        for name in stages:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def clear(self) -> None:
        """Removes what a run left here, and nothing else."""
        self._remove(STAGES)
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)

    def _locked(self) -> Problem:
        holder = ""
        if self._lock is not None:
            self._lock.seek(0)
            holder = f" ({self._lock.read().strip()})"
        return Problem(
            code="run/locked",
            what=f"Another run is working in this directory{holder}.",
            where=Where(path=str(self.path)),
            fix="Wait for it, or give another --out.",
        )

    def _unusable(self, error: OSError) -> Problem:
        return Problem(
            code="run/unwritable",
            what=f"The run directory cannot be written: {error.strerror}.",
            where=Where(path=str(self.path)),
            fix=f"Give another --out, or make it writable: chown -R {os.getuid()}:{os.getgid()} {self.path}; "
            f"in a container, run it as the owner (--user {_owner(self.path)}), or set fsGroup in Kubernetes.",
        )

    def _foreign(self, names: list[str]) -> Problem:
        return Problem(
            code="run/foreign-files",
            what=f"The directory holds files that no run of ours wrote: {', '.join(names[:3])}.",
            where=Where(path=str(self.path)),
            fix="Give another --out, or an empty directory.",
        )


def _owner(path: Path) -> str:
    """The user and group that own the directory, or the nearest one above it that exists."""
    found = next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.lexists(parent)).stat()
    return f"{found.st_uid}:{found.st_gid}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def finished_report(path: Path, run_id: str) -> Mapping[str, Any] | None:
    """The report of this very run, where it is done; nothing is opened for writing."""
    held = (read_object(path / RECORD) or {}).get("run_id")
    report = read_object(path / "report.json") if held == run_id else None
    return report if report is not None and report.get("status") == "done" else None


def read_report(directory: Path) -> Mapping[str, Any]:
    """The report of a run that ended in the directory; raises RunnerError (66) when there is none."""
    report = read_object(directory / "report.json")
    if report is None:
        problem = Problem(
            code="report/missing",
            what="There is no readable report.json in this directory.",
            where=Where(path=str(directory)),
            fix="Name the directory of a run that has ended.",
        )
        raise RunnerError(problem, Exit.INPUT_MISSING)
    return report


def is_held(path: Path) -> bool:
    """Whether a runner works in the directory now, by its lock, and where locks do not reach by its lease's signs of
    life. Opens nothing for writing; takes the lock for an instant, which `RunDirectory` allows for."""
    with contextlib.suppress(OSError), (path / ".lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return not is_local(path) and is_refreshed(path)


def read_object(path: Path) -> Mapping[str, Any] | None:
    """The JSON object in a file; None when the file is missing, torn or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
