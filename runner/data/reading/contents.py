"""What a message says: any content of a turn -> plain text."""

from __future__ import annotations

import json
import math
from typing import Any

CONTROL = bytes(set(range(32)) - set(b"\t\n\r")) + b"\x7f"
MADE_TEXT = "a number or truth value as content was made text"
JOINED = "a list of texts was joined"
CLEANED = "control characters were removed"
LINE_ENDS = "line ends were made plain"

Repairs = dict[str, None]  # what was mended, each thing once, in order


def content_text(content: Any, role: str, number: int, repairs: Repairs) -> str:
    """Content that is no text: parts are joined by line ends, as servers join them, numbers written out.

    Raises ValueError with the reason when message `number` has no text.
    """
    if isinstance(content, list) and content:
        if all(isinstance(part, str) for part in content):
            repairs[JOINED] = None
        return "\n".join(_part(part, role, number) for part in content)
    text = scalar_text(content)
    if text is None:
        raise ValueError(f"a message has no text as content (message {number}, {role})")
    repairs[MADE_TEXT] = None
    return text


def _part(part: Any, role: str, number: int) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "no type") if isinstance(part, dict) else "no object"
    if kind != "text":
        raise ValueError(f"a message has a part that is not text (message {number} has {str(kind)[:20]!a})")
    if not isinstance(part.get("text"), str):
        raise ValueError(f"a message has no text as content (message {number}, {role})")
    return str(part["text"])


def clean(text: str, repairs: Repairs) -> str:
    """Text without control characters, its lines ended by LF; raises UnicodeEncodeError for half a character."""
    raw = text.encode()
    kept = raw.translate(None, CONTROL)
    if len(kept) != len(raw):
        repairs[CLEANED] = None
        text = kept.decode()
    if b"\r" in kept:
        repairs[LINE_ENDS] = None
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def scalar_text(value: Any) -> str | None:
    """A single value as text, numbers and truth values as JSON writes them; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return None if value is None or isinstance(value, dict | list | tuple | bytes) else str(value)


def json_text(value: Any) -> str:
    """JSON text of a value out of a row, which Parquet may have given dates and numbers that JSON has not."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text.encode()
    return text


def parsed(value: Any, what: str, number: int | None = None) -> Any:
    """A value that may be written as JSON text inside the row; raises ValueError when that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(f"{what} is not JSON" + (f" (message {number})" if number else "")) from None
