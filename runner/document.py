"""YAML text -> values and a map of places; schema check; every fault with its line, column and cure.

Plain scalars follow the YAML 1.2 core schema: `2e-4` is a number, `no` and `012` are text. PyYAML's pure-Python
composer keeps the mark of every key and value, which is what the places are made of.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from runner.errors import Exit, Problem, RunnerError, Where

Value = Any
KeyPath = tuple[str | int, ...]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_WORDS: dict[str, Value] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_OLD_TRUE = ("yes", "Yes", "YES", "on", "On", "ON", "y", "Y")
_OLD_FALSE = ("no", "No", "NO", "off", "Off", "OFF", "n", "N")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a key and its value stand; lines and columns from 1."""

    line: int
    column: int
    value_line: int
    value_column: int


@dataclass(kw_only=True)
class Document:
    """A parsed file: `value` is plain data, `places` maps each key path to its place."""

    path: str
    text: str
    value: Value
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def where(self, path: KeyPath, *, value: bool = False) -> Where:
        """The place of a key (or of its value); of the nearest parent when the key is not written."""
        for end in range(len(path), -1, -1):
            place = self.places.get(path[:end])
            if place is not None:
                line, column = (place.value_line, place.value_column) if value else (place.line, place.column)
                return Where(path=self.path, line=line, column=column, key=dotted(path))
        return Where(path=self.path, line=1, column=1, key=dotted(path))


def dotted(path: KeyPath) -> str:
    """`("data", "train", 0)` -> `data.train.0`."""
    return ".".join(map(str, path))


def read_document(path: Path) -> Document:
    """Reads and parses a YAML file; raises RunnerError (66 unreadable, 78 faulty) with every fault found."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = Problem(
            code="manifest/unreadable",
            what=f"The manifest cannot be read: {error.strerror}.",
            where=Where(path=str(path)),
            fix="Check the path; shipped examples are in manifests/.",
        )
        raise RunnerError(problem, Exit.INPUT_MISSING) from error
    return parse_document(raw, str(path))


def parse_document(raw: bytes, path: str) -> Document:
    """Parses YAML bytes; raises RunnerError (78) with every fault found."""
    text = _decode(raw, path)
    document = Document(path=path, text=text, value=None)
    problems: list[Problem] = []
    try:
        _check_events(text, document, problems)
        node = None if problems else yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RunnerError(_syntax_problem(error, document), Exit.MANIFEST) from error
    if not problems and not isinstance(node, yaml.MappingNode):
        what = "The file is empty." if node is None else "The file is not a mapping of keys to values."
        fix = "Start with 'name: my-experiment'; `runner schema` prints every key."
        problems.append(Problem(code="manifest/not-a-mapping", what=what, where=document.where(()), fix=fix))
    if not problems and node is not None:
        document.value = _build(node, (), document, problems)
    if problems:
        raise RunnerError(problems, Exit.MANIFEST)
    return document


def _decode(raw: bytes, path: str) -> str:
    if len(raw) > MAX_BYTES:
        what = f"The file has {len(raw):,} bytes; a manifest may have {MAX_BYTES:,}."
        problem = Problem(
            code="manifest/too-large", what=what, where=Where(path=path), fix="Put data into files and name them."
        )
        raise RunnerError(problem, Exit.MANIFEST)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem(
            code="manifest/not-utf8",
            what=f"The file is not UTF-8: byte 0x{raw[error.start]:02x} cannot be read.",
            where=Where(path=path, line=line, column=column),
            fix="Save the file as UTF-8.",
        )
        raise RunnerError(problem, Exit.MANIFEST) from error
    return text


def _check_events(text: str, document: Document, problems: list[Problem]) -> None:
    """Depth, aliases, tags and a second document, found on the event stream before anything is composed."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        assert mark is not None, "every event of a text has a mark"
        where = Where(path=document.path, line=mark.line + 1, column=mark.column + 1)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                what = f"The file is nested more than {MAX_DEPTH} levels deep."
                problem = Problem(code="manifest/too-deep", what=what, where=where, fix="Flatten it.")
                raise RunnerError(problem, Exit.MANIFEST)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents == 2:
                fix = "Put each experiment into a file of its own."
                problems.append(
                    Problem(code="manifest/two-documents", what="A second document begins.", where=where, fix=fix)
                )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            fix = "Write the value out; manifests are read by people and by diff."
            problems.append(
                Problem(code="manifest/alias", what="Anchors and aliases are not allowed.", where=where, fix=fix)
            )
        if tag := getattr(event, "tag", None):
            what = f"The tag '{tag}' is not allowed."
            problems.append(Problem(code="manifest/tag", what=what, where=where, fix="Write a plain value."))


