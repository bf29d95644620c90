"""Files -> records: one value a row, or the reason why there is none, whatever the container."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from runner.errors import Exit, Problem, RunnerError, Where

Container = Literal["jsonl", "json", "csv", "tsv", "parquet"]

LIMIT = 10 * 1024 * 1024  # bytes of one row; a longer one is a fault of the file, and no model reads it
CHUNK = 1 << 20
EXCERPT = 120
KEPT = 4 * EXCERPT  # bytes of a row that is too long, enough for its excerpt

TOO_LONG = f"the row is too long (more than {LIMIT >> 20} MB)"
HALF = "not Unicode text: an escape such as \\ud83d without its other half"
BOM_REMOVED = "a byte-order mark was removed"

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
FOREIGN = (
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"%PDF-", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
)
NAMED: dict[str, Container] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
}
CONTAINERS = "JSON Lines, JSON, CSV, TSV or Parquet (text may be gzipped)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row: its value, or the reason why it cannot be read.

    `row` is the line (from 1) where it begins in JSONL, CSV and TSV, and its number (from 1) in JSON and Parquet.
    """

    row: int
    value: Any = None
    excerpt: str = ""
    reason: str | None = None
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a file turned out to be, and its rows, read as they are asked for."""

    container: Container
    records: Iterator[Record]


def read_records(path: Path, name: str) -> Reading:
    """The rows of a file, which people know as `name`; what it is, is found by its contents.

    Raises RunnerError, also while the rows are read: 66 when the file cannot be opened, 65 when it is damaged, has
    no rows or is no container of rows.
    """
    try:
        container = _recognise(path, name)
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise _damaged(name, None, "gzip", error) from error
        problem = Problem(
            code="data/missing",
            what=f"The data file cannot be read: {error.strerror}.",
            where=Where(path=name),
            fix="Check that the file is there and that you may read it.",
        )
        raise RunnerError(problem, Exit.INPUT_MISSING) from error
    except (EOFError, zlib.error) as error:
        raise _damaged(name, None, "gzip", error) from error
    return Reading(container=container, records=_guarded(READERS[container](path, name), name))


def one_line(text: str) -> str:
    """The first characters of a text, on one line."""
    line = text[:EXCERPT]
    return (line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)).strip()


# What is it?


def _recognise(path: Path, name: str) -> Container:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    with path.open("rb") as file:
        magic = file.read(64)
    packed = magic.startswith(GZIP)
    if suffixes[-1:] == [".gz"] and not packed:
        raise _rejected("data/not-as-named", name, f"The file is named {suffixes[-1]}, but is not gzipped.", RENAME)
    if packed:
        with gzip.open(path) as unpacked:
            magic = unpacked.read(64)
    named = NAMED.get(next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), ""))
    if magic.startswith(PARQUET):
        if packed:
            fix = "Unpack it with gunzip; Parquet is compressed inside."
            raise _rejected("data/packed-parquet", name, "The file is a Parquet file inside gzip.", fix)
        return "parquet"
    for start, what in FOREIGN:
        if magic.startswith(start):
            raise _rejected("data/unknown-container", name, f"The file is {what}.", f"Give {CONTAINERS}.")
    if named == "parquet" and magic:
        raise _rejected("data/not-as-named", name, "The file is named .parquet, but is not a Parquet file.", RENAME)
    return _recognise_text(path, name, named)


RENAME = "Give the file that the name promises, or name it after what it is."


def _recognise_text(path: Path, name: str, named: Container | None) -> Container:
    lines = (line.strip() for _, line, _ in _lines(_chunks(path)))
    first, second = [*islice((line for line in lines if line), 2), b"", b""][:2]
    if not first:
        raise _empty(name)
    if first[:1] in (b"{", b"["):
        return _json_or_jsonl(first, second, named)
    if named in ("json", "jsonl"):
        return named
    delimiter = _delimiter(path, named)
    if delimiter is None and named is None:
        what = "The file is not recognised: its first line is no JSON and no header with several columns."
        raise _rejected("data/unknown-container", name, what, f"Give {CONTAINERS}.")
    return "tsv" if delimiter == "\t" else "csv"


def _json_or_jsonl(first: bytes, second: bytes, named: Container | None) -> Container:
    """Whether the first line is a row, or the beginning of one value that goes over lines."""
    text = first.decode("utf-8", "replace")
    try:
        DECODER.decode(text)
    except json.JSONDecodeError as error:
        over = error.pos >= len(text)  # the line is right as far as it goes
    except (ValueError, RecursionError):
        over = False
    else:
        if second:
            return "jsonl"
        return "json" if named == "json" or (text[0] == "[" and named != "jsonl") else "jsonl"
    if text[0] == "[" and (over or named != "jsonl"):
        return "json"
    if named in ("json", "jsonl"):
        return named
    return "json" if over and second and not _is_json(second) else "jsonl"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


# Bytes -> lines


def _chunks(path: Path) -> Iterator[bytes]:
    """The file unpacked and in UTF-8, in pieces, without its byte-order mark; what is not text stays not UTF-8."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        head = stream.read(CHUNK)
        bom, encoding = _encoding(head)
        rest = iter(lambda: stream.read(CHUNK), b"")
        if encoding == "utf-8":
            yield head.removeprefix(bom)
            yield from rest
        else:
            yield from _transcoded(chain([head], rest), encoding)


