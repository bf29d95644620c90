"""YAML text -> values and a map of places; schema check; every fault with its line, column and cure.

Plain scalars follow the YAML 1.2 core schema, but a leading zero makes text: `2e-4` is a number, `no` and `012` are
text. PyYAML's pure-Python composer keeps the mark of every key and value, which is what the places are made of.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import open_ordinary
from runner.masking import masked_source

Value = Any
KeyPath = tuple[str | int, ...]

MAX_BYTES = 128 * 1024
MAX_NODES = 5_000  # keys, values, groups and lists; reading so many takes half a second
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
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a key and its value stand; lines and columns from 1."""

    line: int
    column: int
    value_line: int
    value_column: int


@dataclass(kw_only=True)
class Document:
    """A parsed file: `value` is plain data, `places` maps each key path to its place, `overridden` came by `--set`.

    `problems` are faults that left a value to go on with, such as a duplicate key.
    """

    path: str
    text: str
    value: Value = None
    places: dict[KeyPath, Place] = field(default_factory=dict)
    overridden: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def get(self, *path: str | int, default: Value = None) -> Value:
        """The value at a key path, or the default where the path leads nowhere."""
        value = self.value
        for part in path:
            holds = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
            if part not in holds:
                return default
            value = value[part]
        return value

    def where(self, path: KeyPath, *, value: bool = False) -> Where:
        """The place of a key (or of its value); of the nearest parent when the key is not written."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.overridden:
                return Where(path="--set", key=dotted(path))
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
        with open_ordinary(path) as file:
            raw = file.read(MAX_BYTES + 1)
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
    """Parses YAML bytes; raises RunnerError (78) when there is no document to go on with, else see its `problems`."""
    document = Document(path=path, text=_decode(raw, path))
    problems: list[Problem] = []
    node = _compose(document, problems)
    if not problems and not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        what = "The file is empty." if node is None else f"The file must be a group of keys, not {kind}."
        fix = "Start with 'name: my-experiment'; `runner schema` prints every key."
        where = document.where(()) if node is None else _where(node, document, ())
        problems.append(Problem(code="manifest/not-a-mapping", what=what, where=where, fix=fix))
    if not problems and node is not None:
        document.places[()] = _place(node, node)
        document.value = _build(node, (), document, problems)
        document.problems, problems = problems, []
    if problems:
        raise RunnerError(problems, Exit.MANIFEST)
    return document


def _decode(raw: bytes, path: str) -> str:
    if len(raw) > MAX_BYTES:
        what = f"The file has more than the {MAX_BYTES:,} bytes that a manifest may have."
        problem = Problem(
            code="manifest/too-large", what=what, where=Where(path=path), fix="Put data into files and name them."
        )
        raise RunnerError(problem, Exit.MANIFEST)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(
            code="manifest/not-utf8",
            what=f"The file is not UTF-8: byte 0x{error.object[error.start]:02x} cannot be read.",
            where=_where_after(error.object[: error.start].decode(), path),
            fix="Save the file as UTF-8.",
        )
        raise RunnerError(problem, Exit.MANIFEST) from error
    return text


def _where_after(text: str, path: str) -> Where:
    """The place of the character that follows this beginning of a file."""
    lines = f"{text}|".splitlines()
    return Where(path=path, line=len(lines), column=len(lines[-1]))


def _compose(document: Document, problems: list[Problem]) -> yaml.Node | None:
    """The text as PyYAML's tree; None when it is empty or faulty."""
    try:
        _check_events(document, problems)
        return None if problems else yaml.compose(document.text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        problems.append(_syntax_problem(error, document))
        return None


def _check_events(document: Document, problems: list[Problem]) -> None:
    """Depth, aliases, tags and a second document, found on the event stream before anything is composed."""
    depth = documents = nodes = 0
    where = Where(path=document.path, line=1, column=1)

    def add(code: str, what: str, fix: str) -> None:
        problems.append(Problem(code=f"manifest/{code}", what=what, where=where, fix=fix))

    try:
        for event in yaml.parse(document.text, Loader=yaml.SafeLoader):
            mark = event.start_mark
            assert mark is not None, "every event of a text has a mark"
            where = Where(path=document.path, line=mark.line + 1, column=mark.column + 1)
            nodes += isinstance(event, yaml.NodeEvent)
            if nodes > MAX_NODES:
                fix = "Put data into files and name them."
                add("too-many-values", f"The file holds more than {MAX_NODES:,} keys and values.", fix)
                return
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    add("too-deep", f"The file is nested more than {MAX_DEPTH} levels deep.", "Flatten it.")
                    return
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents == 2:
                    add("two-documents", "A second document begins.", "Put each experiment into a file of its own.")
            elif isinstance(event, yaml.ScalarEvent) and (half := _SURROGATE.search(event.value)):
                what = f"'\\u{ord(half[0]):04x}' is half a character."
                add("half-character", what, "Write the character itself.")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                fix = "Write the value out; manifests are read by people and by diff."
                add("alias", "Anchors and aliases are not allowed.", fix)
            if tag := getattr(event, "tag", None):
                tag = tag.replace("tag:yaml.org,2002:", "!!")
                add("tag", f"The tag '{tag}' is not allowed.", "Remove it; the form of a value says what it is.")
    except (ValueError, OverflowError):  # PyYAML does not check the number of a \U escape or of %YAML
        add("syntax", "This is not YAML: what follows holds a number that is out of range.", "Write it another way.")


def _syntax_problem(error: yaml.YAMLError, document: Document) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    fix = "Check the indentation, the ':' after keys, and quotes around text with special characters."
    for pattern, at_context, better, cure in _SYNTAX:
        if found := re.match(pattern, what):
            what, fix = found.expand(better), cure
            mark = getattr(error, "context_mark", None) if at_context else mark
            break
    if isinstance(error, yaml.reader.ReaderError):
        where = _where_after(document.text[: error.position], document.path)
    else:
        where = Where(path=document.path, line=mark.line + 1, column=mark.column + 1) if mark else document.where(())
    return Problem(code="manifest/syntax", what=f"This is not YAML: {what}.", where=where, fix=fix)


_SYNTAX = (  # PyYAML's words, whether the place is where the construct begins, ours, and the cure
    (
        "mapping values are not allowed",
        False,
        "a ':' is not expected here",
        "If it is part of a text, put the text in quotes; else look at the indentation and the line above.",
    ),
    (r"found character '\\t'", False, "a tab stands where only spaces may", "Put spaces in its place."),
    (r"found character '(.)'", False, r"a text cannot begin with '\1'", "Put the text in quotes."),
    (
        "expected <block end>",
        False,
        "this does not fit what stands before it",
        "Check its indentation, and the text before it for a quote that ends too early.",
    ),
    ("found unexpected end of stream", True, "the quote that opens here is never closed", "Close it."),
    (
        r"expected ',' or '(.)'",
        True,
        r"the bracket that opens here is not closed by '\1', or a ',' is missing in it",
        "Close it, and put text with special characters in quotes.",
    ),
    ("could not find expected ':'", True, "a ':' is missing after this", "Write it as key: value."),
    (
        "found unknown escape character '(.)'",
        False,
        r"'\\\1' means nothing in double quotes",
        r"Use single quotes, or write \\ for a backslash.",
    ),
    ("unacceptable character", False, "a control character stands here", "Remove it."),
)


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
        return int(text, 0) if len(text) < 100 else float("inf")
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
    where = Where(path="--set", key=masked_source(key.strip()))
    if not equals or not all(path):
        fix = "Write it as --set hyperparameters.epochs=3"
        problem = Problem(
            code="usage/set", what=f"'--set {masked_source(assignment)}' is not key=value.", where=where, fix=fix
        )
        raise RunnerError(problem, Exit.USAGE)
    source = Document(path="--set", text=text)
    problems: list[Problem] = []
    node = _compose(source, problems)
    value = None if node is None else _build(node, (), source, problems)
    if problems:
        raise RunnerError([problem.at(where) for problem in problems], Exit.USAGE)
    target = document.value
    for end, part in enumerate(path[:-1], start=1):
        if part not in target:
            document.overridden.add(path[:end])
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            what = f"'{dotted(path[:end])}' is {describe_value(target)}, which has no keys to set."
            fix = f"Set it as a whole: --set {dotted(path[:end])}=..."
            raise RunnerError(Problem(code="usage/set", what=what, where=where, fix=fix), Exit.USAGE)
    target[path[-1]] = value
    document.overridden.add(path)
    for old in [p for p in document.places if p[: len(path)] == path]:
        del document.places[old]


def describe_value(value: Value) -> str:
    """The value as a person would name it in a sentence, shortened."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a group of keys"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..." + ('"' if isinstance(value, str) else "")
