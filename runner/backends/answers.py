"""Answers on disk, by what was asked, so that no model is asked the same thing twice."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runner.backends.base import Reply
from runner.conversation import Completion


def key_of(*parts: object) -> str:
    """What was asked as a short text: the SHA-256 of the parts' canonical JSON (the order of keys does not count)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class KeptAnswers:
    """Replies kept by key in `folder/name.jsonl`, a line each; processes and threads may share the file.

    What `put` was given is never lost to a kill, and `get` finds what another process has put meanwhile. A damaged line
    is skipped: its answer is asked for again. Raises OSError when the disk does.
    """

    def __init__(self, folder: Path, name: str):
        self.path = folder / f"{name}.jsonl"
        self._held: dict[str, Reply] = {}
        self._num_read = 0  # bytes, always whole lines
        self._lock = threading.Lock()

    def get(self, key: str) -> Reply | None:
        """The reply that was kept under this key, marked as cached."""
        with self._lock:
            if key not in self._held:
                self._read_on()
            return self._held.get(key)

    def put(self, items: Mapping[str, Reply]) -> None:
        """Keeps replies; they are on disk, all of them, when this returns."""
        lines = [json.dumps({"key": key, **asdict(reply)}, allow_nan=False) for key, reply in items.items()]
        # The newline in front ends what a killed writer may have left torn. ASCII, since an answer may hold half of a
        # surrogate pair, which no encoding takes.
        data = "".join(f"\n{line}" for line in lines).encode("ascii") + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                while data:  # more than once only on a full disk, where the next try raises
                    data = data[os.write(file, data) :]
            finally:
                os.close(file)
            self._held |= {key: replace(reply, cached=True) for key, reply in items.items()}

    def _read_on(self) -> None:
        """Takes in the lines that were added since the last time; the first of two with one key counts."""
        try:
            if self.path.stat().st_size <= self._num_read:
                return
        except FileNotFoundError:
            return
        with self.path.open("rb") as file:
            file.seek(self._num_read)
            data = file.read()
        end = data.rfind(b"\n") + 1  # behind it stands what is being written, or was torn
        self._num_read += end
        for line in data[:end].splitlines():
            if kept := _reply(line):
                self._held.setdefault(*kept)


class AnswerTails:
    """What was added to the kept answers of a folder since this was made, in whole lines; files only ever grow."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._begin = {path.name: path.stat().st_size for path in folder.glob("*.jsonl")}

    def grown(self) -> dict[str, bytes]:
        """The new lines of every file that has any."""
        tails = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            begin = self._begin.get(path.name, 0)
            if path.stat().st_size > begin:
                with path.open("rb") as file:
                    file.seek(begin)
                    tail = file.read()
                tails[path.name] = tail[: tail.rfind(b"\n") + 1]
        return {name: tail for name, tail in tails.items() if tail.strip()}


def take_in(folder: Path, name: str, lines: bytes) -> int:
    """Adds answers that another machine kept to the file of that name, and counts those that were new; damaged lines
    are left out."""
    kept = KeptAnswers(folder, name.removesuffix(".jsonl"))
    found = (_reply(line) for line in lines.splitlines())
    new = {key: replace(reply, cached=False) for key, reply in filter(None, found) if kept.get(key) is None}
    if new:
        kept.put(new)
    return len(new)


def _reply(line: bytes) -> tuple[str, Reply] | None:
    """The key and the reply of a line; None when it is blank or damaged."""
    try:
        record: dict[str, Any] = json.loads(line)
        key, completion = record.pop("key"), record.pop("completion")
        reply = Reply(completion=Completion(**completion) if completion else None, **{**record, "cached": True})
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    return (key, reply) if isinstance(key, str) and _is_sound(reply) else None


def _is_sound(reply: Reply) -> bool:
    """Whether the values are of their types, so that a file of another make cannot bring in something else."""
    if not isinstance(reply.model, str | None):
        return False
    if (answer := reply.completion) is None:
        return isinstance(reply.reason, str)
    tokens = (answer.prompt_tokens, answer.output_tokens)
    return (
        reply.reason is None
        and isinstance(answer.text, str)
        and isinstance(answer.seconds, int | float)
        and answer.finish in ("stop", "length")
        and all(isinstance(count, int | None) for count in tokens)
    )
