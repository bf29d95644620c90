"""Files -> records: what a file is, is found by its contents, and no row is lost without a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from runner.data.reading.json_lines import DECODER, read_json_lines
from runner.data.reading.json_list import read_json
from runner.data.reading.lines import BROKEN, SWELLS, chunks, file_repairs, is_gzip_bomb, is_gzipped, lines, suffix
from runner.data.reading.parquet import read_parquet
from runner.data.reading.records import Record, damaged, rejected
from runner.data.reading.tables import delimiter, read_table
from runner.errors import Exit, Problem, RunnerError, Where

Container = Literal["jsonl", "json", "csv", "tsv", "parquet"]

READERS: dict[Container, Callable[[Path, str], Iterator[Record]]] = {
    "jsonl": read_json_lines,
    "json": read_json,
    "csv": read_table,
    "tsv": read_table,
    "parquet": read_parquet,
}
NAMED: dict[str, Container] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
}
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
GIVE = "Give JSON Lines, JSON, CSV, TSV or Parquet (text may be gzipped)."
FILL: dict[Container, str] = {
    "csv": "Write a line that names the columns, such as prompt and completion, and below it one row a line.",
    "parquet": "Write the file again, with its rows.",
    "jsonl": 'Write one JSON object a line, for example {"prompt": "...", "completion": "..."}',
}
FILL |= {"tsv": FILL["csv"], "json": FILL["jsonl"]}
RENAME = "Give the file that the name promises, or name it after what it is."


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a file turned out to be, and its rows, read as they are asked for."""

    container: Container
    records: Iterator[Record]


def read_records(path: Path, name: str) -> Reading:
    """The rows of a file, which people know as `name`.

    Raises RunnerError, also while the rows are read: 66 when the file cannot be opened, 65 when it is damaged, has
    no rows or is no container of rows.
    """
    try:
        container = _recognise(path, name)
    except BROKEN as error:
        raise damaged(name, None, "gzip", error) from error
    except OSError as error:
        problem = Problem(
            code="data/missing",
            what=f"The data file cannot be read: {error.strerror}.",
            where=Where(path=name),
            fix="Check that the file is there and that you may read it.",
        )
        raise RunnerError(problem, Exit.INPUT_MISSING) from error
    return Reading(container=container, records=_guarded(READERS[container](path, name), path, name, container))


def _guarded(records: Iterator[Record], path: Path, name: str, container: Container) -> Iterator[Record]:
    """The records, the first with the file's repairs; damage, and a file without rows, become a problem."""
    last = None
    try:
        for record in records:
            yield record if last else replace(record, repairs=file_repairs(path))
            last = record.row
    except BROKEN as error:
        raise damaged(name, last, "gzip", error) from error
    except OSError as error:
        problem = Problem(
            code="data/unreadable",
            what=f"Reading the data file failed: {error.strerror or type(error).__name__}.",
            where=Where(path=name, line=last),
            fix="Check the disk, then run the same command again.",
        )
        raise RunnerError(problem, Exit.IO) from error
    if last is None:
        raise _empty(name, container)


def _recognise(path: Path, name: str) -> Container:
    packed, named = is_gzipped(path), NAMED.get(suffix(path))
    start = next(chunks(path), b"")[:64]
    if path.suffix.lower() == ".gz" and not packed:
        raise rejected("data/not-as-named", name, "The file is named .gz, but is not gzipped.", RENAME)
    if packed and is_gzip_bomb(path):
        what = f"The file unpacks to more than {SWELLS} times its size, as files made to fill a machine do."
        fix = "Look at what is inside, and give it unpacked (gunzip) if you trust it."
        raise rejected("data/gzip-bomb", name, what, fix)
    if start.startswith(b"PAR1"):
        if packed:
            fix = "Unpack it with gunzip; Parquet is compressed inside."
            raise rejected("data/packed-parquet", name, "The file is a Parquet file inside gzip.", fix)
        return "parquet"
    if foreign := next((what for magic, what in FOREIGN if start.startswith(magic)), None):
        raise rejected("data/unknown-container", name, f"The file is {foreign}.", GIVE)
    if named == "parquet" and start:
        raise rejected("data/not-as-named", name, "The file is named .parquet, but is not a Parquet file.", RENAME)
    return _recognise_text(path, name, named)


def _recognise_text(path: Path, name: str, named: Container | None) -> Container:
    first, second = _first_lines(path)
    if not first:
        raise _empty(name, named)
    if first[:1] in (b"{", b"["):
        return _json_or_jsonl(first, second, named)
    if named in ("json", "jsonl"):
        return named
    mark = delimiter(path)
    if mark is None and named is None:
        what = "The file is not recognised: its first line is no JSON and no header with several columns."
        raise rejected("data/unknown-container", name, what, GIVE)
    return "tsv" if mark == "\t" else "csv"


def _first_lines(path: Path) -> tuple[bytes, bytes]:
    """The first two lines that are not blank, without their outer spaces; empty where there are none.

    Where the packing is damaged inside the first, that is what there is of a JSON value.
    """
    found: list[bytes] = []
    try:
        for line in islice((line for _, full, _ in lines(path) if (line := full.strip())), 2):
            found.append(line)
    except BROKEN:
        start = b"" if found else next(chunks(path), b"").strip()
        if not found and start[:1] not in (b"{", b"["):
            raise
        found = found or [start]
    first, second = [*found, b"", b""][:2]
    return first, second


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


def _empty(name: str, container: Container | None) -> RunnerError:
    return rejected("data/empty", name, "The data file has no rows.", FILL[container or "jsonl"])