def _syntax_problem(error: yaml.YAMLError, document: Document) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = Where(path=document.path, line=mark.line + 1, column=mark.column + 1) if mark else document.where(())
    fix = "Check the indentation, the ':' after keys, and quotes around text with special characters."
    return Problem(code="manifest/syntax", what=f"This is not YAML: {what}.", where=where, fix=fix)


def _build(node: yaml.Node, path: KeyPath, document: Document, problems: list[Problem]) -> Value:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path, document, problems)
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            document.places[(*path, i)] = _place(item, item)
        return [_build(item, (*path, i), document, problems) for i, item in enumerate(node.value)]
    values: dict[str, Value] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        where = _where(key_node, document, path)
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(
            key if key_node.style else resolve(key_node.value), str
        ):
            fix = "Write a word, or put the key in quotes."
            problems.append(Problem(code="manifest/key-not-text", what="A key must be text.", where=where, fix=fix))
        elif key in values:
            first = document.places[(*path, key)]
            what = f"The key '{key}' stands twice; the first is on line {first.line}."
            problems.append(Problem(code="manifest/duplicate-key", what=what, where=where, fix="Keep one of them."))
        else:
            document.places[(*path, key)] = _place(key_node, value_node)
            values[key] = _build(value_node, (*path, key), document, problems)
    return values


def _scalar(node: yaml.ScalarNode, path: KeyPath, document: Document, problems: list[Problem]) -> Value:
    if node.style:  # quoted or block text
        return node.value
    value = resolve(node.value)
    if isinstance(value, float) and not math.isfinite(value):
        what = f"'{node.value}' is not a finite number."
        fix = "If it is text (a revision, a name), put it in quotes."
        problems.append(Problem(code="manifest/not-finite", what=what, where=_where(node, document, path), fix=fix))
        return 0.0
    return value


