"""CSV and TSV -> records: the separator by evidence, the columns by the header."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from runner.data.reading.lines import chunks, lines, suffix
from runner.data.reading.records import LIMIT, TOO_LONG, Record, one_line, rejected
from runner.errors import RunnerError

USUAL = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SAMPLE = 1 << 16
NO_HEADER = 100  # characters that no column's name has
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


def read_table(path: Path, name: str) -> Iterator[Record]:
    """The rows below the header; a row may go over lines inside quotes."""
    mark = delimiter(path) or USUAL.get(suffix(path), ",")
    csv.field_size_limit(LIMIT)
    rows = _rows(_Feed(lines(path)), mark, name)
    first = next(rows, None)
    header = _header(*first, name) if first else []
    for fields, reason, line in rows:
        if reason is None and len(fields) != len(header):
            reason = f"the row has not as many fields as the header ({len(fields)}, not {len(header)})"
        value = None if reason else dict(zip(header, fields, strict=True))
        yield Record(row=line, value=value, excerpt=one_line(",".join(fields)), reason=reason)


def delimiter(path: Path) -> str | None:
    """The separator that cuts the first lines into as many fields as the header has; None without such evidence."""
    sample = next(chunks(path)).lstrip(b"\r\n")[:SAMPLE].decode("utf-8", "replace")
    found: dict[str, tuple[float, int]] = {}
    for mark in (",", ";", "\t", "|"):
        widths = [len(fields) for fields in csv.reader(io.StringIO(sample, newline=""), delimiter=mark) if fields]
        alike = sum(width == widths[0] for width in widths) / max(len(widths), 1)
        if alike > 0.5 and widths[0] > 1:
            found[mark] = (alike, widths[0])
    expected = USUAL.get(suffix(path), "")
    if found.get(expected, (0.0, 0))[0] >= 0.9:
        return expected
    return max(found, key=lambda mark: found[mark], default=None)


class _Feed:
    """Lines as the CSV reader wants them; it remembers what was wrong with those of the present row."""

    def __init__(self, numbered: Iterator[tuple[int, bytes, bool]]):
        self._numbered = numbered
        self.line = 0
        self.reason: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.line, line, whole = next(self._numbered)
        if not whole:
            self.reason = TOO_LONG
            return "\n"
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            self.reason = f"not UTF-8 (byte {error.start + 1} of line {self.line})"
            text = line.decode("utf-8", "replace")
        if "\0" in text:
            self.reason = "the row has a NUL character"
        return text + "\n"


def _rows(feed: _Feed, mark: str, name: str) -> Iterator[tuple[list[str], str | None, int]]:
    """Fields, fault and first line of each row that is not blank."""
    reader = csv.reader(feed, delimiter=mark, strict=True)
    last = None
    while True:
        begin, feed.reason = feed.line + 1, None
        fields: list[str] = []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise _unclosed(name, begin, last) from error
            feed.reason = f"not CSV: {error}"
        if fields or feed.reason:
            yield fields, feed.reason, begin
            last = begin if feed.reason is None else last


def _header(fields: list[str], reason: str | None, line: int, name: str) -> list[str]:
    """The columns' names; raises RunnerError (65) when the first row cannot be a header."""
    names = [field.strip() for field in fields]
    twice = sorted(column for column, times in Counter(names).items() if times > 1)
    odd = [column for column in names if NUMBER.fullmatch(column) or len(column) > NO_HEADER or "\n" in column]
    if reason is not None:
        fault = f"The header cannot be read: {reason}"
    elif twice:
        fault = f"The header names a column twice: {one_line(twice[0])[:40] or '(no name)'}"
    elif odd or not any(names):
        fault = f"The first line is no header: '{one_line(''.join(odd[:1]))[:40]}' is no column's name"
    else:
        return names
    fix = "Begin the file with one line that names each column once, for example: prompt,completion"
    raise rejected("data/header", name, f"{fault}.", fix, line)


def _unclosed(name: str, line: int, last: int | None) -> RunnerError:
    good = f"; the last row that is whole begins on line {last}" if last else ""
    what = f"A quote that opens in the row on line {line} is never closed{good}."
    fix = 'Close it; a quote inside a quoted field is written twice: "".'
    return rejected("data/corrupt", name, what, fix, line)
