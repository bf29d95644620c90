"""A file that can be read here, and why one cannot."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from runner.data.reading.failures import source_problem
from runner.files import sha256_of

DATA_FILE = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|tab|parquet|txt|gz)$", re.IGNORECASE)
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file that can be read here; `name` is what people are shown, without secrets."""

    name: str
    path: Path
    sha256: str
    num_bytes: int


def measure(path: Path, name: str, key: str) -> LocalFile:
    """The file's hash and size; raises RunnerError (66) when it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            what = "is a folder" if path.is_dir() else "is no ordinary file"
            what = f"The data file cannot be read: it {what}."
            raise source_problem("data/missing", what, name, key, "Name one file.")
        return LocalFile(name=name, path=path, sha256=sha256_of(path), num_bytes=path.stat().st_size)
    except (OSError, ValueError) as error:
        what = f"The data file cannot be read: {getattr(error, 'strerror', None) or error}."
        fix = f"{_near(path)}Correct {key}; paths start from the manifest's folder.{_hub_hint(path)}"
        if isinstance(error, PermissionError):
            fix = f"Make it readable: chmod u+r {path}"
        raise source_problem("data/missing", what, name, key, fix) from error


def _near(path: Path) -> str:
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(repr(name) for name in near)}? " if near else ""


def _hub_hint(path: Path) -> str:
    """How a hub dataset is written, where `org/name` was: as it stands, or below a folder that is there."""
    written = "/".join(path.parts[-2:])
    if DATA_FILE.search(written) or not HUB_NAME.fullmatch(written):
        return ""
    try:
        likely = len(path.parts) == 2 or (not path.parent.exists() and path.parent.parent.is_dir())
    except (OSError, ValueError):
        return ""
    return f" A hub dataset is written org/name@revision[:split], such as {written}@main." if likely else ""