def resolve(text: str) -> Value:
    """A plain scalar by the YAML 1.2 core schema; leading zeros, yes/no and dates stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) < 100 else float("inf")
    if _BASED_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _place(key: yaml.Node, value: yaml.Node) -> Place:
    return Place(
        line=key.start_mark.line + 1,
        column=key.start_mark.column + 1,
        value_line=value.start_mark.line + 1,
        value_column=value.start_mark.column + 1,
    )


def _where(node: yaml.Node, document: Document, path: KeyPath) -> Where:
    return Where(path=document.path, line=node.start_mark.line + 1, column=node.start_mark.column + 1, key=dotted(path))


def set_value(document: Document, assignment: str) -> None:
    """Applies `key.sub=value` (value read as YAML) on top of the file; raises RunnerError (64) when malformed."""
    key, equals, text = assignment.partition("=")
    path: KeyPath = tuple(key.strip().split("."))
    where = Where(path="--set", line=1, column=1, key=key.strip())
    if not equals or not all(path):
        fix = "Write it as --set hyperparameters.epochs=3"
        problem = Problem(code="usage/set", what=f"'--set {assignment}' is not key=value.", where=where, fix=fix)
        raise RunnerError(problem, Exit.USAGE)
    source = Document(path="--set", text=text, value=None)
    problems: list[Problem] = []
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RunnerError(_syntax_problem(error, source).at(where), Exit.USAGE) from error
    value = None if node is None else _build(node, (), source, problems)
    if problems:
        raise RunnerError([problem.at(where) for problem in problems], Exit.USAGE)
    target = document.value
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            problem = Problem(
                code="usage/set", what=f"'{key}' goes through a value that has no keys.", where=where, fix=""
            )
            raise RunnerError(problem, Exit.USAGE)
    target[path[-1]] = value
    for old in [p for p in document.places if p[: len(path)] == path]:
        del document.places[old]


# --- schema ---------------------------------------------------------------------------------------------------------


def check_schema(document: Document, schema: Mapping[str, Any]) -> list[Problem]:
    """Every violation of a JSON Schema (2020-12), sorted by place."""
    from jsonschema import Draft202012Validator  # 0.1 s to import, and not needed when the YAML itself is faulty

    problems = [
        problem
        for error in Draft202012Validator(schema).iter_errors(document.value)
        for problem in _schema_problems(error, document, schema)
    ]
    return sorted(problems, key=lambda p: (p.where.line or 0, p.where.column or 0))


def _schema_problems(error: Any, document: Document, root: Mapping[str, Any]) -> Iterator[Problem]:
    path: KeyPath = tuple(error.absolute_path)
    key, keyword, rule, value = dotted(path), error.validator, error.validator_value, error.instance
    if keyword == "additionalProperties":
        known = error.schema.get("properties", {})
        for extra in [name for name in value if name not in known]:
            where = document.where((*path, extra))
            what = f"Unknown key '{extra}'" + (f" in '{key}'." if key else ".")
            yield Problem(code="manifest/unknown-key", what=what, where=where, fix=_key_hint(extra, known, root))
        return
    at_key, at_value = document.where(path), document.where(path, value=True)
    if keyword == "required":
        missing = next(name for name in rule if name not in value and f"'{name}'" in error.message)
        entry = error.schema.get("properties", {}).get(missing, {})
        what = f"The key '{missing}' is missing" + (f" in '{key}'." if key else ".")
        yield Problem(code="manifest/missing-key", what=what, where=at_key, fix=_example(missing, entry))
    elif keyword == "type":
        what = f"'{key}' must be {_type_name(rule)}, not {_show(value)}."
        fix = _type_hint(value, rule) or _example(str(path[-1]) if path else "", error.schema)
        yield Problem(code="manifest/wrong-type", what=what, where=at_value, fix=fix)
    elif keyword in ("enum", "const"):
        allowed = [rule] if keyword == "const" else rule
        near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1, cutoff=0.5)
        fix = (f"Did you mean '{near[0]}'? " if near else "") + "Allowed: " + ", ".join(map(str, allowed)) + "."
        yield Problem(code="manifest/bad-value", what=f"'{key}' cannot be {_show(value)}.", where=at_value, fix=fix)
    elif keyword in _LIMITS:
        fix = f"Write a value {_range(error.schema)}."
        what = f"'{key}' is {_show(value)}, which must be {_LIMITS[keyword]} {rule}."
        yield Problem(code="manifest/out-of-range", what=what, where=at_value, fix=fix)
    else:
        what = f"'{key}' is {_show(value)}: {_PHRASES.get(keyword, error.message)}"
        what = what.replace("{rule}", str(rule))
        yield Problem(code="manifest/bad-value", what=what, where=at_value, fix=_example(str(path[-1]), error.schema))


_LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "greater than",
    "exclusiveMaximum": "less than",
}
_PHRASES = {
    "pattern": "it does not have the form {rule}.",
    "minLength": "it must have at least {rule} characters.",
    "maxLength": "it must have at most {rule} characters.",
    "minItems": "it must have at least {rule} entries.",
    "uniqueItems": "an entry stands twice.",
}
_TYPE_NAMES = {
    "object": "a group of keys",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "empty",
}


def _type_name(rule: str | list[str]) -> str:
    return " or ".join(_TYPE_NAMES[name] for name in ([rule] if isinstance(rule, str) else rule))


def _show(value: Value) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a group of keys"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + '..."'


def _type_hint(value: Value, rule: str | list[str]) -> str:
    kinds = {rule} if isinstance(rule, str) else set(rule)
    if isinstance(value, str) and "boolean" in kinds and value in (*_OLD_TRUE, *_OLD_FALSE):
        return f"Write {'true' if value in _OLD_TRUE else 'false'}; in YAML 1.2 '{value}' is text."
    if isinstance(value, str) and kinds & {"integer", "number"}:
        bare = value.strip().lstrip("0") or "0"
        if isinstance(resolve(bare), int | float) and value.strip()[:1] == "0" and len(value) > 1:
            return f"Write {bare}; with a leading zero it is text."
        if isinstance(resolve(value.replace("_", "").replace(",", "").strip()), int | float):
            return f"Write {value.replace('_', '').replace(',', '').strip()}, without quotes or separators."
    if kinds == {"string"} and isinstance(value, int | float):
        return "Put it in quotes."
    if kinds == {"integer"} and isinstance(value, float):
        return f"Write {round(value)}."
    return ""


def _range(schema: Mapping[str, Any]) -> str:
    parts = [f"{words} {schema[keyword]}" for keyword, words in _LIMITS.items() if keyword in schema]
    return " and ".join(parts)


def _example(key: str, schema: Mapping[str, Any]) -> str:
    examples = schema.get("examples") or ([schema["default"]] if schema.get("default") is not None else [])
    if not examples:
        return str(schema.get("description", ""))
    text = json.dumps(examples[0], ensure_ascii=False)
    return f"For example  {key}: {text}" if key else f"For example  {text}"


def _key_hint(extra: str, known: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    normal = {name.replace("_", "").lower(): name for name in known}
    same = normal.get(extra.replace("_", "").replace("-", "").lower())
    near = [same] if same else difflib.get_close_matches(extra, known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    for section, entry in root.get("properties", {}).items():
        if extra in entry.get("properties", {}):
            return f"'{extra}' belongs in '{section}'."
        if extra == section:
            return f"'{extra}' belongs at the top level."
    return "Known keys: " + ", ".join(known) + "."
