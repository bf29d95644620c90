"""A lock's facts in full: models are opened, data is fetched and read, as a run would do it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runner.backends.base import Backend, ModelFacts, Watch
from runner.data.reading import fetch
from runner.data.reading.sources import is_hub
from runner.data.store import store_file
from runner.lock.facts import entry_key, look, of_size, once, source_label
from runner.lock.opened import locate_models
from runner.manifest import Manifest
from runner.plan import make_plan
from runner.roots import named_sources


def look_closely(
    manifest: Manifest, points: Sequence[Manifest], backend: Backend, model: ModelFacts, cache: Path, watch: Watch
) -> dict[str, Any]:
    """`look`, with every revision as a commit, the hash of everything that is fetched, and every file's rows.

    Raises RunnerError when a model or a source cannot be had (66, 69, 77) or read (65).
    """
    runs = [manifest, *points]
    facts = look(manifest, cache, points)
    facts["models"] = once(found for one in runs for found in locate_models(one, backend, cache, watch, fetch=True))
    facts["data"] = once(found for one in runs for found in _fetch_data(one, model, cache, watch))
    return facts


def _fetch_data(manifest: Manifest, model: ModelFacts, cache: Path, watch: Watch) -> Iterator[dict[str, Any]]:
    data = make_plan(manifest, model).data
    sources = [*data.train, *data.dev, *data.test, *(mix.source for mix in data.mix)]
    for (key, written), source in zip(named_sources(manifest.values["data"]), sources, strict=True):
        file = fetch(source.source, cache, watch.say, key=entry_key(key))
        by_commit = is_hub(source.source)
        known = {"commit": file.path.parent.name} if by_commit else of_size(file.num_bytes, file.sha256)
        rows = store_file(source, file, cache, watch).num_rows
        yield {"key": entry_key(key), "name": source_label(written), **known, "rows": rows}
