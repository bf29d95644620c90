"""What a model's name stands for, by content: a commit of the hub, or the hashes of files; its tokenizer and template.
Loads nothing heavy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from runner.files import known_sha256, read_small

TEMPLATES = ("chat_template.jinja", "chat_template.json")
TOKENIZERS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
MOST_BYTES = 200_000_000  # of a tokenizer's file

Kind = Literal["hub", "folder", "embedded"]


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where a model's tokenizer and config lie on this machine; the commit of one of the hub, and the hash of the file
    of an embedded one, by its name."""

    folder: Path
    commit: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelPin:
    """A model and what it was: `commit` of the hub, or the sha256 of each of its `files`; the hashes of its tokenizer
    and of its chat template. None is not known, or not there."""

    kind: Kind
    name: str
    commit: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    tokenizer_sha256: str | None = None
    chat_template_sha256: str | None = None


def name_pin(reference: str) -> ModelPin:
    """What the name alone tells: a folder (an absolute path) by its last part, a model of the hub with its revision,
    or an embedded one."""
    if Path(reference).is_absolute():
        return ModelPin(kind="folder", name=Path(reference).name)
    return ModelPin(kind="hub" if "/" in reference else "embedded", name=reference)


def pin_model(reference: str, located: Located | None, cache: Path) -> ModelPin:
    """The model as it lies here. Raises OSError when a file of it cannot be read."""
    pin = name_pin(reference)
    if located is None:
        return pin
    # Which others of the hub's files are here depends on who fetched them before; a commit stands for all of them.
    tokenizer, template = hash_tokenizer(located.folder, TOKENIZERS[:2] if located.commit else TOKENIZERS)
    files = _hash_files(located.folder, cache) if pin.kind == "folder" else located.files
    return replace(pin, commit=located.commit, files=files, tokenizer_sha256=tokenizer, chat_template_sha256=template)


def _hash_files(folder: Path, cache: Path) -> dict[str, str]:
    """The sha256 of every file but those of the tokenizer, the template and the pages about them."""
    apart = {*TEMPLATES, *TOKENIZERS}
    files = (path for path in sorted(folder.glob("*")) if path.is_file() and path.suffix != ".md")
    return {
        path.name: known_sha256(path, cache)
        for path in files
        if path.name not in apart and not path.name.startswith(".")
    }


def hash_tokenizer(folder: Path, names: Sequence[str] = TOKENIZERS) -> tuple[str | None, str | None]:
    """The sha256 of a folder's tokenizer (but for its template), and of its chat template; None where there is none.
    Raises OSError when a file cannot be read."""
    files = {name: read_small(folder / name, MOST_BYTES) for name in names if (folder / name).is_file()}
    config = _object(files.get("tokenizer_config.json", b""))
    template = config.pop("chat_template", None)
    for name in TEMPLATES:
        if (folder / name).is_file():
            raw = read_small(folder / name, MOST_BYTES)
            template = _object(raw).get("chat_template") if name.endswith(".json") else raw.decode("utf-8", "replace")
            break
    if config:
        files["tokenizer_config.json"] = json.dumps(config, sort_keys=True).encode()
    return _digest({name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}), _digest(template)


def _digest(value: Any) -> str | None:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest() if value else None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
