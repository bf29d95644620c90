"""Local files -> rows: each row of a file is an example, or says why it is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from runner.conversation import Example, Message
from runner.data.reading.columns import look_up
from runner.data.reading.containers import Container, read_records
from runner.data.reading.contents import scalar_text
from runner.data.reading.detect import LOOKED_AT, check_columns, detect
from runner.data.reading.formats import convert
from runner.data.reading.local import LocalFile
from runner.data.reading.records import Record
from runner.plan import SourcePlan

MAX_HELD = 10_000  # records held in memory while the format is found; a file that begins with as many faults has none


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a file: an example, or the reason why there is none; `repairs` says what was mended in it.

    `row` is the line where it begins (JSONL, CSV, TSV) or its number (JSON, Parquet), from 1.
    """

    file: str
    row: int
    excerpt: str
    example: Example | None = None
    reason: str | None = None
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a file turned out to be, why, and its rows, read as they are asked for."""

    container: Container
    format: str
    evidence: str
    rows: Iterator[Row]


def read_rows(source: SourcePlan, file: LocalFile) -> Source:
    """The rows of one file of a source; raises RunnerError, also while they are read, when the file is at fault."""
    reading = read_records(file.path, file.name)
    head = _head(reading.records)
    detection = detect(head, source.format, source.template, file.name)
    check_columns(head, source, file.name)
    return Source(
        container=reading.container,
        format=detection.format,
        evidence=detection.evidence,
        rows=_rows(chain(head, reading.records), source, file.name, detection.format),
    )


def _head(records: Iterator[Record]) -> list[Record]:
    """The records up to the last that the format is told by."""
    head: list[Record] = []
    readable = 0
    while readable < LOOKED_AT and len(head) < MAX_HELD and (record := next(records, None)) is not None:
        head.append(record)
        readable += record.reason is None
    return head


def _rows(records: Iterator[Record], source: SourcePlan, name: str, form: str) -> Iterator[Row]:
    short = PurePosixPath(name).name
    system = Message(role="system", content=source.system) if source.system else None
    for record in records:
        example, reason, repairs = None, record.reason, record.repairs
        if reason is None:
            try:
                talk = convert(record.value, form, source.template)
                starts = talk.messages[0].role == "system"
                example = Example(
                    messages=talk.messages if system is None or starts else (system, *talk.messages),
                    source=f"{short}:{record.row}",
                    tools=talk.tools,
                    group=_named(record.value, source.group_by, "group_by"),
                    label=_named(record.value, source.class_by, "class_by"),
                )
                repairs += talk.repairs
            except ValueError as error:
                reason = str(error)
        yield Row(file=name, row=record.row, excerpt=record.excerpt, example=example, reason=reason, repairs=repairs)


def _named(value: Any, path: str | None, key: str) -> str | None:
    """The row's group or class; raises ValueError when the row has none."""
    if path is None:
        return None
    try:
        text = scalar_text(look_up(value, path))
    except KeyError:
        text = None
    if text is None or not text.strip():
        raise ValueError(f"no '{path}' (data.{key})")
    return text
