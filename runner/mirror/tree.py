"""What of a run directory goes up, and in which order: a file that makes others count goes after them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MARKER = "COMMIT.json"  # of a folder that counts for nothing until this file is in it
WHOSE = "run.lock.json"  # whose the directory is: it goes first
LAST = ("train/outcome.json", "report.html", "report.json")  # each says that everything before it is there
LEFT_OUT = ("quarantine", "tmp")
COMMITTED = "checkpoints"  # the folders in a folder of this name count only with their marker


@dataclass(frozen=True)
class State:
    """A file's size in bytes, and when it was last changed (ns)."""

    size: int
    changed: int


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Files that count together, in the order in which they are sent; the last one makes them count."""

    files: Mapping[str, State]

    @property
    def marker(self) -> str | None:
        """The file that makes the others count, where there are others."""
        return list(self.files)[-1] if len(self.files) > 1 else None


def scan(run: Path) -> list[Unit]:
    """The units of a run directory as they are now, in the order in which they are sent."""
    found = dict(_files(run, ""))
    folders: dict[str, dict[str, State]] = {}
    alone: dict[str, State] = {}
    for name, state in found.items():
        folder = name.rpartition("/")[0]
        if Path(folder).parent.name == COMMITTED:
            folders.setdefault(folder, {})[name] = state
        else:
            alone[name] = state
    whole = [_unit(folder, files) for folder, files in sorted(folders.items()) if f"{folder}/{MARKER}" in files]
    rest = sorted(alone, key=lambda name: (name != WHOSE, name in LAST and LAST.index(name) + 1, name))
    first = [name for name in rest if name == WHOSE]
    singles = [Unit(files={name: alone[name]}) for name in rest[len(first) :]]
    return [*(Unit(files={name: alone[name]}) for name in first), *whole, *singles]


def _unit(folder: str, files: Mapping[str, State]) -> Unit:
    marker = f"{folder}/{MARKER}"
    return Unit(files={**{name: state for name, state in files.items() if name != marker}, marker: files[marker]})


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, State]]:
    """Plain files with their states; those that are hidden are being written, or are this machine's own."""
    try:
        entries = list(os.scandir(folder))
    except OSError:  # it went while we looked
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in LEFT_OUT or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _files(Path(entry.path), f"{prefix}{entry.name}/")
        elif entry.is_file():
            try:
                stat = entry.stat()
            except OSError:
                continue
            yield f"{prefix}{entry.name}", State(stat.st_size, stat.st_mtime_ns)


def restorable(names: Mapping[str, int]) -> list[str]:
    """Of a mirror's files, those that a machine takes to go on: no folder without its marker, and no lease."""
    return [name for name in names if not name.startswith(".") and not _is_unfinished(name, names)]


def _is_unfinished(name: str, names: Mapping[str, int]) -> bool:
    folder = name.rpartition("/")[0]
    return Path(folder).parent.name == COMMITTED and f"{folder}/{MARKER}" not in names
