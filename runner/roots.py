"""The folders that a manifest may name files in, where RUNNER_ROOTS limits them, as it does in the image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from runner.document import KeyPath, dotted
from runner.errors import Exit, Problem, RunnerError
from runner.manifest import Manifest
from runner.plan import model_name, source_name

REMOTE = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf")
HERE = ("file", "local")  # schemes of a path of this machine


def check_paths(manifests: Iterable[Manifest], environment: Mapping[str, str]) -> None:
    """Raises RunnerError (78) with every path of manifests that leads out of their own folder, the working directory
    and RUNNER_ROOTS (separated by colons; not set: anything may be named), symlinks followed. Opens nothing."""
    named = environment.get("RUNNER_ROOTS")
    if not named:
        return
    given = [Path(root) for root in named.split(os.pathsep) if root]
    problems = []
    for manifest in manifests:
        roots = [root.resolve() for root in (manifest.folder, Path(), *given)]
        found = ((key, _why_not(path, roots)) for key, path in _paths(manifest))
        problems += [_outside(manifest, key, why) for key, why in found if why is not None]
    if problems:
        raise RunnerError(list(dict.fromkeys(problems)), Exit.MANIFEST)


def _why_not(path: Path | str, roots: list[Path]) -> str | None:
    """Why a path may not be read; a text is what is no path of the roots' file system at all."""
    if isinstance(path, str):
        return path
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of symlinks, a NUL byte
        return "is a path that leads nowhere"
    inside = any(real.is_relative_to(root) for root in roots)
    return None if inside else "leads out of the folders that a manifest may name here"


def _paths(manifest: Manifest) -> Iterator[tuple[KeyPath, Path | str]]:
    """Every path that the manifest makes us open, by the key that names it; of a model's folder, its files too."""
    for key, source in named_sources(manifest.values["data"]):
        yield key, _of_source(source, manifest.folder)
    for key in (("eval", "json_schema"), ("eval", "judge", "human")):
        if name := manifest.document.get(*key):
            yield key, manifest.folder / name
    for key in (("approach", "model"), ("eval", "embedding")):
        if name := manifest.document.get(*key):
            yield from ((key, path) for path in _of_model(model_name(name, manifest.folder)))
    for i, metric in enumerate(manifest.document.get("eval", "metrics", default=[])):
        if isinstance(metric, Mapping):
            stem = manifest.folder.joinpath(*metric["python"].partition(":")[0].split("."))
            yield ("eval", "metrics", i), stem.with_name(f"{stem.name}.py")
            yield ("eval", "metrics", i), stem / "__init__.py"


def named_sources(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Every source of the data as written, with the key that names it, in the order in which they are read."""
    for part in ("train", "dev", "test", "mix"):
        value = data.get(part) or []
        entries = enumerate(value) if isinstance(value, list) else [(None, value)]
        for i, entry in entries:
            key: KeyPath = ("data", part) if i is None else ("data", part, i)
            yield (*key, "source") if isinstance(entry, Mapping) else key, _written(entry)


def _written(entry: str | Mapping[str, Any]) -> str:
    source: str = entry if isinstance(entry, str) else entry["source"]
    return source


def _of_source(source: str, folder: Path) -> Path | str:
    """The path of a source; one of the web or of the hub is the working directory's affair, which is allowed."""
    scheme, colon, _ = source.partition("://")
    if colon and scheme.lower() in HERE:
        return Path(unquote(urlsplit(source).path))
    if colon:
        return Path() if scheme.lower() in REMOTE else f"has the scheme '{scheme}', which is not allowed here"
    return Path(source_name(source, folder))


def _of_model(name: str) -> Iterator[Path]:
    """A model's folder and the files in it; a hub id is a folder where the working directory has one of that name."""
    folder = Path(name.partition("@")[0] if not Path(name).is_absolute() else name)
    yield folder
    if folder.is_dir():
        yield from folder.rglob("*")


def _outside(manifest: Manifest, key: KeyPath, why: str) -> Problem:
    return Problem(
        code="manifest/outside",
        what=f"What '{dotted(key)}' names {why}.",
        where=manifest.document.where(key, value=True),
        fix="Put the file beside the manifest, or mount its folder and name that in RUNNER_ROOTS.",
    )
