"""One JSON value -> records: the elements of its list, one after the other, up to where it is damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.data.reading.json_lines import DECODER, json_reason, refuse_halves
from runner.data.reading.lines import BROKEN, chunks
from runner.data.reading.records import HALF, LIMIT, TOO_LONG, Record, listed, one_line, rejected
from runner.errors import RunnerError

BLANK = re.compile(r"[ \t\n\r]*")
TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}"]|[^\s,:"\[\]{}]+', re.DOTALL)


def read_json(path: Path, name: str) -> Iterator[Record]:
    """The elements of the file's list; an object without a list of objects is one row."""
    raw, damage = _readable(path)
    try:
        yield from _records(raw.decode("utf-8", "surrogateescape"), name)
    except RunnerError:
        if damage is None:
            raise
    if damage is not None:
        raise damage


def _readable(path: Path) -> tuple[bytes, Exception | None]:
    """The file's bytes up to where its packing is damaged, and that damage."""
    pieces: list[bytes] = []
    try:
        for piece in chunks(path):
            pieces.append(piece)
    except BROKEN as error:
        return b"".join(pieces), error
    return b"".join(pieces), None


def _records(text: str, name: str) -> Iterator[Record]:
    at = _skip(text, 0)
    inner = _inner_list(text, at, name) if text[at : at + 1] == "{" else at
    if inner is None or text[inner : inner + 1] != "[":
        record, end = _element(text, at, 1, name)
        yield record
    else:
        end = yield from _list(text, inner, name)
    if inner in (at, None) and _skip(text, end) < len(text):
        raise _malformed(text, end, name, None, "Something follows after the end of the JSON value")


def _list(text: str, at: int, name: str) -> Any:
    """Yields the elements of the list that begins at `at`; returns where it ends."""
    row, at = 0, _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return at + 1
    while True:
        row += 1
        record, at = _element(text, at, row, name)
        yield record
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return at + 1
        if text[at : at + 1] != ",":
            raise _malformed(text, at, name, row, "A comma or the end of the list is missing")
        at = _skip(text, at + 1)


def _element(text: str, at: int, row: int, name: str) -> tuple[Record, int]:
    """One value and where it ends; one that is wrong, but closed, is a row with a reason."""
    value, reason = None, None
    try:
        value, end = DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        reason, closed = json_reason(error), _end_of(text, at)
        if closed is None:
            where = error.pos if isinstance(error, json.JSONDecodeError) else at
            raise _malformed(text, where, name, row - 1, reason[:1].upper() + reason[1:]) from error
        end = closed
    written = text[at:end]
    reason = TOO_LONG if len(written) > LIMIT else _not_text(written, value) or reason
    return Record(row=row, value=None if reason else value, excerpt=one_line(written), reason=reason), end


def _not_text(written: str, value: Any) -> str | None:
    try:
        written.encode()
    except UnicodeEncodeError as error:  # a byte that was no UTF-8, kept as half a character
        return f"not UTF-8 (byte {len(written[: error.start].encode()) + 1} of the row)"
    try:
        refuse_halves(written, value)
    except UnicodeEncodeError:
        return HALF
    return None


def _inner_list(text: str, at: int, name: str) -> int | None:
    """Where the one list of objects in the object begins; None when there is none, or when one is of turns."""
    found: list[tuple[str, int]] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] == '"':
        key_end = _end_of(text, at) or len(text)
        key, at = text[at + 1 : key_end - 1], _skip(text, key_end)
        start = _skip(text, at + 1)
        end = _end_of(text, start) if text[at : at + 1] == ":" else None
        if end is None:
            raise _malformed(text, at, name, None, "The object does not come to its end")
        first = _skip(text, start + 1)
        if text[start : start + 1] == "[" and text[first : first + 1] == "{":
            if _is_turn(text, first):
                return None
            found.append((key, start))
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at : at + 1] == "," else at
    if text[at : at + 1] != "}" or _skip(text, at + 1) < len(text):
        raise _malformed(text, at, name, None, "The object does not end with the file")
    if len(found) > 1:
        what = f"The file's object holds several lists of objects: {listed((key for key, _ in found), 12)}."
        raise rejected("data/several-lists", name, what, "Keep one list of rows in the file.")
    return found[0][1] if found else None


def _is_turn(text: str, at: int) -> bool:
    try:
        value, _ = DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return False
    return "role" in value or "from" in value


def _skip(text: str, at: int) -> int:
    blank = BLANK.match(text, at)
    return blank.end() if blank else at


def _end_of(text: str, at: int) -> int | None:
    """Where the value that begins at `at` ends, by its brackets and quotes alone; None when it is not closed."""
    depth = 0
    for token in TOKEN.finditer(text, at):
        mark = token[0]
        if mark == '"':  # a string that is never closed
            return None
        depth += (mark in "[{") - (mark in "]}")
        if depth <= 0:
            return token.end() if depth == 0 else None
    return None


def _malformed(text: str, at: int, name: str, last: int | None, what: str) -> RunnerError:
    good = f"; row {last} is the last that is whole" if last else ""
    return rejected(
        "data/corrupt",
        name,
        f"The file is no JSON from here on: {what}{good}.",
        "Write the file again; JSON Lines, one object a line, loses only the row that is wrong.",
        text.count("\n", 0, at) + 1,
        at - text.rfind("\n", 0, at),
    )
