"""Whatever a file holds: rows that reconcile with their file, or one kind of error that says where."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.reading import FORMATS, LocalFile, Row, fetch, read_rows
from runner.data.reading.containers import read_records
from runner.errors import Problem, RunnerError
from runner.plan import SourcePlan, Template

CASES = 10_000
BOM = b"\xef\xbb\xbf"
PAIR = b'{"prompt": "Hi?", "completion": "Ho."}'
TEMPLATE = Template(prompt="{{prompt}} {{n}}", completion="{{completion}}", system="{{meta.kind}}")
WORDS = ("Hi?", "Grüße – 🦊", 'say "hi", she\nsaid', "", " ", "\x00", "\\ud83d", "a,b;c\td|e", "{{prompt}}", "x" * 300)
ROLES = (
    "user",
    "assistant",
    "system",
    "tool",
    "developer",
    "asistant",
    "User ",
    "human",
    "gpt",
    "observation",
    7,
    None,
)
ODD: tuple[Any, ...] = (
    None,
    True,
    7,
    2.5,
    [],
    {},
    [[]],
    {"a": {"b": 1}},
    "9" * 30,
    [{"type": "text", "text": "x"}],
    [{"type": "image"}],
)
Make = Callable[[random.Random], Any]


def some(rng: random.Random) -> Any:
    luck = rng.random()
    return rng.choice(WORDS[:3]) if luck < 0.8 else rng.choice(WORDS) if luck < 0.92 else rng.choice(ODD)


def turns(rng: random.Random, role: str, content: str) -> list[Any]:
    roles = ["user", "assistant"] * rng.randint(1, 3)
    made: list[Any] = [{role: r, content: some(rng)} for r in roles]
    if rng.random() < 0.3:
        made.insert(rng.randrange(len(made)), {role: rng.choice(ROLES), content: some(rng)})
    if rng.random() < 0.2:
        made[-1]["tool_calls"] = rng.choice([[{"name": "f", "arguments": "{}"}], [7], "x", {"function": {"name": 1}}])
    if rng.random() < 0.2:
        made[rng.randrange(len(made))]["weight"] = rng.choice([0, 1, 2, "x"])
    if rng.random() < 0.1:
        made[rng.randrange(len(made))] = rng.choice(ODD)
    return made


SHAPES: dict[str, Make] = {
    "chat": lambda rng: {
        "messages": turns(rng, "role", "content"),
        "tools": rng.choice([None, [], [{"name": "f"}], "{"]),
    },
    "sharegpt": lambda rng: {"conversations": turns(rng, "from", "value"), "system": some(rng)},
    "alpaca": lambda rng: {
        "instruction": some(rng),
        "input": some(rng),
        "output": some(rng),
        "history": rng.choice(ODD),
    },
    "prompt_completion": lambda rng: {"prompt": some(rng), "completion": some(rng)},
    "columns": lambda rng: {
        "prompt": some(rng),
        "completion": some(rng),
        "n": rng.choice(ODD),
        "meta": {"kind": some(rng)},
    },
    "odd": lambda rng: rng.choice([*ODD, {"messages": rng.choice(ODD)}, {"prompt": {}, "completion": ODD}]),
}


def as_jsonl(rows: list[Any], rng: random.Random) -> bytes:
    end = rng.choice(["\n", "\n", "\r\n", "\r", "\n\n"])
    ascii_only = rng.random() < 0.5
    return end.join(json.dumps(row, ensure_ascii=ascii_only).replace("\\\\ud", "\\ud") for row in rows).encode()


def as_json(rows: list[Any], rng: random.Random) -> bytes:
    whole = rng.choice([rows, {"data": rows}, {"version": 1, "rows": rows}, {"a": rows, "b": rows}])
    return json.dumps(whole, indent=rng.choice([None, 1])).encode()


def as_table(rows: list[Any], rng: random.Random) -> bytes:
    objects = [row for row in rows if isinstance(row, dict)] or [{"prompt": "a", "completion": "b"}]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(objects[0]), restval="", extrasaction="ignore", delimiter=rng.choice(",;\t|"))
    writer.writeheader()
    writer.writerows(objects)
    return out.getvalue().encode("utf-8", "replace")


def as_parquet(rows: list[Any], rng: random.Random) -> bytes:
    objects = [row for row in rows if isinstance(row, dict)] or [{"prompt": "a", "completion": "b"}]
    packed = rng.choice(["none", "snappy", "zstd"])
    try:
        return packed_table(objects, packed)
    except (pyarrow.ArrowException, UnicodeEncodeError):  # a column of several types, or of empty objects
        return packed_table([{key: str(value) for key, value in row.items()} for row in objects], packed)


def packed_table(rows: list[Any], packed: str) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, compression=packed)
    raw: bytes = sink.getvalue().to_pybytes()
    return raw


CONTAINERS: dict[str, Callable[[list[Any], random.Random], bytes]] = {
    "rows.jsonl": as_jsonl,
    "rows.json": as_json,
    "rows.csv": as_table,
    "rows.tsv": as_table,
    "rows.parquet": as_parquet,
}


def cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randint(0, len(raw))]


def put_in(raw: bytes, rng: random.Random) -> bytes:
    piece = rng.choice(
        [b"\0", b"\xff", b"\r", b"\n", b'"', b"{", b"]", b",", b"\xef\xbb\xbf", b"\\ud83d", b"NaN", b"[" * 5000]
    )
    at = rng.randint(0, len(raw))
    return raw[:at] + piece + raw[at:]


def flip(raw: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(raw)
    for _ in range(min(len(raw), rng.choice([1, 1, 3, 20]))):
        flipped[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def swap(raw: bytes, rng: random.Random) -> bytes:
    old, new = rng.choice(
        [
            (b"assistant", b"asistant"),
            (b"role", b"rol"),
            (b"\n", b"\r\n"),
            (b'"', b"'"),
            (b"}", b"},"),
            (b"prompt", b"completion"),
            (b"messages", b"prompt"),
            (b",", b"\t"),
        ]
    )
    return raw.replace(old, new)


def encode(raw: bytes, rng: random.Random) -> bytes:
    text = raw.decode("utf-8", "replace")
    return rng.choice([b"\xef\xbb\xbf" + raw, text.encode("utf-16"), text.encode("utf-16-le"), text.encode("utf-32")])


HARMS = (
    cut,
    put_in,
    flip,
    swap,
    encode,
    lambda raw, rng: raw,
    lambda raw, rng: gzip.compress(raw, 1),
    lambda raw, rng: cut(gzip.compress(raw, 1), rng),
    lambda raw, rng: flip(gzip.compress(raw, 1), rng),
    lambda raw, rng: b"PAR1" + raw,
    lambda raw, rng: raw + raw,
    lambda raw, rng: b"",
)


def make_case(seed: int) -> tuple[str, bytes, dict[str, Any]]:
    """A file's name and bytes, and how the manifest describes it."""
    rng = random.Random(seed)
    shape = rng.choice([*SHAPES])
    rows = [SHAPES["odd" if rng.random() < 0.1 else shape](rng) for _ in range(rng.randint(1, 8))]
    name = rng.choice([*CONTAINERS])
    raw = CONTAINERS[name](rows, rng)
    for _ in range(rng.choice([0, 1, 1, 2])):
        raw = rng.choice(HARMS)(raw, rng)
    if rng.random() < 0.2:
        name = rng.choice(["rows", "rows.txt", "rows.gz", *CONTAINERS])
    source = {
        "format": rng.choice([*["auto"] * 4, *[shape if shape in FORMATS else "chat"] * 4, rng.choice([*FORMATS])]),
        "template": TEMPLATE if rng.random() < 0.1 or shape == "columns" else None,
        "group_by": rng.choice([*[None] * 8, "prompt", "meta.kind"]),
        "system": rng.choice([None, "Be brief."]),
    }
    return name, raw, source


