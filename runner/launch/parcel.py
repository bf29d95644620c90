"""The files that go to the cluster with a job: the manifest, and what it names by relative paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import Exit, Problem, RunnerError, Where
from runner.manifest import Manifest
from runner.plan import source_files
from runner.sweep import point_manifests

FOLDER = "/work/job"  # in the container, below the working directory, where a manifest may name files


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Files by their paths below `root`, a folder of this machine; `manifest` is one of them."""

    root: Path
    manifest: str
    names: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """The size of all."""
        return sum((self.root / name).stat().st_size for name in self.names)


def pack(manifest: Manifest) -> Parcel:
    """The manifest and the files that it, or a point of its sweep, names by relative paths.

    Raises RunnerError (66) with those that are not here, and (78) for folders of models, which are no parcel.
    """
    if models := list(_model_folders(manifest)):
        raise RunnerError(models, Exit.MANIFEST)
    named = [path for path in _named(manifest) if not is_elsewhere(manifest, path)]
    files = [file for path in named for file in _files_of(path)]
    if missing := [path for path in files if not path.is_file()]:
        raise RunnerError([_missing(path) for path in missing], Exit.INPUT_MISSING)
    whole = [Path(os.path.normpath(path.absolute())) for path in (manifest.path, *files)]
    root = Path(os.path.commonpath([path.parent for path in whole]))
    names = tuple(dict.fromkeys(path.relative_to(root).as_posix() for path in whole))
    return Parcel(root=root, manifest=names[0], names=names)


def files_elsewhere(manifest: Manifest) -> list[str]:
    """What is not sent along and has to be at the same place over there: files and models that the manifest names by
    absolute paths, and modules of metrics that are not beside it."""
    models = [manifest.document.get(*key) for key in (("approach", "model"), ("eval", "embedding"))]
    found = [path for path in _named(manifest) if is_elsewhere(manifest, path)]
    return [*map(str, found), *(name for name in models if isinstance(name, str) and name.startswith(("/", "~")))]


def is_elsewhere(manifest: Manifest, path: Path) -> bool:
    """Whether a file was not named from the manifest's folder, or is a module that is not there."""
    is_module = path.suffix == ".py" and not path.exists() and not path.with_suffix("").is_dir()
    return is_module or str(path) in _absolute(manifest.values)


def _named(manifest: Manifest) -> list[Path]:
    found = [path for own in (manifest, *point_manifests(manifest)) for path in source_files(own)]
    return list(dict.fromkeys(found))


def _absolute(value: Any) -> set[str]:
    """Every text of the manifest that is an absolute path."""
    if isinstance(value, str):
        return {str(Path(value).expanduser())} if value.startswith(("~", "/")) else set()
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return {path for item in items for path in _absolute(item)}


def _files_of(path: Path) -> list[Path]:
    """The file itself, those of a folder, or those of the package that a module is."""
    folder = path.with_suffix("") if path.suffix == ".py" and not path.exists() else path
    return sorted(found for found in folder.rglob("*") if found.is_file()) if folder.is_dir() else [path]


def _model_folders(manifest: Manifest) -> Iterator[Problem]:
    """Models beside the manifest are folders of gigabytes."""
    for key in (("approach", "model"), ("eval", "embedding")):
        name = manifest.document.get(*key)
        if isinstance(name, str) and name.startswith("."):
            yield Problem(
                code="export/model-folder",
                what=f"The model '{name}' is a folder beside the manifest, which is not sent along.",
                where=manifest.document.where(key, value=True),
                fix="Use a hub id; or put folder and manifest on the volume or into the image, and say with --at where "
                "the manifest is there.",
            )


def _missing(path: Path) -> Problem:
    what = "A file that the job needs is not here."
    return Problem(
        code="data/missing", what=what, where=Where(path=str(path)), fix="Correct the path, or put it there."
    )
