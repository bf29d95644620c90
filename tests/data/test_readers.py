"""Files -> records: the container is found by its contents, and no row is lost without a reason."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from runner.data.readers import BOM_REMOVED, HALF, LIMIT, TOO_LONG, Record, one_line, read_records
from runner.errors import Exit, Problem, RunnerError

PAIR = '{"prompt": "Hi?", "completion": "Ho."}'
VALUE = {"prompt": "Hi?", "completion": "Ho."}
CSV = "prompt,completion\nHi?,Ho.\n"
BOM = b"\xef\xbb\xbf"
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(raw: bytes | str, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
        return path

    return write


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


@pytest.mark.parametrize(
    ("text", "name", "container"),
    [
        (PAIR, "rows.jsonl", "jsonl"),
        (f"{PAIR}\n{PAIR}", "rows.json", "jsonl"),
        (f"{PAIR}\n{PAIR}", "rows.csv", "jsonl"),
        (f"\n \n{PAIR}\n{PAIR}\n", "rows", "jsonl"),
        (f"wrong\n{PAIR}", "rows.jsonl", "jsonl"),
        (f"{{\n{PAIR}", "rows.txt", "jsonl"),
        ("{\n", "rows.txt", "jsonl"),
        (f'{{"prompt": "half\n{PAIR}', "rows.txt", "jsonl"),
        (f"[1]\n{PAIR}", "rows.jsonl", "jsonl"),
        (f"[{PAIR}]", "rows.json", "json"),
        (f" \n[{PAIR},\n{PAIR}]", "rows.jsonl", "json"),
        (f"[{PAIR}]", "rows", "json"),
        (f'{{"data":\n[{PAIR}]}}', "rows", "json"),
        (f'{{"data": [{PAIR}]}}', "rows.json", "json"),
        (json.dumps(VALUE, indent=1), "rows.txt", "json"),
        (CSV, "rows.csv", "csv"),
        (CSV, "rows.txt", "csv"),
        (CSV.replace(",", "\t"), "rows.txt", "tsv"),
        (CSV.replace(",", "\t"), "rows.csv", "tsv"),
        (CSV.replace(",", ";"), "rows.tsv", "csv"),
    ],
)
def test_the_contents_decide_what_a_file_is(put: Put, text: str, name: str, container: str) -> None:
    path = put(text, name)
    found, records = read(path)
    assert found == container
    assert VALUE in [record.value for record in records] or text == "{\n"
    (packed := path.with_name(f"{name}.gz")).write_bytes(gzip.compress(text.encode()))
    assert read(packed) == (found, records)


@pytest.mark.parametrize(
    ("raw", "name", "code"),
    [
        (PAIR.encode(), "rows.parquet", "data/not-as-named"),
        (PAIR.encode(), "rows.jsonl.gz", "data/not-as-named"),
        (b"", "rows.gz", "data/not-as-named"),
        (gzip.compress(b"PAR1xxxxPAR1"), "rows.parquet.gz", "data/packed-parquet"),
        (b"PK\x03\x04" + b"x" * 100, "rows.csv", "data/unknown-container"),
        (b"\x28\xb5\x2f\xfd....", "rows.jsonl.zst", "data/unknown-container"),
        (b"<!DOCTYPE html><html>", "rows.jsonl", "data/unknown-container"),
        (b"Once upon a time\nthere was", "rows.txt", "data/unknown-container"),
        (b"Once, upon a time\nthere was\na king\n", "rows.txt", "data/unknown-container"),
        (b"PAR1", "rows.parquet", "data/corrupt"),
        (b"PAR1" + b"\0" * 100 + b"PAR1", "rows.jsonl", "data/corrupt"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_told(put: Put, raw: bytes, name: str, code: str) -> None:
    problem(put(raw, name), code)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows"])
@pytest.mark.parametrize("raw", [b"", b"\n\r\n \n", BOM, BOM + b"\r\n", b"\xff\xfe"])
def test_a_file_without_rows_is_rejected(put: Put, raw: bytes, name: str) -> None:
    if name == "rows.parquet" and raw:
        pytest.skip("not a Parquet file at all")
    problem(put(raw, name), "data/empty")


@pytest.mark.parametrize(
    ("text", "name"), [("[]", "rows.json"), ('{"data": []}\n', "a.json"), (" [\n ] ", "a"), ("a,b\n\n", "rows.csv")]
)
def test_a_container_without_rows_is_rejected_too(put: Put, text: str, name: str) -> None:
    if "data" in text:
        assert values(put(text, name)) == [{"data": []}]  # no list of objects, so the object is the row
        return
    problem(put(text, name), "data/empty")


def test_a_parquet_file_without_rows_is_rejected(tmp_path: Path) -> None:
    problem(parquet(tmp_path / "rows.parquet", {"a": pyarrow.array([], pyarrow.string())}), "data/empty")


def test_a_file_that_is_not_there_is_a_missing_input(tmp_path: Path) -> None:
    problem(tmp_path / "missing.jsonl", "data/missing", Exit.INPUT_MISSING)
    problem(tmp_path, "data/missing", Exit.INPUT_MISSING)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_rows_are_numbered_by_their_line_whatever_ends_it(
    put: Put, monkeypatch: pytest.MonkeyPatch, end: str, chunk: int
) -> None:
    monkeypatch.setattr("runner.data.readers.CHUNK", chunk)
    path = put(end.join(["", PAIR, "", "  ", "wrong", PAIR]))
    assert [(row, bool(reason)) for row, reason in reasons(path)] == [(2, False), (5, True), (6, False)]
    path = put(end.join(["a,b", "1,2", "", '"x', '",y', "3,4"]), "rows.csv")
    assert [(record.row, record.value["a"]) for record in read(path)[1]] == [(2, "1"), (4, "x\n"), (6, "3")]


@pytest.mark.parametrize("text", [PAIR, f"[{PAIR}]", CSV])
@pytest.mark.parametrize(
    ("encoding", "repair"),
    [("utf-8-sig", BOM_REMOVED), ("utf-16", "UTF-16 was made UTF-8"), ("utf-32", "UTF-32 was made UTF-8")],
)
def test_a_byte_order_mark_is_heeded_and_told_on_the_first_row(put: Put, text: str, encoding: str, repair: str) -> None:
    text = text.replace("Ho.", "Hö – 🦊") + ("\nx,y\n" if text == CSV else "")
    for raw in (text.encode(encoding), gzip.compress(text.encode(encoding))):
        first, *others = read(put(raw, "rows"))[1]
        assert (first.value, first.repairs) == ({**VALUE, "completion": "Hö – 🦊"}, (repair,))
        assert all(record.repairs == () for record in others)


@pytest.mark.parametrize("cut", [b"\x00", b"\xd8", b"\x00\xd8"])
def test_utf_16_that_is_cut_spoils_the_last_row_only(put: Put, cut: bytes) -> None:
    found = reasons(put(f"{PAIR}\n{PAIR}\n{{".encode("utf-16") + cut))
    assert [reason for _, reason in found] == [None, None, "not UTF-8 (byte 2 of the row)"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"a": ' * 100_000, "not JSON: nested too deeply"),
        (b'{"a": NaN}', "not JSON: NaN is no JSON value"),
        (b'{"a": [-Infinity]}', "not JSON: -Infinity is no JSON value"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: a number of too many digits"),
        (b'{"messages": "\xff"}', "not UTF-8 (byte 15 of the row)"),
        (b'{"a": "\\ud83d"}', HALF),
        (b'{"\\uDC00": 1}', HALF),
        (b'{"a": 1, "b": 2, "a": 3}', "a key is written twice in one object ('a')"),
        (b'{"a": [{"b": 1, "b": 1}]}', "a key is written twice in one object ('b')"),
        (b'{"a": "\0"}', "not JSON: Invalid control character at at column 8"),
        (b'{"a": 1} x', "not JSON: Extra data at column 10"),
    ],
)
def test_a_line_or_an_element_that_cannot_be_read_says_why(put: Put, line: bytes, reason: str) -> None:
    path = put(PAIR.encode() + b"\n" + line + b"\n" + PAIR.encode())
    assert reasons(path) == [(1, None), (2, reason), (3, None)]
    closed = line not in (b"{", b'{"a": ' * 100_000, b'{"a": 1} x')
    listed = put(b"[" + PAIR.encode() + b",\n" + line + b",\n" + PAIR.encode() + b"]", "rows.json")
    if closed:
        kind = reason.partition(" at ")[0]
        assert [(row, (said or "").partition(" at ")[0]) for row, said in reasons(listed)] == [
            (1, ""),
            (2, kind),
            (3, ""),
        ]
    else:
        assert problem(listed, "data/corrupt").where.line in (2, 3)


def test_whole_characters_written_as_escapes_are_fine(put: Put) -> None:
    assert values(put('{"a": "\\ud83e\\udd8a"}')) == [{"a": "🦊"}]


def test_a_deep_element_of_a_list_is_one_row_that_is_lost(put: Put) -> None:
    deep = "[" * 50_000 + "]" * 50_000
    path = put(f"[{PAIR}, {deep}, {PAIR}]", "rows.json")
    assert reasons(path) == [(1, None), (2, "not JSON: nested too deeply"), (3, None)]


@pytest.mark.parametrize("form", ["{}\n{}\n{}", "[{},{},{}]", "prompt,completion\n{}\n{}\n{}"])
def test_a_row_over_the_limit_is_lost_alone(put: Put, form: str) -> None:
    pair = "Hi?,Ho." if "prompt" in form else PAIR
    for size in (LIMIT - 100, LIMIT + 1, 2 * LIMIT + 1):
        long = pair.replace("Ho.", "o" * size)
        found = read(put(form.format(pair, long, pair), "rows"))[1]
        assert [record.reason for record in found] == [None, TOO_LONG if size > LIMIT else None, None]
        assert size < LIMIT or "Hi?" in found[1].excerpt or "prompt" in form


@pytest.mark.slow
def test_memory_stays_bounded_however_large_the_file_or_the_line_is(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "Hi?", "completion": "o" * 1000})
    lines, one = tmp_path / "lines.jsonl.gz", tmp_path / "one.jsonl.gz"
    with gzip.open(lines, "wb", compresslevel=1) as file:
        for _ in range(60):
            file.write((line + "\n").encode() * 1000)
    with gzip.open(one, "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(b"o" * 1_000_000)
    table = parquet(tmp_path / "rows.parquet", {"a": [f"{i} {'o' * 1000}" for i in range(60_000)]})
    for path, most in ((lines, 8e6), (one, 3 * LIMIT), (table, 8e6)):
        tracemalloc.start()
        assert sum(1 for _ in read_records(path, path.name).records) in (60_000, 1)
        assert tracemalloc.get_traced_memory()[1] < most
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{{"version": 1, "data": [{PAIR}, {PAIR}], "tags": ["a"]}}', [VALUE, VALUE]),
        ('{"messages": [{"role": "user"}], "tools": [{"name": "x"}]}', None),
        ('{"conversations": [{"value": "x", "from": "human"}]}', None),
        ('{"a": {"b": [{"c": 1}]}}', None),
        ("[]]", []),
        ("[1, null, true]", [1, None, True]),
    ],
)
def test_an_object_with_one_list_of_objects_is_that_list(put: Put, text: str, expected: list[Any] | None) -> None:
    if text == "[]]":
        problem(put(text, "rows.json"), "data/corrupt")
    else:
        assert values(put(text, "rows.json")) == ([json.loads(text)] if expected is None else expected)


def test_an_object_with_several_lists_of_objects_is_ambiguous(put: Put) -> None:
    path = put(f'{{"train": [{PAIR}],\n "test": [{PAIR}]}}', "rows.json")
    assert "train, test" in problem(path, "data/several-lists").what


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (f"[{PAIR},\n{PAIR},\n{PAIR[:20]}", 3, "row 2 is the last"),
        (f"[{PAIR}\n{PAIR}]", 2, "A comma or the end of the list is missing; row 1"),
        (f"[{PAIR}] x", 1, "Something follows"),
        (f"[{PAIR},]", 1, "row 1 is the last"),
        (f'{{"data": [{PAIR}]\n, "more": ', 2, "does not come to its end"),
        (f'{{"data": [{PAIR}]\n', 2, "does not end with the file"),
        (f'{{"data":\n[{PAIR}]}}\n{{', 2, "does not end with the file"),
    ],
)
def test_a_list_that_breaks_off_names_the_place_and_the_last_good_row(
    put: Put, text: str, line: int, told: str
) -> None:
    found = problem(put(text, "rows.json"), "data/corrupt")
    assert found.where.line == line and told in found.what


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


@pytest.mark.parametrize("text", [f"{PAIR}\n" * 5000, "[" + f"{PAIR},\n" * 5000 + f"{PAIR}]", CSV + "Hi?,Ho.\n" * 5000])
@pytest.mark.parametrize("harm", [lambda raw: raw[:-20], lambda raw: raw[:-6] + b"\0" * 6, lambda raw: raw + b"more"])
def test_a_damaged_gzip_file_names_what_is_wrong(put: Put, text: str, harm: Callable[[bytes], bytes]) -> None:
    found = problem(put(harm(gzip.compress(text.encode())), "rows.gz"), "data/corrupt")
    assert "gzip file is damaged or cut" in found.what
    with pytest.raises((EOFError, zlib.error, OSError)):
        gzip.decompress((put(harm(gzip.compress(text.encode())), "rows.gz")).read_bytes())


def test_a_gzip_file_that_is_cut_late_names_the_last_good_row(put: Put) -> None:
    text = "".join(f'{{"n": "{zlib.crc32(str(i).encode())}"}}\n' for i in range(300_000))
    found = problem(put(gzip.compress(text.encode(), 1)[:-1000], "rows.jsonl.gz"), "data/corrupt")
    assert found.where.line and 100_000 < found.where.line < 300_000
    assert f"after row {found.where.line}, the last that is whole" in found.what


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


@pytest.mark.parametrize("text", ["a\nb\r\x1b[31mc\u2028d\0", "x" * 500, "\udcff", " \t "])
def test_an_excerpt_is_one_short_line_that_can_be_written(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 120 and (line.isprintable() or not line) and line.encode() is not None
