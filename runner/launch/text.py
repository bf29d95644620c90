"""The text of a job: comments that say how to use it, YAML and shell in which every value is quoted as it must be."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

PLAIN = re.compile(r"[A-Za-z/_](?:[\w./@+-]|:(?=[^\s/]))*[\w/]|[A-Za-z]")
MOST_COLUMNS = 90
WORDS_OF_YAML = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "none")


class _Dumper(yaml.SafeDumper):
    """Block style; a text is plain only where every reader of YAML, of 1.1 and of 1.2, takes it for a text."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = PLAIN.fullmatch(text) is not None and text.lower() not in WORDS_OF_YAML
    style = "|" if "\n" in text else None if is_plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    """On one line, where it is a list of short scalars."""
    short = all(not isinstance(value, dict | list) for value in values) and len(str(values)) < MOST_COLUMNS
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=short)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def as_yaml(*documents: Mapping[str, Any], keep: Mapping[str, Any] | None = None) -> str:
    """The documents in the order of their keys; what is None or empty is left out, but for `keep`, which stands at the
    end as it is."""
    options: dict[str, Any] = {"Dumper": _Dumper, "sort_keys": False, "allow_unicode": True, "width": 10**6}
    return "---\n".join(yaml.dump({**without_empty(d), **(keep or {})}, **options) for d in documents)


def without_empty(value: Any) -> Any:
    """The value without keys that have none; an empty mapping that is meant as such is written as `EMPTY`."""
    if value is EMPTY:
        return {}
    if isinstance(value, Mapping):
        kept = {key: without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, [], {}) or value[key] is EMPTY}
    return [without_empty(item) for item in value] if isinstance(value, list | tuple) else value


EMPTY: Mapping[str, Any] = {"": None}


def as_comment(title: str, commands: Sequence[tuple[str, str]], remarks: Iterable[str]) -> str:
    """A head of lines that start with '#': what it is, what to type when, and what to know."""
    width = max(len(when) for when, _ in commands)
    lines = [title, "", *(f"{when.ljust(width)}  {command}" for when, command in commands)]
    for remark in remarks:
        lines += ["", *textwrap.wrap(remark, 116, break_long_words=False, break_on_hyphens=False)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
