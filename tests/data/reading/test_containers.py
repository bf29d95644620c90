"""Files -> records: the container is found by its contents, and damage has its place."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner.data.reading.containers import read_records
from runner.data.reading.records import LIMIT, TOO_LONG, Record, one_line
from runner.errors import Exit, RunnerError
from tests.data.reading.files import BOM, CSV, PAIR, VALUE, Put, parquet, problem, read, values


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


def test_a_file_that_is_not_there_is_a_missing_input(tmp_path: Path) -> None:
    problem(tmp_path / "missing.jsonl", "data/missing", Exit.INPUT_MISSING)
    problem(tmp_path, "data/missing", Exit.INPUT_MISSING)


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
    drawn = random.Random(1)
    block = "".join(json.dumps({"prompt": "Hi?", "completion": drawn.randbytes(500).hex()}) + "\n" for _ in range(1000))
    lines, one = tmp_path / "lines.jsonl.gz", tmp_path / "one.jsonl.gz"
    with gzip.open(lines, "wb", compresslevel=1) as file:
        for _ in range(60):
            file.write(block.encode())
    with gzip.open(one, "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(block.replace("\n", "").encode())
    table = parquet(tmp_path / "rows.parquet", {"a": [f"{i} {'o' * 1000}" for i in range(60_000)]})
    for path, most in ((lines, 8e6), (one, 3 * LIMIT), (table, 8e6)):
        tracemalloc.start()
        assert sum(1 for _ in read_records(path, path.name).records) in (60_000, 1)
        assert tracemalloc.get_traced_memory()[1] < most
        tracemalloc.stop()


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
    assert f"after row {found.where.line}, the last that could be read" in found.what


ROWS = "".join(f'{{"n": "{zlib.crc32(str(i).encode())}"}}\n' for i in range(200))


@pytest.mark.parametrize(
    ("name", "text", "least"),
    [
        ("rows.jsonl.gz", ROWS, 1),
        ("rows.json.gz", f"[{','.join(ROWS.splitlines())}]", 1),
        ("rows.csv.gz", "n,m\n" + "".join(f"{zlib.crc32(str(i).encode())},2\n" for i in range(200)), 2),
    ],
)
def test_a_small_gzip_file_that_is_cut_gives_the_rows_before_the_cut(
    put: Put, name: str, text: str, least: int
) -> None:
    raw = gzip.compress(text.encode())
    records: list[Record] = []
    reading = read_records(path := put(raw[:-100], name), name)
    with pytest.raises(RunnerError, match="gzip file is damaged or cut after row"):
        records.extend(reading.records)
    assert len(records) > 100 and all(record.reason is None for record in records)
    last = problem(path, "data/corrupt").where.line
    assert last == records[-1].row == len(records) + least - 1


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.gz"])
@pytest.mark.parametrize("keep", [12, 40])
def test_a_gzip_file_without_a_row_before_the_damage_names_none(put: Put, name: str, keep: int) -> None:
    text = json.dumps([{"n": zlib.crc32(str(i).encode())} for i in range(100)])
    found = problem(put(gzip.compress(text.encode())[:keep], name), "data/corrupt")
    assert found.where.line is None and "damaged or cut: " in found.what


@pytest.mark.parametrize(
    ("raw", "name", "cure"),
    [
        ("prompt,completion\n", "rows.csv", "below it one row a line"),
        ("prompt\tcompletion\n", "rows.tsv", "below it one row a line"),
        ("", "rows.csv", "a line that names the columns"),
        ("", "rows.jsonl", "one JSON object a line"),
        ("[]", "rows.json", "one JSON object a line"),
        ("", "rows.parquet", "Write the file again"),
    ],
)
def test_a_file_without_rows_is_cured_in_its_own_container(put: Put, raw: str, name: str, cure: str) -> None:
    assert cure in problem(put(raw, name), "data/empty").fix


@pytest.mark.parametrize("text", ["a\nb\r\x1b[31mc\u2028d\0", "x" * 500, "\udcff", " \t "])
def test_an_excerpt_is_one_short_line_that_can_be_written(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 120 and (line.isprintable() or not line) and line.encode() is not None


@pytest.mark.parametrize("states", ["the truth", "a lie"])
@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz"])
def test_a_gzip_bomb_is_refused_before_it_fills_the_machine(tmp_path: Path, name: str, states: str) -> None:
    row = b'{"prompt": "a", "completion": "b"}'
    raw = row + b"\n" if name == "rows.jsonl.gz" else b"[" + row + b","
    packed = gzip.compress(raw + b" " * (100 << 20), 9)
    path = tmp_path / name
    path.write_bytes(packed if states == "the truth" else packed[:-4] + b"\x01\0\0\0")
    with pytest.raises(RunnerError) as refused:
        list(read_records(path, name).records)
    (problem,) = refused.value.problems
    assert (problem.code, problem.where.path) == ("data/gzip-bomb", name)
    assert "gunzip" in problem.fix


@pytest.mark.parametrize("is_dictionary", [False, True])
def test_a_parquet_file_that_fills_a_machine_is_refused_and_one_that_repeats_itself_is_not(
    tmp_path: Path, is_dictionary: bool
) -> None:
    long, short = pa.array(["x" * 1_000_000] * 300), pa.array([f"answer {i}" for i in range(300)])
    long = long.dictionary_encode() if is_dictionary else long
    pq.write_table(pa.table({"prompt": long, "completion": short}), tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 100_000
    with pytest.raises(RunnerError) as refused:
        list(read_records(tmp_path / "bomb.parquet", "bomb.parquet").records)
    assert [problem.code for problem in refused.value.problems] == ["data/parquet-bomb"]
    repeated = pa.array(["the same long instruction " * 200] * 300)
    pq.write_table(pa.table({"prompt": repeated, "completion": short}), tmp_path / "repeated.parquet")
    assert len(list(read_records(tmp_path / "repeated.parquet", "repeated.parquet").records)) == 300