def _transcoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    codecs.register_error("runner-not-text", lambda error: ("\udcff", getattr(error, "end", 0)))
    decoder = codecs.getincrementaldecoder(encoding)("runner-not-text")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def _encoding(head: bytes) -> tuple[bytes, str]:
    return next(((bom, encoding) for bom, encoding in BOMS if head.startswith(bom)), (b"", "utf-8"))


def _file_repairs(path: Path) -> tuple[str, ...]:
    """What was done to the file as a whole, told on its first row."""
    with path.open("rb") as file:
        head = file.read(4)
        if head.startswith(GZIP):
            file.seek(0)
            head = gzip.GzipFile(fileobj=file).read(4)
    bom, encoding = _encoding(head)
    if not bom:
        return ()
    return (BOM_REMOVED,) if encoding == "utf-8" else (f"{encoding.upper()} was made UTF-8",)


def _lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes and wholeness of each line, ended by LF, CRLF or CR; of one over the limit only the beginning."""
    number, rest, whole, after_cr = 0, b"", True, False
    for chunk in chunks:
        if not chunk:
            continue
        piece = chunk.removeprefix(b"\n") if after_cr else chunk
        after_cr = chunk.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, last = piece.split(b"\n")
        if ended:
            ended[0] = rest + ended[0]
            for line in ended:
                number += 1
                fits = whole and len(line) <= LIMIT
                yield number, line if fits else line[:KEPT], fits
                whole = True
            rest = last
        else:
            rest += last
        if len(rest) > LIMIT:
            rest, whole = rest[:KEPT], False
    if rest:
        yield number + 1, rest, whole


# JSON Lines


def _jsonl(path: Path, name: str) -> Iterator[Record]:
    repairs = _file_repairs(path)
    for number, line, whole in _lines(_chunks(path)):
        if not line or line.isspace():
            continue
        yield _json_line(number, line, whole, repairs)
        repairs = ()


def _json_line(number: int, line: bytes, whole: bool, repairs: tuple[str, ...]) -> Record:
    if not whole:
        return Record(row=number, excerpt=one_line(line.decode("utf-8", "replace")), reason=TOO_LONG, repairs=repairs)
    try:
        text = line.decode()
        value = DECODER.decode(text)
        _refuse_halves(text, value)
    except (ValueError, RecursionError) as error:
        excerpt = one_line(line[:KEPT].decode("utf-8", "replace"))
        return Record(row=number, excerpt=excerpt, reason=_json_reason(error), repairs=repairs)
    return Record(row=number, value=value, excerpt=one_line(text), repairs=repairs)


def _refuse_halves(text: str, value: Any) -> None:
    """Raises UnicodeEncodeError for half a character; only an escape can bring one in."""
    if "\\u" in text and ("\\ud" in text or "\\uD" in text):
        json.dumps(value, ensure_ascii=False).encode()


def _json_reason(error: Exception) -> str:
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
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"a key is written twice in one object ({twice[:40]!a})")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


# JSON

BLANK = re.compile(r"[ \t\n\r]*")
TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}"]|[^\s,:"\[\]{}]+', re.DOTALL)


def _json(path: Path, name: str) -> Iterator[Record]:
    text = b"".join(_chunks(path)).decode("utf-8", "surrogateescape")
    repairs = _file_repairs(path)
    for record in _elements(text, name):
        yield Record(row=record.row, value=record.value, excerpt=record.excerpt, reason=record.reason, repairs=repairs)
        repairs = ()


def _elements(text: str, name: str) -> Iterator[Record]:
    """The elements of the file's list, one after the other; an object without a list of objects is one row."""
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
        reason, closed = _json_reason(error), _end_of(text, at)
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
        _refuse_halves(written, value)
    except UnicodeEncodeError:
        return HALF
    return None


