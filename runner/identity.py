"""Which run a manifest is: its id, its directory, and whether it is done already. Loads nothing heavy."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from runner import __version__
from runner.asked import asked_for
from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import sha256_of
from runner.manifest import Manifest
from runner.plan import model_reference, source_files

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def identify(manifest: Manifest, hash_of: Callable[[Path], str] | None = None) -> str:
    """The run id: a hash of what is asked for, of the files it names (by `hash_of`) and of this version.

    Tracking, checkpoints and limits do not count, so changing them does not make another run.
    """
    hash_of = hash_of or file_hash
    asked = asked_for(manifest.values)
    if manifest.trust_remote_code:  # other code may run; without it the ids stay what they were
        asked["trust_remote_code"] = True
    hashes = [hash_of(path) for path in source_files(manifest)]
    hashes += _folder_signature(Path(model_reference(manifest)), hash_of)
    text = json.dumps([asked, hashes, __version__], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_directory(manifest: Manifest, run_id: str, out: Path | None, root: Path | None) -> Path:
    """`out` itself where it is given, else `<name>-<run id>` under `root` or ./runs."""
    return out or (root or Path("runs")) / f"{manifest.values['name']}-{run_id}"


def local_directory(text: str) -> Path:
    """A run directory as a person wrote it; raises RunnerError (73) for a URL, which would become a folder 's3:'."""
    if text.startswith("file:///"):
        return Path(text.removeprefix("file://"))
    if _URL.match(text):
        scheme = text.partition(":")[0]
        raise RunnerError(
            Problem(
                code="run/url",
                what=f"'{scheme}:' cannot be written to; a run directory is a folder of this machine, or mounted into "
                "it.",
                where=Where(path="--out"),
                fix="Mount the bucket, give the folder as --out, and copy the results from there.",
            ),
            Exit.RUN_DIRECTORY,
        )
    return Path(text)


def _folder_signature(model: Path, hash_of: Callable[[Path], str]) -> list[str]:
    """A local model's files: small ones by content, weights by size and time, which are read in no time."""
    files = sorted(path for path in model.glob("*") if path.is_file()) if model.is_dir() else []
    signature = []
    for path in files:
        found = path.stat()
        large = found.st_size > 1_000_000
        signature.append(f"{path.name} {f'{found.st_size} {found.st_mtime_ns}' if large else hash_of(path)}")
    return signature


def file_hash(path: Path) -> str:
    """The sha256 of a file; one that cannot be read has none."""
    try:
        return sha256_of(path)
    except OSError:
        return "unreadable"
