"""Files that are there whole or not at all, and known again by their contents."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

LARGE_BYTES = 1_000_000


def open_ordinary(path: Path) -> BufferedReader:
    """The file, opened to be read. Raises OSError when it cannot be, also where it is no ordinary file (a device has
    no end, and a pipe may have nobody who writes) or its name is none."""
    mode = _stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(kind, "it is a folder" if kind == errno.EISDIR else "it is no ordinary file", str(path))
    return path.open("rb")


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except ValueError:
        raise OSError(errno.EINVAL, "no file can have such a name", str(path)) from None


def read_small(path: Path, most: int) -> bytes:
    """The bytes of a file. Raises OSError when it cannot be read, and where there are more than `most`."""
    with open_ordinary(path) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return raw


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal. Raises OSError when it cannot be read."""
    with open_ordinary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path, cache: Path | None) -> str:
    """`sha256_of`, but a large file is read once: `cache` (None: there is none) keeps its hash for as long as its size,
    times and inode are the same. Raises OSError when it cannot be read."""
    seen = _marks(path)
    if cache is None or seen[0] < LARGE_BYTES:
        return sha256_of(path)
    note = cache / "hashes" / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(note.read_text())
        if kept["seen"] == seen:
            return str(kept["sha256"])
    digest = sha256_of(path)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, and nothing else
        if _marks(path) == seen:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_whole(note, json.dumps({"seen": seen, "sha256": digest}))
    return digest


def _marks(path: Path) -> list[int]:
    """What changes with a file's contents. Its time of change cannot be set back, as its time of writing can."""
    found = _stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def write_whole(path: Path, content: str | bytes) -> Path:
    """Writes a file and brings it to the disk: a reader sees the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def make_readable(path: Path | str) -> None:
    """Lets every user of the machine read a file, where its mount has modes: safetensors and temporary files are their
    owner's alone."""
    with contextlib.suppress(OSError):
        os.chmod(path, 0o644)


def facts_of(folder: Path) -> dict[str, tuple[int, str]]:
    """The size in bytes and the sha256 of each of a folder's files, by their names."""
    return {path.name: (path.stat().st_size, sha256_of(path)) for path in sorted(folder.iterdir())}


def are_as_noted(folder: Path, facts: Mapping[str, tuple[int, str]]) -> bool:
    """Whether the files that `facts_of` noted are as they were. Raises OSError when one cannot be read."""
    found = ((folder / name, size, digest) for name, (size, digest) in facts.items())
    return all(path.stat().st_size == size and sha256_of(path) == digest for path, size, digest in found)


def file_name(arm: str) -> str:
    """A side's or arm's name as a file may be called."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in arm)
