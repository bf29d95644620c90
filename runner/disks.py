"""What failed when reading or writing failed: which file or disk, and the cure."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from runner.errors import Problem, Where

FULL = (errno.ENOSPC, errno.EDQUOT)
BARRED = (errno.EROFS, errno.EACCES, errno.EPERM)
ROOM_BYTES = 1 << 20  # with less, a disk counts as full


def io_problem(error: OSError, folders: Iterable[Path]) -> Problem:
    """The problem behind an OSError. Libraries do not always say which file it was: then it is the one of `folders`,
    or the temporary folder, that is full or cannot be written."""
    reason = error.strerror or str(error) or type(error).__name__
    named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    place = named or _at_fault(error.errno, [*folders, Path(tempfile.gettempdir())])
    fix = "Check the disk's health, then run the same command again."
    if error.errno in FULL:
        fix = f"Make room{_room(place)}, then run the same command again."
    elif error.errno in BARRED:
        fix = "Let the run write there, or name other folders: --out, RUNNER_CACHE, TMPDIR."
    return Problem(code="run/io", what=f"Reading or writing failed: {reason}.", where=Where(path=place), fix=fix)


def _at_fault(number: int | None, folders: list[Path]) -> str | None:
    """The first folder that such an error can come from."""
    for folder in map(_there, folders):
        if number in FULL and shutil.disk_usage(folder).free < ROOM_BYTES:
            return str(folder)
        if number in BARRED and not os.access(folder, os.W_OK):
            return str(folder)
    return None


def _room(place: str | None) -> str:
    if place is None:
        return " on the disk"
    folder = _there(Path(place))
    return f" on the disk of {folder} ({shutil.disk_usage(folder).free / 1e6:.1f} MB are free)"


def _there(path: Path) -> Path:
    """The path, or the nearest above it that exists."""
    return next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), Path("/"))
