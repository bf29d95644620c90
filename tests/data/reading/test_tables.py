"""CSV and TSV -> records: the separator by evidence, the columns by the header."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.data.reading.containers import read_records
from runner.errors import RunnerError
from tests.data.reading.files import Put, problem, reasons, values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", {"a": "1", "b": "2"}),
        ("a;b\n1,5;2\n", {"a": "1,5", "b": "2"}),
        ("a\tb\n1,2\t3;4\n", {"a": "1,2", "b": "3;4"}),
        ("a|b\n1|2\n", {"a": "1", "b": "2"}),
        ('"a, really",b\n"say ""hi""",\n', {"a, really": 'say "hi"', "b": ""}),
        ("a\nx\n", {"a": "x"}),
        ("a , b\n1,2", {"a": "1", "b": "2"}),
        ("a;b\n1\u2028\u2028;2", {"a": "1\u2028\u2028", "b": "2"}),
        ("\n" * (1 << 17) + "a;b\n1;2", {"a": "1", "b": "2"}),
    ],
)
def test_the_separator_is_found_by_evidence(put: Put, text: str, expected: dict[str, str]) -> None:
    assert values(put(text, "rows.csv")) == [expected]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1", "the row has not as many fields as the header (1, not 2)"),
        (b"1,2,3", "the row has not as many fields as the header (3, not 2)"),
        (b"1,\xff", "not UTF-8 (byte 3 of line 3)"),
        (b'"1\n\xff",2', "not UTF-8 (byte 1 of line 4)"),
        (b"1,\0", "the row has a NUL character"),
        (b'"1"x,2', "not CSV: ',' expected after '\"'"),
    ],
)
def test_a_csv_row_that_cannot_be_read_is_lost_alone(put: Put, row: bytes, reason: str) -> None:
    path = put(b"a,b\n1,2\n" + row + b"\n3,4\n", "rows.csv")
    last = 5 if b"\n" in row else 4
    assert reasons(path) == [(2, None), (3, reason), (last, None)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,a\n1,2\n", "names a column twice: a"),
        ("1,2\n3,4\n", "no header: '1'"),
        (f"{'long ' * 30},b\n1,2\n", "no header: 'long"),
        (",\n1,2\n", "(no name)"),
        ("a,\0\n1,2\n", "cannot be read: the row has a NUL"),
    ],
)
def test_a_table_needs_a_header(put: Put, text: str, told: str) -> None:
    found = problem(put(text, "rows.csv"), "data/header")
    assert told in found.what and found.where.line == 1


def test_a_quote_that_is_never_closed_loses_no_rows_silently(put: Put) -> None:
    rows = ["a,b", *["1,2"] * 50, '"open,2', *["3,4"] * 50]
    found = problem(put("\n".join(rows), "rows.csv"), "data/corrupt")
    assert found.where.line == 52 and "the last row that is whole begins on line 51" in found.what


def test_a_very_wide_file_is_read_in_no_time(tmp_path: Path) -> None:
    wide = 100_000  # columns; comparing each with each would take minutes
    names = ",".join(f"c{i}" for i in range(wide))
    (tmp_path / "wide.csv").write_text(f"{names},c{wide - 1}\n")
    keys = ", ".join(f'"k{i}": 1' for i in range(wide))
    (tmp_path / "wide.jsonl").write_text(f'{{{keys}, "k{wide - 1}": 2}}\n')
    with pytest.raises(RunnerError) as refused:
        list(read_records(tmp_path / "wide.csv", "wide.csv").records)
    assert "a column twice: c99999" in refused.value.problems[0].what
    (record,) = read_records(tmp_path / "wide.jsonl", "wide.jsonl").records
    assert record.reason == "a key is written twice in one object ('k99999')"