def _inner_list(text: str, at: int, name: str) -> int | None:
    """Where the one list of objects in the object begins; None when there is none, or when one is of turns."""
    lists: dict[str, int] = {}
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
            lists[key] = start
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at : at + 1] == "," else at
    if text[at : at + 1] != "}" or _skip(text, at + 1) < len(text):
        raise _malformed(text, at, name, None, "The object does not end with the file")
    if len(lists) > 1:
        what = f"The file's object holds several lists of objects: {', '.join(lists)}."
        raise _rejected("data/several-lists", name, what, "Keep one list of rows in the file.")
    return next(iter(lists.values()), None)


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
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    good = f"; row {last} is the last that is whole" if last else ""
    problem = Problem(
        code="data/corrupt",
        what=f"The file is no JSON from here on: {what}{good}.",
        where=Where(path=name, line=line, column=column),
        fix="Write the file again; JSON Lines, one object a line, loses only the row that is wrong.",
    )
    return RunnerError(problem, Exit.DATA_REJECTED)


# CSV and TSV

DELIMITERS = {"csv": ",", "tsv": "\t"}
SAMPLE = 1 << 16
NO_HEADER = 100  # characters that no column's name has


def _delimiter(path: Path, named: Container | None) -> str | None:
    """The separator that cuts the first lines into as many fields as the header has; None without such evidence."""
    csv.field_size_limit(LIMIT)
    sample = next(_chunks(path))[:SAMPLE].decode("utf-8", "replace")
    lines = sample.splitlines(keepends=True)
    found: dict[str, tuple[float, int]] = {}
    for mark in (",", ";", "\t", "|"):
        widths = [len(fields) for fields in csv.reader(lines, delimiter=mark) if fields]
        alike = sum(width == widths[0] for width in widths) / len(widths)
        if widths[0] > 1 and alike > 0.5:
            found[mark] = (alike, widths[0])
    expected = DELIMITERS.get(named or "", "")
    if found.get(expected, (0.0, 0))[0] >= 0.9:
        return expected
    return max(found, key=lambda mark: found[mark], default=None)


def _table(path: Path, name: str) -> Iterator[Record]:
    """The rows below the header; a record may go over lines inside quotes."""
    csv.field_size_limit(LIMIT)
    named = NAMED.get(next((s for s in reversed(path.suffixes) if s != ".gz"), "").lower())
    feed = _Feed(_lines(_chunks(path)))
    reader = csv.reader(feed, delimiter=_delimiter(path, named) or DELIMITERS.get(named or "", ","), strict=True)
    header, repairs = None, _file_repairs(path)
    for line, fields, reason in _table_rows(reader, feed, name):
        if header is None:
            header = _header(fields, reason, line, name)
            continue
        if reason is None and len(fields) != len(header):
            reason = f"the row has not as many fields as the header ({len(fields)}, not {len(header)})"
        value = None if reason else dict(zip(header, fields, strict=True))
        yield Record(row=line, value=value, excerpt=one_line(",".join(fields)), reason=reason, repairs=repairs)
        repairs = ()


class _Feed:
    """Lines as the CSV reader wants them; it remembers what was wrong with those of the present record."""

    def __init__(self, lines: Iterator[tuple[int, bytes, bool]]):
        self._lines = lines
        self.line = 0
        self.reason: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.line, line, whole = next(self._lines)
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


def _table_rows(reader: Any, feed: _Feed, name: str) -> Iterator[tuple[int, list[str], str | None]]:
    """First line, fields and fault of each record that is not blank."""
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
            yield begin, fields, feed.reason
            last = begin if feed.reason is None else last


