"""Files -> rows -> examples; each row that cannot be used says why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.conversation import ROLES, Example, Message
from runner.errors import Exit, Problem, RunnerError, Where

EXCERPT = 120
FORMATS = {"chat": ("messages",), "prompt_completion": ("prompt", "completion")}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a file (rows are lines, from 1): an example, or the reason why there is none."""

    file: str
    row: int
    excerpt: str
    example: Example | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """What was read, so that the same run can be recognised again."""

    path: str
    format: str
    sha256: str
    num_bytes: int
    num_rows: int


def read_file(path: Path, wanted: str, system: str | None) -> tuple[SourceFile, list[Row]]:
    """Every row of a JSONL file; raises RunnerError (66 missing, 65 empty) when there is nothing to read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = Problem(
            code="data/missing",
            what=f"The data file cannot be read: {error.strerror}.",
            where=Where(path=str(path), key="data.train"),
            fix="Correct data.train; paths start from the manifest's folder.",
        )
        raise RunnerError(problem, Exit.INPUT_MISSING) from error
    body = raw.removeprefix(b"\xef\xbb\xbf")
    lines = [(i, line) for i, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if not lines:
        problem = Problem(
            code="data/empty",
            what="The data file has no rows.",
            where=Where(path=str(path), key="data.train"),
            fix='Write one JSON object a line, for example {"prompt": "...", "completion": "..."}',
        )
        raise RunnerError(problem, Exit.DATA_REJECTED)
    name = wanted if wanted != "auto" else _detect(lines)
    rows = [_read_row(path, number, line, name, system) for number, line in lines]
    source = SourceFile(
        path=str(path), format=name, sha256=hashlib.sha256(raw).hexdigest(), num_bytes=len(raw), num_rows=len(rows)
    )
    return source, rows


def _detect(lines: list[tuple[int, bytes]]) -> str:
    """The format of the first row that has one; chat when none does, so that every row then says what it lacks."""
    for _, line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        for name, keys in FORMATS.items():
            if isinstance(value, dict) and all(key in value for key in keys):
                return name
    return "chat"


def _read_row(path: Path, number: int, line: bytes, name: str, system: str | None) -> Row:
    excerpt = line[:EXCERPT].decode("utf-8", "replace").strip()
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
        messages = _checked(list(_turns(value, name)), system)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start + 1} of the row)"
    except UnicodeEncodeError:
        reason = "not Unicode text: an escape such as \\ud83d without its other half"
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        reason = "not JSON: nested too deeply"
    except ValueError as error:
        reason = str(error)
    else:
        example = Example(messages=messages, source=f"{path.name}:{number}")
        return Row(file=str(path), row=number, excerpt=excerpt, example=example)
    return Row(file=str(path), row=number, excerpt=excerpt, reason=reason)


def _no_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is no JSON value")


def _turns(value: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """Role and content of each turn; raises ValueError with the reason when the row has not the format's keys."""
    if not isinstance(value, dict):
        raise ValueError("the row is not a JSON object")
    missing = [key for key in FORMATS[name] if key not in value]
    if missing:
        found = ", ".join(list(value)[:6]) or "none"
        raise ValueError(f"no '{missing[0]}' (format {name}; the row has the keys: {found})")
    if name == "prompt_completion":
        yield "user", value["prompt"]
        yield "assistant", value["completion"]
        return
    if not isinstance(value["messages"], list):
        raise ValueError("'messages' is not a list")
    for i, turn in enumerate(value["messages"]):
        if not isinstance(turn, dict) or "role" not in turn or "content" not in turn:
            raise ValueError(f"a message has not the keys role and content (message {i + 1})")
        yield turn["role"], turn["content"]


def _checked(turns: list[tuple[Any, Any]], system: str | None) -> tuple[Message, ...]:
    """The turns as messages; raises ValueError when the roles or contents do not make a trainable conversation."""
    for i, (role, content) in enumerate(turns, 1):
        if role not in ROLES:
            raise ValueError(f"a role is not one of {', '.join(ROLES)} (message {i} has {json.dumps(role)[:40]})")
        if not isinstance(content, str):
            raise ValueError(f"a message has no text as content (message {i}, {role})")
        if not content.strip():
            raise ValueError(f"a message is empty (message {i}, {role})")
    if system is not None and (not turns or turns[0][0] != "system"):
        turns = [("system", system), *turns]
    spoken = [role for role, _ in turns if role != "system"]
    if any(role == "system" for role, _ in turns[1:]):
        raise ValueError("a system message stands after the first")
    if "tool" in spoken:
        raise ValueError("tool messages are not supported yet")
    if not spoken or spoken[-1] != "assistant":
        raise ValueError("the last message is not the assistant's, so there is no answer to learn")
    if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(spoken)):
        raise ValueError("user and assistant do not take turns, beginning with the user")
    return tuple(Message(role=role, content=content) for role, content in turns)
