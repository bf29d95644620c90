"""Files to read, and what reading them gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from runner.data.reading.containers import read_records
from runner.data.reading.records import Record
from runner.errors import Exit, Problem, RunnerError

PAIR = '{"prompt": "Hi?", "completion": "Ho."}'
VALUE = {"prompt": "Hi?", "completion": "Ho."}
CSV = "prompt,completion\nHi?,Ho.\n"
BOM = b"\xef\xbb\xbf"
Put = Callable[..., Path]


def read(path: Path) -> tuple[str, list[Record]]:
    reading = read_records(path, path.name)
    return reading.container, list(reading.records)


def values(path: Path) -> list[Any]:
    return [record.value for record in read(path)[1]]


def reasons(path: Path) -> list[tuple[int, str | None]]:
    return [(record.row, record.reason) for record in read(path)[1]]


def problem(path: Path, code: str, exit_code: Exit = Exit.DATA_REJECTED) -> Problem:
    with pytest.raises(RunnerError) as caught:
        read(path)
    (found,) = caught.value.problems
    assert (found.code, caught.value.exit_code, found.where.path) == (code, exit_code, path.name)
    assert found.fix and found.what.endswith(".")
    return found


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path
