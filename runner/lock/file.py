"""The lock file beside a manifest: written for git, read with its places, and known to be as it was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from runner.document import Document, KeyPath, read_document, resolve
from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import write_whole
from runner.schema import read_schema

LOCK_VERSION = 1
HEADER = """\
# What {manifest} stands on, written by `runner lock`. Keep it in git beside the manifest: `runner run --locked`
# refuses whatever differs. It is not for editing: `runner lock {manifest}` writes it anew and says what changed.
"""
Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Locked:
    """What a run is held to: the facts of a lock file, or of an earlier run's record, and where they stand.

    `accept` says how one takes things as they are now. Unless it `refuses`, what differs is only told.
    `weights_sha256` is what came out of the earlier run.
    """

    facts: Facts
    path: Path
    accept: str
    refuses: bool = True
    document: Document | None = None
    weights_sha256: str | None = None

    def where(self, *path: str | int) -> Where:
        """The place of one of the facts."""
        if self.document is None:
            return Where(path=str(self.path), key=".".join(map(str, path)))
        return self.document.where(path, value=True)


def lock_path(manifest: Path) -> Path:
    """Where the lock of a manifest is: brand-voice.yaml has brand-voice.lock.yaml."""
    return manifest.with_name(f"{manifest.stem}.lock.yaml")


def read_lock(manifest: Path) -> Locked:
    """The lock of a manifest. Raises RunnerError: 66 there is none or it cannot be read, 78 it is not as it was
    written, or of a version that is not known here."""
    path = lock_path(manifest)
    again = f"runner lock {manifest}"
    if not path.exists():
        what = f"There is no lock of {manifest.name}."
        raise _unusable("missing", what, Where(path=str(path)), f"Write it: {again}", Exit.INPUT_MISSING)
    fix = f"Take it from git again (git checkout -- {path.name}), or write it anew: {again}"
    try:
        document = read_document(path)
    except RunnerError as error:
        first = error.problems[0]
        what = f"The lock cannot be read. {first.what.replace('The manifest', 'It')}"
        raise _unusable("unreadable", what, first.where, fix, error.exit_code) from error
    _check(document, fix, document.problems)
    facts = {key: value for key, value in document.value.items() if key not in ("lock_version", "content_sha256")}
    accept = f"or lock what is here now: {again}"
    return Locked(facts=facts, path=path, accept=accept, document=document)


def _check(document: Document, fix: str, faults: list[Problem]) -> None:
    version = document.value.get("lock_version")
    if isinstance(version, int) and version > LOCK_VERSION:
        what = f"The lock has version {version}; this runner knows locks up to version {LOCK_VERSION}."
        cure = "Use the newer runner that wrote it, or write it anew with this one: runner lock MANIFEST"
        raise _unusable("newer", what, document.where(("lock_version",), value=True), cure, Exit.MANIFEST)
    seal = document.value.get("content_sha256")
    if not faults and isinstance(seal, str) and seal != _seal(document.value):
        what = "The lock was edited, or two versions of it were merged: its content is not what its last line says."
        raise _unusable("edited", what, document.where(("content_sha256",), value=True), fix, Exit.MANIFEST)
    if faults := [*faults, *_violations(document)]:
        raise RunnerError([replace(fault, code="lock/damaged", fix=fix) for fault in faults[:3]], Exit.MANIFEST)


def _violations(document: Document) -> Iterator[Problem]:
    """What is not as the schema of locks wants it."""
    from jsonschema import Draft202012Validator  # 0.1 s

    for error in Draft202012Validator(read_schema("lock")).iter_errors(document.value):
        what = f"The lock is damaged: {error.message[:120]}."
        yield Problem(code="lock/damaged", what=what, where=document.where(tuple(error.absolute_path), value=True))


def _unusable(slug: str, what: str, where: Where, fix: str, exit_code: Exit) -> RunnerError:
    return RunnerError(Problem(code=f"lock/{slug}", what=what, where=where, fix=fix), exit_code)


def write_lock(manifest: Path, facts: Facts) -> Path:
    """Writes the lock of a manifest, whole."""
    values = {"lock_version": LOCK_VERSION, **facts}
    sealed = {**values, "content_sha256": _seal(values)}
    text = yaml.dump(sealed, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return write_whole(lock_path(manifest), HEADER.format(manifest=manifest.name) + text)


def _seal(values: Mapping[str, Any]) -> str:
    sealed = {key: value for key, value in values.items() if key != "content_sha256"}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class _Dumper(yaml.SafeDumper):
    """Quotes what our own reader, which follows YAML 1.2, would not take for text."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if isinstance(resolve(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def changes(before: Facts, after: Facts, path: KeyPath = ()) -> list[str]:
    """What differs between two locks, a line a value: `key: before -> after`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = dict.fromkeys([*before, *after])
        return [line for key in keys for line in changes(before.get(key), after.get(key), (*path, key))]  # type: ignore[arg-type]
    if isinstance(before, list) and isinstance(after, list):
        pairs = enumerate(zip([*before, *[None] * len(after)], [*after, *[None] * len(before)], strict=False))
        return [line for i, (a, b) in pairs if (a, b) != (None, None) for line in changes(a, b, (*path, i))]
    return [] if before == after else [f"{'.'.join(map(str, path))}: {_short(before)} -> {_short(after)}"]


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