def read(path: Path, source: dict[str, Any]) -> tuple[list[Row], LocalFile]:
    file = fetch(str(path), path.parent, print)
    return list(read_rows(SourcePlan(source=str(path), **source), file).rows), file


def check(path: Path, source: dict[str, Any]) -> str:
    """Reads a file both ways and checks what must always hold; says how it ended."""
    rows: list[Row] = []
    file: LocalFile | None = None
    problems: tuple[Problem, ...] = ()
    try:
        rows, file = read(path, source)
    except RunnerError as error:
        problems = error.problems
    if file is None:
        assert problems and all(problem.where.path and problem.fix for problem in problems)
        assert all(f"{problem}".encode() and "\n" not in problem.what for problem in problems)
        return problems[0].code
    records = list(read_records(file.path, file.name).records)
    assert [(row.row, row.excerpt) for row in rows] == [(record.row, record.excerpt) for record in records]
    assert len({row.row for row in rows}) == len(rows) and rows
    for row, record in zip(rows, records, strict=True):
        assert (row.example is None) != (row.reason is None) and row.file == str(path) and row.row >= 1
        assert len(row.excerpt) <= 120 and (row.excerpt.isprintable() or not row.excerpt)
        assert record.reason is None or row.reason == record.reason
        assert f"{row}".encode()  # can be written to the ledger
    return "kept" if any(row.example for row in rows) else "rejected"


