"""Which run a manifest is: its id, its directory, and whether it is done already. Loads nothing heavy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from runner import __version__
from runner.asked import asked_for
from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import known_sha256
from runner.manifest import Manifest
from runner.plan import model_reference, source_files


def identify(manifest: Manifest, hash_of: Callable[[Path], str] | None = None) -> str:
    """The run id: a hash of what is asked for, of the files it names (by `hash_of`) and of this version.

    Tracking, checkpoints and limits do not count, so changing them does not make another run; nor does where the files
    lie, or when they were written.
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


def repeat_directory(usual: Path, out: Path | None, past: Path) -> Path:
    """The directory of a run that repeats the one in `past`: `out`, else the usual one with `-repeat` behind it. Raises
    RunnerError (73) where it would be the same directory."""
    path = out or usual.with_name(f"{usual.name}-repeat")
    if path.resolve() == past.resolve():
        what, fix = "A run is repeated into a new directory, and this is the one that it is in.", "Give another --out."
        problem = Problem(code="repeat/same-directory", what=what, where=Where(path=str(path)), fix=fix)
        raise RunnerError(problem, Exit.RUN_DIRECTORY)
    return path


def _folder_signature(model: Path, hash_of: Callable[[Path], str]) -> list[str]:
    """A local model's files, by content."""
    files = sorted(path for path in model.glob("*") if path.is_file()) if model.is_dir() else []
    return [f"{path.name} {hash_of(path)}" for path in files]


def hashing(cache: Path) -> Callable[[Path], str]:
    """`file_hash`, which reads a large file once for each cache."""
    return partial(file_hash, cache=cache)


def file_hash(path: Path, cache: Path | None = None) -> str:
    """The sha256 of a file; one that cannot be read has none."""
    try:
        return known_sha256(path, cache)
    except OSError:
        return "unreadable"
