"""Parquet -> records."""

from __future__ import annotations

import zlib
from pathlib import Path

import pyarrow
import pyarrow.parquet

from tests.data.reading.files import parquet, problem, read, reasons


def test_a_parquet_file_without_rows_is_rejected(tmp_path: Path) -> None:
    problem(parquet(tmp_path / "rows.parquet", {"a": pyarrow.array([], pyarrow.string())}), "data/empty")


def test_parquet_rows_are_numbered_and_keep_their_types(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "Hi?"}], None] * 300
    path = parquet(tmp_path / "rows.bin", {"messages": turns, "n": list(range(600))})
    container, records = read(path)
    assert (container, [record.row for record in records]) == ("parquet", list(range(1, 601)))
    assert records[598].value == {"messages": turns[0], "n": 598}


def test_a_parquet_value_that_is_not_text_is_a_row_lost_alone(tmp_path: Path) -> None:
    raw = pyarrow.array([b"good", b"b\xff", b"good"], pyarrow.binary()).cast(pyarrow.binary())
    text = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    path = parquet(tmp_path / "rows.parquet", {"a": text})
    assert reasons(path) == [(1, None), (2, "not UTF-8 (byte 2 of a value)"), (3, None)]


def test_a_damaged_parquet_file_is_told_with_the_last_good_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"a": [f"{i:06}{zlib.crc32(str(i).encode())}" for i in range(20_000)]})
    pyarrow.parquet.write_table(table, path, row_group_size=1000, use_dictionary=False)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 4000] = b"\xff" * 4000
    path.write_bytes(bytes(raw))
    found = problem(path, "data/corrupt")
    assert found.where.line and 5_000 < found.where.line < 15_000
    path.write_bytes(bytes(raw[: len(raw) // 2]))
    assert problem(path, "data/corrupt").where.line is None


def test_a_parquet_file_that_names_a_column_twice_is_told(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    problem(tmp_path / "rows.parquet", "data/header")
