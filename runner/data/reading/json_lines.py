"""JSON Lines -> records, and the one way in which JSON is decoded here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.data.reading.lines import KEPT, lines
from runner.data.reading.records import HALF, TOO_LONG, Record, one_line


def read_json_lines(path: Path, name: str) -> Iterator[Record]:
    """A record for each line that is not blank."""
    for number, line, whole in lines(path):
        if line and not line.isspace():
            yield _record(number, line, whole)


def _record(number: int, line: bytes, whole: bool) -> Record:
    try:
        if not whole:
            raise ValueError(TOO_LONG)
        text = line.decode()
        value = DECODER.decode(text)
        refuse_halves(text, value)
    except (ValueError, RecursionError) as error:
        excerpt = one_line(line[:KEPT].decode("utf-8", "replace"))
        return Record(row=number, excerpt=excerpt, reason=json_reason(error))
    return Record(row=number, value=value, excerpt=one_line(text))


def refuse_halves(text: str, value: Any) -> None:
    """Raises UnicodeEncodeError for half a character; only an escape can bring one in."""
    if "\\u" in text and ("\\ud" in text or "\\uD" in text):
        json.dumps(value, ensure_ascii=False).encode()


def json_reason(error: Exception) -> str:
    """Why a text is no JSON value that we take."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start + 1} of the row)"
    if isinstance(error, UnicodeEncodeError):
        return HALF
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno} " if error.lineno > 1 else ""
        return f"not JSON: {error.msg} at {line}column {error.colno}"
    if isinstance(error, RecursionError):
        return "not JSON: nested too deeply"
    return "not JSON: a number of too many digits" if "digits" in str(error) else str(error)


def _no_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is no JSON value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counted = Counter(key for key, _ in pairs)
        twice = next(key for key, times in counted.items() if times > 1)
        raise ValueError(f"a key is written twice in one object ({twice[:40]!a})")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)
