"""A manifest with commits in the place of revisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runner.lock.file import Locked
from runner.manifest import Manifest

PINNED = ("approach", "eval", "data", "sweep")  # the sections that name models and data


def pin(manifest: Manifest, locked: Locked) -> Manifest:
    """The manifest with the locked commits in the place of revisions, so that nothing else is fetched."""
    commits = {
        entry["name"]: _at_commit(entry["name"], entry["commit"])
        for entry in (*locked.facts["models"], *locked.facts["data"])
        if entry.get("commit")
    }
    values = {
        section: _replaced(value, commits) if section in PINNED else value for section, value in manifest.values.items()
    }
    return replace(manifest, document=replace(manifest.document, value=values))


def _at_commit(name: str, commit: str) -> str:
    """`org/name@main:split` at a commit."""
    base, _, revision = name.partition("@")
    return f"{base}@{commit}{''.join(revision.partition(':')[1:])}"


def _replaced(value: Any, commits: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(item, commits) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, commits) for item in value]
    return commits.get(value, value) if isinstance(value, str) else value
