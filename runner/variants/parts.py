"""A point of a sweep: its settings, each with the place where it is written, and the manifest that they make."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, replace

from runner.document import Document, KeyPath, Place, Value, dotted, resolve

SECTION = "sweep"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value for a key; `key_at` and `value_at` are where the two are written in the sweep."""

    path: KeyPath
    value: Value
    key_at: KeyPath
    value_at: KeyPath

    @property
    def assignment(self) -> str:
        """The setting in the form of `--set`."""
        return f"{dotted(self.path)}={as_yaml(self.value)}"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A point: its label, which names a directory, and its settings."""

    label: str
    settings: tuple[Setting, ...]


def apply(document: Document, variant: Variant) -> Document:
    """The manifest of a point: the document without its sweep, with the point's values in their places."""
    others = (key for key in document.value if key != SECTION)
    point = replace(
        document,
        value={key: copy.deepcopy(document.value[key]) for key in others},
        places={path: place for path, place in document.places.items() if path[:1] != (SECTION,)},
        overridden={path for path in document.overridden if path[:1] != (SECTION,)},
        problems=[],
    )
    for setting in variant.settings:
        _set(point, setting, document)
    return point


def _set(point: Document, setting: Setting, document: Document) -> None:
    """Puts one value into a point's document; its places are those where the sweep has it."""
    path = setting.path
    target = point.value
    for part in path[:-1]:
        if not isinstance(target.get(part), dict):
            target[part] = {}
        target = target[part]
    target[path[-1]] = copy.deepcopy(setting.value)
    for old in [held for held in point.places if held[: len(path)] == path]:
        del point.places[old]
    key, value = document.places.get(setting.key_at), document.places.get(setting.value_at)
    if key is None or value is None:  # the sweep came by --set
        point.overridden.add(path)
        return
    for end in range(1, len(path)):
        point.places.setdefault(path[:end], key)
    for held, place in document.places.items():
        if held[: len(setting.value_at)] == setting.value_at:
            point.places[(*path, *held[len(setting.value_at) :])] = place
    point.places[path] = Place(
        line=key.line, column=key.column, value_line=value.value_line, value_column=value.value_column
    )


def as_yaml(value: Value) -> str:
    """The value as `--set` reads it."""
    if (
        isinstance(value, str)
        and re.fullmatch(r"[\w./@-]+", value)
        and resolve(value) == value
        and value[0] not in "-@"
    ):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
