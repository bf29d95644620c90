"""Columns of a row, found by name or dotted path, and templates filled with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.data.reading.contents import json_text, scalar_text
from runner.plan import Template

PLACE = re.compile(r"\{\{\s*(.+?)\s*\}\}")


def look_up(row: Any, path: str) -> Any:
    """The value at a dotted path into a row, a column of just that name first; raises KeyError when there is none."""
    if isinstance(row, dict) and path in row:
        return row[path]
    for part in path.split("."):
        if not isinstance(row, dict):
            raise KeyError(path)
        row = row[part]
    return row


def has_column(row: Any, path: str) -> bool:
    """Whether `look_up` finds it."""
    try:
        look_up(row, path)
    except KeyError:
        return False
    return True


def paths(row: Mapping[str, Any]) -> Iterator[str]:
    """The row's columns, and the dotted paths one step into those that hold objects."""
    for column, value in row.items():
        yield str(column)
        if isinstance(value, dict):
            yield from (f"{column}.{key}" for key in value)


def places(template: Template) -> Iterator[str]:
    """The columns that a template names, as often as it does."""
    for text in (template.system or "", template.prompt, template.completion):
        yield from PLACE.findall(text)


def fill(text: str, row: Mapping[str, Any]) -> str:
    """A template's text with the row's values in its places; raises ValueError when one is missing."""
    return PLACE.sub(lambda place: _cell(row, place[1]), text)


def _cell(row: Mapping[str, Any], path: str) -> str:
    try:
        value = look_up(row, path)
    except KeyError:
        raise ValueError(f"a column of the template is missing ('{path}')") from None
    text = json_text(value) if isinstance(value, dict | list) else scalar_text(value)
    if text is None:
        raise ValueError(f"a column of the template has no value ('{path}')")
    return text
