"""Models and data once they are here: what a lock holds of them, and how they differ from it. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.backends.base import Backend, Watch
from runner.backends.pins import pin_model
from runner.data.reading.hub import commit_in
from runner.data.reading.sources import is_hub
from runner.errors import Problem
from runner.lock.drift import compare_file, find_model_drifts
from runner.lock.facts import entry_key, identity, model_facts, named_models, of_size, source_label
from runner.lock.file import Facts, Locked
from runner.manifest import Manifest
from runner.plan import source_name
from runner.roots import named_sources

if TYPE_CHECKING:
    from runner.data.ledger import Ledger


def locate_models(
    manifest: Manifest, backend: Backend, cache: Path, watch: Watch, *, fetch: bool
) -> Iterator[dict[str, Any]]:
    """The manifest's models as they lie here; what may not be fetched is left unknown. Raises RunnerError as
    `Backend.locate`."""
    for key, name in named_models(manifest):
        yield model_facts(key, pin_model(name, backend.locate(name, cache, watch, fetch=fetch), cache))


def read_data(manifest: Manifest, ledger: Ledger, cache: Path) -> list[dict[str, Any]]:
    """The data of a run, now that all of it was fetched and read: the facts that a lock holds of it."""
    found = []
    for (key, written), source in zip(named_sources(manifest.values["data"]), ledger.sources, strict=True):
        by_commit = is_hub(source_name(written, manifest.folder))
        known = {"commit": commit_in(cache, written)} if by_commit else of_size(source.num_bytes, source.sha256)
        found.append({"key": entry_key(key), "name": source_label(written), **known, "rows": source.num_rows})
    return found


def find_fetched_drifts(locked: Locked, data: Sequence[Facts]) -> list[Problem]:
    """The files that are not as they were locked, now that all are here, those of the web as well."""
    held = {identity(entry): i for i, entry in enumerate(locked.facts["data"])}
    seen = (entry for entry in data if "sha256" in entry and identity(entry) in held)
    found = (compare_file(locked, "data", held[identity(entry)], entry) for entry in seen)
    return [problem for problem in found if problem]


def find_opened_drifts(locked: Locked, models: Sequence[Facts]) -> list[Problem]:
    """The models that are not as they were locked, now that they were fetched."""
    return [problem for found in models for problem in find_model_drifts(locked, found)]
