"""What a manifest stands on, looked at as it is now. Loads nothing heavy and fetches nothing."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner import __version__
from runner.asked import asked_for
from runner.backends.pins import Located, ModelPin, name_pin, pin_model
from runner.data.reading.sources import is_hub, is_url
from runner.document import KeyPath, dotted
from runner.files import known_sha256
from runner.manifest import Manifest
from runner.packages import missing_for_training, public_versions
from runner.plan import model_name, source_name, without_secrets
from runner.roots import named_sources

MODELS: tuple[KeyPath, ...] = (("approach", "model"), ("eval", "embedding"))
DECISIVE = (  # packages that every result comes from; liger-kernel counts where it is installed
    *("torch", "transformers", "tokenizers", "peft", "accelerate", "safetensors", "liger-kernel"),
    *("numpy", "scipy", "pyarrow", "regex", "bm25s", "sacrebleu", "rapidfuzz", "jinja2", "jsonschema"),
)
SHOWN_CHARACTERS = 80


def look(manifest: Manifest, cache: Path, points: Sequence[Manifest] = ()) -> dict[str, Any]:
    """What can be known of the runs of a manifest, and of the points of its sweep, without loading or fetching
    anything; None is not known.

    Holds neither a secret, nor an absolute path, nor anything of this machine but the versions of packages.
    """
    runs = (manifest, *points)
    return {
        "runner": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "manifest": {
            "name": manifest.values["name"],
            "sha256": canonical_sha256(manifest),
            "values": {key: _shown(value) for key, value in _flat(_asked(manifest), ())},
        },
        "models": once(model_facts(key, _pin(name, cache)) for one in runs for key, name in named_models(one)),
        "data": once(_source(*found, one.folder, cache) for one in runs for found in named_sources(one.values["data"])),
        "files": once(_file(*found, one.folder, cache) for one in runs for found in _named_files(one)),
        "packages": {}
        if missing_for_training()
        else public_versions({name for one in runs for name in _packages(one)}),
    }


def once(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries, each once: those of two points of a sweep may be the same."""
    return list({identity(entry): entry for entry in entries}.values())


def identity(entry: Mapping[str, Any]) -> tuple[str, str]:
    """What an entry is known by: the key that names it and the name that stands there."""
    return entry["key"], entry["name"]


def canonical_sha256(manifest: Manifest) -> str:
    """The hash of the written values that decide a result; comments and formatting do not count."""
    return hashlib.sha256(json.dumps(_asked(manifest), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _asked(manifest: Manifest) -> dict[str, Any]:
    """The values that decide a result, under the manifest's own keys, and the points of a sweep."""
    values = asked_for(manifest.values)
    price, sweep = values.pop("usd_per_hour"), manifest.values.get("sweep")
    more = {"budget": {"usd_per_hour": price} if price is not None else None, "sweep": sweep}
    return {**values, **{key: value for key, value in more.items() if value}}


def named_models(manifest: Manifest) -> Iterator[tuple[KeyPath, str]]:
    """Every model of this machine that the manifest names, as the backend wants it."""
    for key in MODELS:
        if name := manifest.document.get(*key):
            yield key, model_name(name, manifest.folder)


def model_facts(key: KeyPath, pin: ModelPin) -> dict[str, Any]:
    """What is known of a model; of a folder the files are, even where there are none."""
    values = {name: dict(value) if isinstance(value, Mapping) else value for name, value in asdict(pin).items()}
    known = {name: value for name, value in values.items() if value or (name, pin.kind) == ("files", "folder")}
    return {"key": dotted(key), **known}


def entry_key(key: KeyPath) -> str:
    """The key of a source of the data, however it is written."""
    return dotted(tuple(part for part in key if part != "source"))


def source_label(source: str) -> str:
    """A source as it may be shown to others: without secrets and without folders of this machine."""
    if is_url(source):
        return str(without_secrets(source))
    return Path(source).name if source.startswith(("/", "~")) else source


def of_size(num_bytes: int, sha256: str) -> dict[str, Any]:
    """What is known of a file that was read."""
    return {"bytes": num_bytes, "sha256": sha256}


def _pin(reference: str, cache: Path) -> ModelPin:
    pin = name_pin(reference)
    if pin.kind != "folder":
        return pin
    try:
        return pin_model(reference, Located(folder=Path(reference)), cache)
    except OSError:
        return pin


def _source(key: KeyPath, source: str, folder: Path, cache: Path) -> dict[str, Any]:
    entry = {"key": entry_key(key), "name": source_label(source)}
    name = source_name(source, folder)
    return entry if is_url(source) or is_hub(name) else {**entry, **_facts(Path(name), cache)}


def _file(key: str, path: Path, folder: Path, cache: Path) -> dict[str, Any]:
    inside = path.is_relative_to(folder)
    return {"key": key, "name": str(path.relative_to(folder)) if inside else path.name, **_facts(path, cache)}


def _facts(path: Path, cache: Path) -> dict[str, Any]:
    try:
        return {"bytes": path.stat().st_size, "sha256": known_sha256(path, cache)}
    except (OSError, ValueError):
        return {"bytes": None, "sha256": None}


def _named_files(manifest: Manifest) -> Iterator[tuple[str, Path]]:
    """Templates, schemas and code that the manifest names beside its data."""
    for key in (("eval", "json_schema"), ("eval", "judge", "human")):
        if name := manifest.document.get(*key):
            yield dotted(key), manifest.folder / name
    for i, metric in enumerate(manifest.document.get("eval", "metrics", default=[])):
        if isinstance(metric, Mapping):
            module = metric["python"].partition(":")[0].replace(".", "/")
            found = manifest.folder / module / "__init__.py"
            yield f"eval.metrics.{i}", found if found.is_file() else manifest.folder / f"{module}.py"


def _packages(manifest: Manifest) -> Iterator[str]:
    yield from DECISIVE
    if manifest.values["approach"]["kind"] == "qlora":
        yield "bitsandbytes"
    if any(name_pin(reference).kind == "embedded" for _, reference in named_models(manifest)):
        yield "gguf"
    if any(is_hub(source_name(source, manifest.folder)) for _, source in named_sources(manifest.values["data"])):
        yield "datasets"


def _flat(value: Any, path: KeyPath) -> Iterator[tuple[str, Any]]:
    """Every single value by its dotted key."""
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    if not value or not isinstance(value, Mapping | list):
        yield dotted(path), value
    for key, item in entries:
        yield from _flat(item, (*path, key))


def _shown(value: Any) -> Any:
    """A value as it may stand in a lock; a text that is long, or not for everybody, by its hash."""
    if not isinstance(value, str):
        return str(value) if isinstance(value, list | Mapping) else value  # an empty one
    fits = len(value) <= SHOWN_CHARACTERS and "\n" not in value and not value.startswith(("/", "~"))
    return value if fits and without_secrets(value) == value else f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