def run(folder: Path, seeds: range) -> dict[str, int]:
    ends: dict[str, int] = {}
    for seed in seeds:
        name, raw, source = make_case(seed)
        path = folder / name
        path.write_bytes(raw)
        try:
            end = check(path, source)
        except Exception as error:
            raise AssertionError(f"case {seed}: {name} {source} {raw[:300]!r}") from error
        ends[end] = ends.get(end, 0) + 1
    return ends


def test_some_hundred_files_that_were_harmed_end_in_rows_or_in_a_problem(tmp_path: Path) -> None:
    ends = run(tmp_path, range(300))
    assert ends["kept"] > 30 and ends["rejected"] > 30 and len(ends) > 6


@pytest.mark.slow
def test_ten_thousand_files_that_were_harmed_end_in_rows_or_in_a_problem(tmp_path: Path) -> None:
    ends = run(tmp_path, range(300, CASES))
    usual = {
        "data/corrupt",
        "data/empty",
        "data/header",
        "data/unknown-format",
        "data/ambiguous-format",
        "data/not-as-named",
        "data/packed-parquet",
        "data/several-lists",
        "data/unknown-column",
        "data/wrong-format",
        "data/no-template",
        "data/unknown-container",
    }
    assert usual <= ends.keys() <= usual | {"kept", "rejected"}
    assert ends["kept"] > 1000 and ends["rejected"] > 1000


PIECES = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b" ", BOM, b"{", b"}", b"[", b'"', b"\\ud83d", b"NaN", b"9" * 5000, PAIR, PAIR + b"\n"]
)
BYTES = st.one_of(st.binary(max_size=60), st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(raw=BYTES, chunk=st.integers(1, 9) | st.just(1 << 20))
def test_whatever_the_bytes_every_line_that_is_not_blank_becomes_one_row(raw: bytes, chunk: int) -> None:
    raw = PAIR + b"\n{}\n" + raw
    lines = [n for n, line in enumerate(re.split(rb"\r\n|\r|\n", raw), 1) if line.strip()]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.data.reading.lines.CHUNK", chunk)
        (path := Path(folder) / "rows").write_bytes(raw)
        rows = list(read_rows(SourcePlan(source="rows"), fetch(str(path), path.parent, print)).rows)
    assert [row.row for row in rows] == lines
    assert all((row.example is None) != (row.reason is None) for row in rows)


def test_a_folder_is_a_problem_too(tmp_path: Path) -> None:
    assert check(tmp_path, {}) == "data/missing"
    assert check(tmp_path / "missing", {}) == "data/missing"
