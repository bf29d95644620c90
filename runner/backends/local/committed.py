"""A folder of files that counts for nothing until its commit is written, and never again once a byte has changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from runner.files import make_readable, sha256_of

COMMIT = "COMMIT.json"
VERSION = 1
MISSING = "it is missing"
UNFINISHED = f"{COMMIT} is missing: it was never finished, or half removed"
_OURS = re.compile(r"\w+\.safetensors|state\.json|\.COMMIT\.json\.partial|\.tmp\w+")  # the last is safetensors' own


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What COMMIT.json holds: whose the folder is, and the size in bytes and the sha256 of each of its files."""

    name: str
    job: str
    step: int | None
    needs: str | None
    files: Mapping[str, tuple[int, str]]

    def as_bytes(self) -> bytes:
        """The one way to write it, sealed: what differs in a single bit was not written by us."""
        files = {name: {"size": size, "sha256": digest} for name, (size, digest) in self.files.items()}
        owner = {"name": self.name, "job": self.job, "step": self.step, "needs": self.needs}
        facts = {"version": VERSION, **owner, "files": files}
        seal = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return json.dumps({**facts, "seal": seal}, indent=2).encode() + b"\n"


def read_commit(folder: Path, job: str) -> Commit | str:
    """The commit of a folder of this job, itself undamaged, or what is wrong; the files are not looked at."""
    if not os.path.lexists(folder):
        return MISSING
    if folder.is_symlink() or not folder.is_dir():
        return "it is no folder of ours"
    try:
        raw = (folder / COMMIT).read_bytes()
        facts = json.loads(raw)
        files = {name: (fact["size"], fact["sha256"]) for name, fact in facts["files"].items()}
        owner = {key: facts[key] for key in ("name", "job", "step", "needs")}
        commit = Commit(**owner, files=files)
        whole = commit.as_bytes() == raw
    except FileNotFoundError:
        return UNFINISHED
    except OSError as error:
        return f"{COMMIT} cannot be read: {error.strerror}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"{COMMIT} is damaged"
    if not whole:
        return f"{COMMIT} is damaged"
    if commit.name != folder.name:
        return f"{COMMIT} is that of {commit.name}"
    return commit if commit.job == job else f"it belongs to another job ({commit.job})"


def prove(folder: Path, job: str, *, hashes: bool = True) -> Commit | str:
    """The commit of a folder whose files are as committed (by their sizes alone without `hashes`), or what is wrong."""
    commit = read_commit(folder, job)
    if isinstance(commit, str):
        return commit
    faults = (_file_fault(folder / name, size, digest, hashes) for name, (size, digest) in commit.files.items())
    return next(filter(None, faults), commit)


def _file_fault(path: Path, size: int, digest: str, hashes: bool) -> str | None:
    try:
        if not os.path.lexists(path):
            return f"{path.name}: it is missing"
        if path.is_symlink() or not path.is_file():
            return f"{path.name}: it is no plain file"
        if (actual := path.stat().st_size) != size:
            return f"{path.name}: it has {actual} bytes instead of {size}"
        return f"{path.name}: its sha256 differs" if hashes and sha256_of(path) != digest else None
    except OSError as error:
        return f"{path.name}: it cannot be read: {error.strerror}"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Brings tensors to the disk, each with memory of its own. Raises OSError in whatever way safetensors failed."""
    ready: dict[str, torch.Tensor] = {}
    storages = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        ready[name] = plain.clone() if storage in storages else plain  # save_file refuses what shares memory
        storages.add(storage)
    try:
        save_file(ready, path)
    except (RuntimeError, SafetensorError) as error:  # a full disk comes as one of these, not as ENOSPC
        raise OSError(str(error)) from error
    if path.stat().st_size < sum(tensor.nbytes for tensor in ready.values()):
        raise OSError(errno.EIO, f"{path.name} came out too short")
    _settle(path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors on the CPU, in memory of their own (else they are pages of a file that rotation removes)."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def write_bytes(path: Path, content: bytes) -> None:
    """Brings a small file to the disk."""
    with path.open("wb") as file:
        file.write(content)
    _settle(path)


def write_commit(folder: Path, job: str, names: Iterable[str], *, step: int | None, needs: str | None) -> None:
    """Makes the folder and its files of these names count: in one instant, and with all of it on the disk before."""
    files = {name: ((folder / name).stat().st_size, sha256_of(folder / name)) for name in names}
    _sync_folder(folder)
    commit = Commit(name=folder.name, job=job, step=step, needs=needs, files=files)
    partial = folder / f".{COMMIT}.partial"
    write_bytes(partial, commit.as_bytes())
    os.replace(partial, folder / COMMIT)
    _sync_folder(folder)
    _sync_folder(folder.parent)


def _settle(path: Path) -> None:
    make_readable(path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a mount that has no such thing
            raise
    finally:
        os.close(handle)


def remove(folder: Path) -> None:
    """Removes a folder, its commit first, so that one half removed counts for nothing; a link is left alone."""
    if folder.is_dir() and not folder.is_symlink():
        (folder / COMMIT).unlink(missing_ok=True)
        shutil.rmtree(folder)


def remove_remains(folder: Path) -> None:
    """Removes the files of a save that was never finished; a folder that holds anything else stays with that."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and (path.is_symlink() or path.is_file()):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