def _header(fields: list[str], reason: str | None, line: int, name: str) -> list[str]:
    """The columns' names; raises RunnerError (65) when the first record cannot be a header."""
    names = [field.strip() for field in fields]
    twice = sorted({column for column in names if names.count(column) > 1})
    numbers = [column for column in names if NUMBER.fullmatch(column)]
    long = [column for column in names if len(column) > NO_HEADER or "\n" in column]
    fault = None
    if reason is not None:
        fault = f"The header cannot be read: {reason}"
    elif twice:
        fault = f"The header names a column twice: {twice[0] or '(no name)'}"
    elif numbers or long or not any(names):
        cell = (numbers + long + [""])[0][:40]
        fault = f"The first line is no header: '{one_line(cell)}' is no column's name"
    if fault is not None:
        fix = "Begin the file with one line that names each column once, for example: prompt,completion"
        problem = Problem(code="data/header", what=f"{fault}.", where=Where(path=name, line=line), fix=fix)
        raise RunnerError(problem, Exit.DATA_REJECTED)
    return names


NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


def _unclosed(name: str, line: int, last: int | None) -> RunnerError:
    good = f"; the last row that is whole begins on line {last}" if last else ""
    problem = Problem(
        code="data/corrupt",
        what=f"A quote that opens in the row on line {line} is never closed{good}.",
        where=Where(path=name, line=line),
        fix='Close it; a quote inside a quoted field is written twice: "".',
    )
    return RunnerError(problem, Exit.DATA_REJECTED)


# Parquet

BATCH = 256


def _parquet(path: Path, name: str) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        problem = Problem(
            code="data/package-missing",
            what="Parquet files need the package 'pyarrow', which is not installed.",
            where=Where(path=name),
            fix="pip install pyarrow",
        )
        raise RunnerError(problem, Exit.USAGE) from error
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=CHUNK, pre_buffer=False) as file:
            columns = file.schema_arrow.names
            if twice := sorted({column for column in columns if columns.count(column) > 1}):
                fix = "Write the file again, each column once."
                raise _rejected("data/header", name, f"The file names a column twice: {twice[0]}.", fix)
            for batch in file.iter_batches(batch_size=BATCH):
                for record in _batch_rows(batch, row):
                    yield record
                    row = record.row
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise _damaged(name, row or None, "Parquet", error) from error


def _batch_rows(batch: Any, row: int) -> Iterator[Record]:
    try:
        values = batch.to_pylist()
    except (ValueError, OverflowError, ArithmeticError):  # one row at a time, to find out which it is
        values = [None] * batch.num_rows
    for i, value in enumerate(values):
        reason = None
        if value is None:
            value, reason = _single_row(batch.slice(i, 1))
        yield Record(row=row + i + 1, value=value, excerpt=one_line(str(value)), reason=reason)


def _single_row(batch: Any) -> tuple[Any, str | None]:
    try:
        return batch.to_pylist()[0], None
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 (byte {error.start + 1} of a value)"
    except (ValueError, OverflowError, ArithmeticError) as error:
        return None, f"a value cannot be read: {type(error).__name__}"


# What can go wrong with a file as a whole

READERS: dict[Container, Callable[[Path, str], Iterator[Record]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _table,
    "tsv": _table,
    "parquet": _parquet,
}


def _guarded(records: Iterator[Record], name: str) -> Iterator[Record]:
    """The records; damage becomes a problem that names the last good row, and a file without rows one, too."""
    last = None
    try:
        for record in records:
            yield record
            last = record.row
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(name, last, "gzip", error) from error
    except OSError as error:
        problem = Problem(
            code="data/unreadable",
            what=f"Reading the data file failed: {error.strerror or type(error).__name__}.",
            where=Where(path=name, line=last),
            fix="Check the disk, then run the same command again.",
        )
        raise RunnerError(problem, Exit.IO) from error
    if last is None:
        raise _empty(name)


def _damaged(name: str, last: int | None, container: str, error: BaseException) -> RunnerError:
    good = f" after row {last}, the last that is whole" if last else " from its beginning"
    detail = one_line(str(error)) or type(error).__name__
    what = f"The {container} file is damaged or cut{good}: {detail.rstrip('.')}."
    problem = Problem(
        code="data/corrupt", what=what, where=Where(path=name, line=last), fix="Copy or download the file again."
    )
    return RunnerError(problem, Exit.DATA_REJECTED)


def _empty(name: str) -> RunnerError:
    fix = 'Write one JSON object a line, for example {"prompt": "...", "completion": "..."}'
    return _rejected("data/empty", name, "The data file has no rows.", fix)


def _rejected(code: str, name: str, what: str, fix: str) -> RunnerError:
    return RunnerError(Problem(code=code, what=what, where=Where(path=name), fix=fix), Exit.DATA_REJECTED)
