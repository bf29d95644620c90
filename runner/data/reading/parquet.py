"""Parquet -> records, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.data.reading.lines import CHUNK, SWELLS_FROM
from runner.data.reading.records import Record, damaged, one_line, rejected
from runner.errors import Exit, Problem, RunnerError, Where

BATCH = 256
SWELLS = 1000  # times its size: a column that says the same in every row may well come to that beside others
BOMB = f"The file unpacks to more than {SWELLS:,} times its size, as files made to fill a machine do."
UNPACK = "Look at what is inside, and give it as JSON Lines if you trust it."


def read_parquet(path: Path, name: str) -> Iterator[Record]:
    """A record for each row; a value that cannot be read loses its row alone."""
    pyarrow = _arrow(name)
    row = num_bytes = 0
    most = max(SWELLS_FROM, SWELLS * path.stat().st_size)
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=CHUNK, pre_buffer=False) as file:
            columns = file.schema_arrow.names
            if twice := sorted(column for column, times in Counter(columns).items() if times > 1):
                fix = "Write the file again, each column once."
                raise rejected("data/header", name, f"The file names a column twice: {one_line(twice[0])}.", fix)
            for batch in file.iter_batches(batch_size=BATCH):
                for record in _batch_rows(batch, row):
                    num_bytes += _length(record.value)
                    if num_bytes > most:
                        raise rejected("data/parquet-bomb", name, BOMB, UNPACK)
                    yield record
                    row = record.row
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise damaged(name, row or None, "Parquet", error) from error


def _arrow(name: str) -> Any:
    """pyarrow, which this alone of all reading needs; raises RunnerError (66) where it is not installed."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        problem = Problem(
            code="data/package-missing",
            what="Reading Parquet needs the package 'pyarrow', which is not installed.",
            where=Where(path=name),
            fix='Install it with: pip install "runner[train]"',
        )
        raise RunnerError(problem, Exit.INPUT_MISSING) from error
    return pyarrow


def _length(value: Any) -> int:
    """Characters in the texts of a value; Arrow's own count takes a text that many rows share for one."""
    if isinstance(value, dict):
        return sum(map(_length, value.values()))
    if isinstance(value, list):
        return sum(map(_length, value))
    return len(value) if isinstance(value, str | bytes) else 0


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
