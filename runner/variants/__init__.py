"""The points of a sweep: what each puts over the manifest, under what label, and what is wrong with it.

A point is checked as the manifest that it makes, so every value is held to its key's own rules, where it is written.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from runner.document import Document, KeyPath, Value
from runner.errors import Problem
from runner.schema import read_schema
from runner.variants.faults import bad_name, both_ways, clashes, empty, no_values, point_problems, repeated, too_many
from runner.variants.parts import SECTION, Setting, Variant, apply

__all__ = ["SECTION", "Setting", "Variant", "apply", "expand", "point_problems"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
LONGEST_VALUE, LONGEST_LABEL = 24, 120  # characters; a directory is named by the label


def expand(document: Document) -> tuple[list[Variant], list[Problem]]:
    """The points that a manifest asks for, the last key and the seeds varying fastest; none where there are faults of
    the sweep itself, or no sweep."""
    sweep = document.get(SECTION)
    if not isinstance(sweep, dict) or not any(sweep.get(part) for part in ("grid", "points", "seeds")):
        is_written = SECTION in document.value and (SECTION,) not in document.overridden
        return [], [empty(document)] if is_written else []
    problems: list[Problem] = []
    if "grid" in sweep and "points" in sweep:
        problems.append(both_ways(document))
    choices = _grid(document, problems) if "grid" in sweep else _named(document, problems)
    if seeds := sweep.get("seeds"):
        at = (SECTION, "seeds")
        choices.append(
            [
                Variant(
                    label=f"seed={seed}",
                    settings=(Setting(path=("seed",), value=seed, key_at=at, value_at=(*at, i)),),
                )
                for i, seed in enumerate(seeds)
            ]
        )
    problems += clashes(document, choices)
    if problems:
        return [], problems
    if excess := too_many(document, math.prod(len(options) for options in choices)):
        return [], [excess]
    return [_joined(number, parts) for number, parts in enumerate(itertools.product(*choices))], []


def _grid(document: Document, problems: list[Problem]) -> list[list[Variant]]:
    """For every key of the grid its values."""
    choices = []
    for path, values, at in _leaves(document.get(SECTION, "grid"), (), (SECTION, "grid"), _is_any_group):
        if not isinstance(values, list) or not values:
            problems.append(no_values(document, path, values, at))
            continue
        for i, value in enumerate(values):
            if any(_is_same(value, earlier) for earlier in values[:i]):
                problems.append(repeated(document, path, value, (*at, i)))
        settings = [Setting(path=path, value=value, key_at=at, value_at=(*at, i)) for i, value in enumerate(values)]
        words = [_word(setting.value) for setting in settings]
        labels = [f"{path[-1]}={w}{f'-{i + 1}' if words.count(w) > 1 else ''}" for i, w in enumerate(words)]
        choices.append([Variant(label=label, settings=(one,)) for label, one in zip(labels, settings, strict=True)])
    return choices


def _named(document: Document, problems: list[Problem]) -> list[list[Variant]]:
    """The points that have names."""
    points = document.get(SECTION, "points", default={})
    named = []
    for name, values in points.items() if isinstance(points, dict) else ():
        at = (SECTION, "points", name)
        if not NAME.fullmatch(name):
            problems.append(bad_name(document, name, at))
        leaves = _leaves(values, (), at, _is_group)
        settings = tuple(Setting(path=path, value=value, key_at=spot, value_at=spot) for path, value, spot in leaves)
        named.append(Variant(label=name, settings=settings))
    return [named] if named else []


def _leaves(
    value: Value, path: KeyPath, at: KeyPath, is_group: Callable[[KeyPath, Value], bool]
) -> Iterator[tuple[KeyPath, Value, KeyPath]]:
    """Every key that is given something, dotted or nested: its path in a manifest, what, and where that is written."""
    for key, item in value.items() if isinstance(value, dict) else ():
        here, spot = (*path, *key.split(".")), (*at, key)
        if is_group(here, item):
            yield from _leaves(item, here, spot, is_group)
        else:
            yield here, item, spot


def _is_any_group(path: KeyPath, value: Value) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_group(path: KeyPath, value: Value) -> bool:
    """Whether the value's keys are keys of the manifest; else it is a value as a whole."""
    return isinstance(value, dict) and bool(value) and "properties" in _entry(path)


def _entry(path: KeyPath) -> Mapping[str, Any]:
    """What the manifest's schema says of a key; nothing where it has none."""
    root = read_schema("manifest")
    entry: Mapping[str, Any] = root
    for part in path:
        entry = entry.get("properties", {}).get(part, {})
        if "$ref" in entry:
            entry = root["$defs"][entry["$ref"].rpartition("/")[2]]
    return entry


def _joined(number: int, parts: Sequence[Variant]) -> Variant:
    label = ",".join(part.label for part in parts)
    short = label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 8]}-{number}"
    return Variant(label=short, settings=tuple(setting for part in parts for setting in part.settings))


def _word(value: Value) -> str:
    """A value as part of a directory's name."""
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-.")[-LONGEST_VALUE:].strip("-.") or "empty"


def _is_same(one: Value, other: Value) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
