"""The checkpoints of a training run: there whole or not at all, proven before use, the last good one never removed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from runner.backends.local.committed import (
    MISSING,
    UNFINISHED,
    Commit,
    prove,
    read_commit,
    read_tensors,
    remove,
    remove_remains,
    write_bytes,
    write_commit,
    write_tensors,
)
from runner.errors import Exit, Problem, RunnerError, Where

Tensors = Mapping[str, torch.Tensor]

MARGIN_BYTES = 1 << 20  # the headers of the files, the state and the commit
_CHECKPOINT = re.compile(r"checkpoint-([0-9]{6,})")
_WEIGHTS = re.compile(r"best-[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A proven checkpoint; `needs` names the folder of the best weights so far that it refers to."""

    step: int
    state: Mapping[str, Any]
    needs: str | None
    path: Path

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors saved under this name, on the CPU. Raises RunnerError (74) when they cannot be read."""
        return _load(self.path / f"{name}.safetensors")


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A folder that was set aside, and what was wrong with it."""

    name: str
    reason: str


class Checkpoints:
    """The checkpoints of one training `job` (a fingerprint of what is trained) in one folder.

    A folder counts only with its commit, which is written last; no folder is ever renamed into place, as object stores
    that are mounted cannot do that. What is not whole is set aside and named in `quarantined`, for the report.
    """

    def __init__(self, folder: Path, job: str, keep: int = 2):
        assert keep >= 1
        self.quarantined: list[Quarantined] = []
        self._folder, self._job, self._keep = folder, job, keep
        self._quarantine = folder / "quarantine"
        folder.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint of this job whose every byte is proven; damaged ones and strangers are set aside."""
        for path in [*self._checkpoints().values(), *self._weights_folders()]:
            if isinstance(fault := read_commit(path, self._job), str):
                self._set_aside(path, fault)
        for step, path in self._checkpoints().items():
            found = self._prove(path)
            if isinstance(found, Commit):
                state = json.loads((path / "state.json").read_bytes())
                return Checkpoint(step=step, state=state, needs=found.needs, path=path)
            self._set_aside(path, found)
        return None

    def save(
        self, step: int, parts: Mapping[str, Tensors], state: Mapping[str, Any], *, needs: str | None = None
    ) -> Path:
        """The committed folder of a step; one that is there and whole is kept as it is.

        Older ones are removed only afterwards. Raises RunnerError (74) when it cannot be written: nothing of it is
        left then, and the earlier checkpoint stands.
        """
        assert needs is None or _WEIGHTS.fullmatch(needs), needs
        text = json.dumps(state, allow_nan=False)
        assert json.loads(text) == dict(state), "the state would not come back as it is"
        path = self._folder / _name(step)
        self._store(path, parts, text.encode(), step, needs)
        self._rotate(step)
        return path

    def save_weights(self, name: str, tensors: Tensors) -> None:
        """Commits weights alone, as `best-<step>`; they stay while a checkpoint needs them. Raises as `save` does."""
        assert _WEIGHTS.fullmatch(name), name
        self._store(self._folder / name, {"weights": tensors}, None, None, None)

    def weights(self, name: str) -> dict[str, torch.Tensor] | None:
        """The weights of that name on the CPU; None when they are missing or damaged, which `quarantined` tells."""
        path = self._folder / name
        if isinstance(found := prove(path, self._job), str):
            self._set_aside(path, found)
            return None
        return _load(path / "weights.safetensors")

    def clear(self) -> None:
        """Removes every checkpoint and all best weights, once training has no more use for them."""
        for path in [*self._checkpoints().values(), *self._weights_folders()]:
            remove(path)

    def _checkpoints(self) -> dict[int, Path]:
        """What is named as checkpoints are, by its step, the newest first."""
        matches = [match for path in self._folder.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))]
        steps = {int(match[1]): self._folder / match[0] for match in matches if match[0] == _name(int(match[1]))}
        return dict(sorted(steps.items(), reverse=True))

    def _weights_folders(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if _WEIGHTS.fullmatch(path.name)]

    def _prove(self, path: Path) -> Commit | str:
        """The commit of a folder that is whole, with the weights it needs, or what is wrong; damaged weights go."""
        commit = prove(path, self._job)
        if isinstance(commit, str) or commit.needs is None:
            return commit
        needed = self._folder / commit.needs
        if isinstance(fault := prove(needed, self._job), str):
            if fault != MISSING:
                self._set_aside(needed, fault)
            return f"{commit.needs}, which it needs: {fault}"
        return commit

    def _set_aside(self, path: Path, reason: str) -> None:
        """Moves a folder into quarantine, or deletes what an unfinished save left of it; names it either way."""
        try:
            self._quarantine.mkdir(exist_ok=True)
            if reason == UNFINISHED:
                remove_remains(path)
            if os.path.lexists(path):
                names = itertools.chain([path.name], (f"{path.name}-{i}" for i in itertools.count(2)))
                targets = (self._quarantine / name for name in names)
                shutil.move(path, next(target for target in targets if not os.path.lexists(target)))
            with (self._quarantine / "notes.jsonl").open("a", encoding="utf-8") as notes:
                notes.write(json.dumps({"name": path.name, "reason": reason}) + "\n")
        except OSError as error:
            reason = f"{reason} (and it cannot be moved: {error.strerror or error})"
        if (entry := Quarantined(name=path.name, reason=reason)) not in self.quarantined:
            self.quarantined.append(entry)

    def _store(
        self, path: Path, parts: Mapping[str, Tensors], state: bytes | None, step: int | None, needs: str | None
    ) -> None:
        """Writes and commits a folder, unless it is there and whole."""
        if os.path.lexists(path):
            if isinstance(found := self._prove(path), Commit):
                return
            self._set_aside(path, found)
        needed_bytes = MARGIN_BYTES + sum(t.nbytes for tensors in parts.values() for t in tensors.values())
        self._make_room(path, needed_bytes, needs)
        if needs is not None and isinstance(fault := prove(self._folder / needs, self._job, hashes=False), str):
            raise RunnerError(_damaged(self._folder / needs, fault), Exit.IO)
        try:
            self._write(path, parts, state, step, needs)
        except Exception as error:
            with contextlib.suppress(OSError):  # it has no commit: the next start removes it
                remove(path)
            if isinstance(error, OSError):
                raise self._disk_full(path, needed_bytes, str(error.strerror or error)) from error
            raise

    def _write(
        self, path: Path, parts: Mapping[str, Tensors], state: bytes | None, step: int | None, needs: str | None
    ) -> None:
        path.mkdir()
        names = [f"{name}.safetensors" for name in parts]
        for file, tensors in zip(names, parts.values(), strict=True):
            write_tensors(path / file, tensors)
        if state is not None:
            write_bytes(path / "state.json", state)
            names.append("state.json")
        write_commit(path, self._job, names, step=step, needs=needs)

    def _make_room(self, path: Path, needed_bytes: int, needs: str | None) -> None:
        """Keeps only the newest whole checkpoint where room is short; raises RunnerError (74) if that is too little."""
        if self._free_bytes() < needed_bytes:
            newest = self.latest()
            self._keep_only({newest.step} if newest else set(), needs)
        if self._free_bytes() < needed_bytes:
            raise self._disk_full(path, needed_bytes, "the disk is full")

    def _free_bytes(self) -> float:
        """Infinity where the mount cannot say; the write will."""
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(self._folder)
            return usage.free if usage.total else float("inf")
        return float("inf")

    def _rotate(self, saved: int) -> None:
        steps = list(self._checkpoints())
        older = [step for step in steps if step < saved]
        with contextlib.suppress(OSError):  # what was saved is safe, and the next save rotates again
            self._keep_only({*steps} - {*older[self._keep - 1 :]}, None)

    def _keep_only(self, steps: set[int], needs: str | None) -> None:
        """Removes this job's other checkpoints, and the best weights that neither these nor `needs` asks for."""
        needed = {needs}
        for step, path in self._checkpoints().items():
            commit = read_commit(path, self._job)
            if isinstance(commit, Commit) and step in steps:
                needed.add(commit.needs)
            elif isinstance(commit, Commit):
                remove(path)
        for path in self._weights_folders():
            if path.name not in needed and isinstance(read_commit(path, self._job), Commit):
                remove(path)

    def _disk_full(self, path: Path, needed_bytes: int, reason: str) -> RunnerError:
        free_bytes = self._free_bytes()
        free = f"{_size_text(free_bytes)} are" if free_bytes < float("inf") else "an unknown amount is"
        may_go = f" ({self._quarantine} may go)" if self._quarantine.exists() else ""
        problem = Problem(
            code="train/disk-full",
            what=f"'{path.name}' cannot be saved ({reason}): it needs {_size_text(needed_bytes)}, and {free} free.",
            where=Where(path=str(self._folder)),
            fix=f"Make room on its disk{may_go}, then run the same command again: it goes on from the last one.",
        )
        return RunnerError(problem, Exit.IO)


def _name(step: int) -> str:
    return f"checkpoint-{step:06d}"


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return read_tensors(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise RunnerError(_damaged(path, str(error)), Exit.IO) from error


def _damaged(path: Path, reason: str) -> Problem:
    return Problem(
        code="train/checkpoint-damaged",
        what=f"'{path.name}' cannot be used: {reason}.",
        where=Where(path=str(path)),
        fix="Run the same command again: it goes on from the newest checkpoint that is whole.",
    )


def _size_text(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
