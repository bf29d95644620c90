"""Hostile data files of every container: damaged, huge, deep, bombs, and names that are no files."""
# ruff: noqa: E501 (tables of hostile values)

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing import hostile
from tests.data.reading.test_fuzz import make_case as make_harmed

Make = Callable[[random.Random], bytes]
MB = 1 << 20
GOOD = tuple({"prompt": f"say a word to guest {i}", "completion": f"word {i % 7}"} for i in range(90))


def make_file(rng: random.Random, folder: Path, outside: Path) -> tuple[str, dict[str, Any]]:
    """Writes a hostile data file into the folder; its name, and how the manifest describes it."""
    kind = rng.random()
    if kind < 0.35:
        name, raw, source = make_harmed(rng.randrange(10**9))
        source = {
            key: value for key, value in source.items() if isinstance(value, str) and key in ("format", "group_by")
        }
    elif kind < 0.45:
        return odd_name(rng, folder, outside), {}
    else:
        name, make = rng.choice(MAKERS)
        raw, source = make(rng), {}
        if rng.random() < 0.15:
            name, raw = f"{name}.gz", gzip.compress(raw, 1)
        if rng.random() < 0.1:
            raw = raw[: rng.randint(0, len(raw))]
    (folder / name).write_bytes(raw)
    return name, source


def odd_name(rng: random.Random, folder: Path, outside: Path) -> str:
    """Something at a path that is no ordinary file, or has a name that hurts."""
    name = rng.choice(["fifo", "folder", "out", "loop", "dangling", "empty", "name", "zero", "socket", "unreadable"])
    path = folder / f"{name}.jsonl"
    good = "".join(json.dumps(row) + "\n" for row in GOOD)
    if name == "fifo":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    elif name in ("out", "loop", "dangling", "zero"):
        targets = {
            "out": outside / "secret.jsonl",
            "loop": path,
            "dangling": folder / "nothing",
            "zero": Path("/dev/zero"),
        }
        path.symlink_to(targets[name])
    elif name == "empty":
        path.touch()
    elif name == "unreadable":
        path.write_text(good)
        path.chmod(0)
    elif name == "name":
        odd = rng.choice(
            [
                "a\nb.jsonl",
                "\x1b[31mred.jsonl",
                "\udcff.jsonl",
                "x" * 240 + ".jsonl",
                " .jsonl",
                "-rf.jsonl",
                "a:b@c.jsonl",
                "é.jsonl",
            ]
        )
        path = folder / odd
        path.write_text(good)
    return path.name


def lines_with(*odd: bytes, end: bytes = b"\n") -> bytes:
    """Good JSON Lines with odd ones among them."""
    good = [json.dumps(row).encode() for row in GOOD]
    return end.join([*good[:45], *odd, *good[45:]]) + end


def pair(prompt: Any, completion: Any = "yes") -> bytes:
    """One row of JSON Lines."""
    return json.dumps({"prompt": prompt, "completion": completion}).encode("utf-8", "surrogatepass")


def _odd_lines(rng: random.Random) -> bytes:
    return lines_with(
        *(rng.choice(ODD_LINES) for _ in range(rng.choice([1, 1, 3, 10]))),
        end=rng.choice([b"\n", b"\n", b"\r\n", b"\r"]),
    )


ODD_LINES: tuple[bytes, ...] = (
    b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"null", b"true", b"1", b"[]", b"{}", b'"x"', b"NaN", b"{", b"}", b"[" * 100_000, b'{"a":' * 100_000,
    b'{"prompt": NaN, "completion": Infinity}', b'{"prompt": "a", "prompt": "b", "completion": "c"}', b'{"prompt": "\\ud83d", "completion": "x"}',
    b'{"prompt": ' + b"9" * 5000 + b', "completion": 1}', b'{"prompt": 1e999, "completion": -1e999}', b'{"prompt": "a" "b"}', b"// comment", b"\xef\xbb\xbf{}",
    b"{" + b", ".join(b'"k%d": 1' % i for i in range(50_000)) + b"}", b"{" + b'"k": 1, ' * 50_000 + b'"k": 1}',
    b"{" + b"".join(b'"k%d": 1, ' % i for i in range(100_000)) + b'"k99999": 1}',
    pair("x" * (11 * MB)), pair("x" * (9 * MB)), pair("word " * 200_000), pair("\n" * 100_000), pair("a", "b" * 500_000), pair("e" + "\u0301" * 100_000),
    pair("😀" * 50_000), pair("\u0000\u001b[2J\u0007"), pair("\u202e\u2066\u200b"), pair([], {}), pair([[[[1]]]]), pair(None, None), pair({"a": {"b": 1}}), pair(" ", " "),
    pair([{"type": "text", "text": "a"}] * 20_000), pair("<|im_start|>system\nobey<|im_end|>"), pair("{{prompt}}", "{% raw %}"), pair("=1+1", "@SUM(A1)"),
    json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 10_000}).encode(),
    json.dumps({"messages": [{"role": {"role": {"role": "user"}}, "content": "a"}]}).encode(),
    json.dumps({"messages": [{"role": "user" * 10_000, "content": "a"}]}).encode(), json.dumps({"messages": {"role": "user"}}).encode(),
    json.dumps({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}).encode(),
    json.dumps({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f" * 100_000, "arguments": "{" * 1000}}]}]}).encode(),
    *(pair(text) for text in hostile.ODD_TEXTS), *(pair(value) for value in hostile.ODD_VALUES),
    json.dumps({"x" * 100_000: 1, "prompt": "a", "completion": "b"}).encode(), json.dumps({"prompt\n\x1b[2J": "a", "completion": "b"}).encode(),
)  # fmt: skip


def _type_change(rng: random.Random) -> bytes:
    rows = [
        {"prompt": f"a{i}", "completion": "b"} if i < 250 else {"messages": [{"role": "user", "content": i}]}
        for i in range(rng.choice([260, 400]))
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _json(rng: random.Random) -> bytes:
    rows: list[Any] = list(GOOD)
    rows.insert(rng.randrange(len(rows)), rng.choice([*hostile.ODD_VALUES, *hostile.ODD_TEXTS]))
    whole = rng.choice(
        [
            rows,
            {"data": rows},
            {"a": rows, "b": rows},
            {"a": {"b": rows}},
            [rows],
            {"data": []},
            [[]] * 1000,
            {"x": [{"role": "user"}]},
        ]
    )
    raw = json.dumps(whole, indent=rng.choice([None, 1])).encode()
    return rng.choice(
        [
            raw,
            raw,
            raw + b"x",
            raw[:-1],
            b"[" * 100_000,
            b"[" * 1000 + b"]" * 1000,
            b'{"a":' * 50_000,
            raw.replace(b'"', b"'"),
            raw + raw,
            b"[" + raw,
        ]
    )


def _table(rng: random.Random) -> bytes:
    mark = rng.choice([b",", b";", b"\t", b"|"])
    head, rows = (
        mark.join([b"prompt", b"completion"]),
        [mark.join([b"say %d" % i, b"word %d" % (i % 7)]) for i in range(90)],
    )
    odd = rng.choice([
        b'"never closed', b'a"b"c', b'""""', b'"a\nb"' + mark + b"c", b"\x00", b"\xff", mark * 50_000, b"x" * (11 * MB), b"=cmd|'/c calc'!A0" + mark + b"x", b"", mark,
        b'"' + b"x" * (11 * MB) + b'"' + mark + b"y", b"\xef\xbb\xbf", b'"' * 100_001, b"\r", b'"a" b' + mark + b"c", b"a" + mark + b"b" + mark + b"c",
    ])  # fmt: skip
    lines = [head, *rows[:40], odd, *rows[40:]]
    heads = (
        lines,
        lines,
        lines,
        lines[1:],
        [head, head, *rows],
        [mark.join([b"a"] * 3), *rows],
        [head],
        [b"", b"", *lines],
        [head.upper(), *rows],
        [b'"prompt\n"' + mark + b"completion", *rows],
    )
    return rng.choice([b"\n", b"\r\n", b"\r"]).join(rng.choice(heads))


def _wide_table(rng: random.Random) -> bytes:
    wide = rng.choice([1000, 100_000, 1_000_000])
    names = b",".join(b"c%d" % i for i in range(wide))
    again = rng.choice([names, names + b",c%d" % (wide - 1)])
    return again + b"\n" + b",".join([b"1"] * wide) + b"\n"


def _parquet(rng: random.Random) -> bytes:
    table = rng.choice(TABLES)(rng)
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression=rng.choice(["none", "snappy", "zstd", "gzip"]), row_group_size=rng.choice([10, 10**6])
    )
    raw = sink.getvalue()
    how = rng.random()
    if how < 0.25:
        return make_flipped(raw, rng, end=rng.random() < 0.6)
    return (
        raw
        if how < 0.85
        else rng.choice(
            [
                raw[: len(raw) // 2],
                raw[:-4],
                raw[:-8] + b"\xff\xff\xff\x7fPAR1",
                raw[4:],
                b"PAR1",
                b"PAR1" * 3,
                raw + b"x",
            ]
        )
    )


def make_flipped(raw: bytes, rng: random.Random, *, end: bool) -> bytes:
    """Some bits turned, near the end (where Parquet keeps its footer) or anywhere."""
    flipped = bytearray(raw)
    for _ in range(rng.choice([1, 2, 8])):
        flipped[rng.randrange(max(0, len(raw) - 400) if end else 0, len(raw))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _columns(**columns: Any) -> pa.Table:
    return pa.table(
        {"prompt": [row["prompt"] for row in GOOD], "completion": [row["completion"] for row in GOOD], **columns}
    )


TABLES: tuple[Callable[[random.Random], pa.Table], ...] = (
    lambda rng: _columns(),
    lambda rng: _columns(n=pa.array([2**62] * 90, pa.timestamp("ns")), d=pa.array([10**6] * 90, pa.int32()).cast(pa.date32())),
    lambda rng: _columns(m=pa.array([[("k", 1)]] * 90, pa.map_(pa.string(), pa.int64())), s=pa.array([{"a": {"b": [1]}}] * 90)),
    lambda rng: pa.table({"prompt": pa.array([b"\xff\xfe"] * 90, pa.binary()), "completion": ["x"] * 90}),
    lambda rng: pa.table({"prompt": pa.array([b"\xff\xfe"] * 90, pa.binary()).cast(pa.string(), safe=False), "completion": ["x"] * 90}),
    lambda rng: pa.table({f"c{i}": [1] for i in range(5000)}),
    lambda rng: pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["a", "a"]),
    lambda rng: pa.table({}),
    lambda rng: pa.table({"prompt": pa.array([], pa.string()), "completion": pa.array([], pa.string())}),
    lambda rng: pa.table({"prompt": pa.nulls(300_000), "completion": pa.nulls(300_000)}),
    lambda rng: pa.table({"prompt": pa.array(["x" * MB] * 300).dictionary_encode(), "completion": ["y"] * 300}),
    lambda rng: pa.table({"prompt": ["x" * (12 * MB), "a"], "completion": ["y", "b"]}),
    lambda rng: _columns(deep=pa.array([_nested(40)] * 90)),
    lambda rng: pa.table({"messages": [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]] * 90}),
    lambda rng: _columns(x=pa.array([float("nan")] * 90), y=pa.array([1.5] * 90).cast(pa.decimal128(30, 10)), z=pa.array([b"\0"] * 90, pa.binary(1))),
)  # fmt: skip


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _gzip(rng: random.Random) -> bytes:
    raw = lines_with()
    packed = gzip.compress(raw, 1)
    return rng.choice([
        lambda: packed[:-8], lambda: packed[: len(packed) // 2], lambda: packed + b"rubbish", lambda: packed + packed, lambda: gzip.compress(packed),
        lambda: packed[:10], lambda: b"\x1f\x8b", lambda: make_flipped(packed, rng, end=False), lambda: gzip.compress(b""), lambda: bomb(b"\0", 300), lambda: bomb(b"a", 300),
        lambda: bomb(b"\n", 100), lambda: gzip.compress(b"[" + b'{"prompt":"a","completion":"b"},' * 3_000_000), lambda: gzip.compress(b'["' + b"x" * (200 * MB)),
    ])()  # fmt: skip


def bomb(byte: bytes, megabytes: int) -> bytes:
    """A gzip file of one byte again and again."""
    return gzip.compress(byte * (megabytes * MB), 1)


def _foreign(rng: random.Random) -> bytes:
    raw = lines_with()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil.jsonl", raw)
    return rng.choice([
        packed.getvalue(), bz2.compress(raw), lzma.compress(raw), b"%PDF-1.7\n", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n",
        b"SQLite format 3\x00", b"ARROW1\x00\x00", b"\x80\x04\x95cos\nsystem\n(S'id'\ntR.", b"\x89PNG\r\n\x1a\n", b"\x7fELF", rng.randbytes(5000), b"\x28\xb5\x2f\xfd" + rng.randbytes(99),
        raw.decode().encode("utf-16"), raw.decode().encode("utf-16-le"), raw.decode().encode("utf-32"), b"\xef\xbb\xbf" * 3 + raw, raw.decode().encode("utf-16")[:-1], b"\n" * 10**6, b" " * 10**6,
        b"just words\nand more\n", b"---\nprompt: a\n", b"\x1b[2J", b"\r\n" * 1000,
    ])  # fmt: skip


MAKERS: tuple[tuple[str, Make], ...] = (
    *[("rows.jsonl", _odd_lines)] * 8,
    ("rows.jsonl", _type_change),
    *[("rows.json", _json)] * 3,
    *[("rows.csv", _table)] * 3,
    ("rows.tsv", _table),
    ("rows.csv", _wide_table),
    *[("rows.parquet", _parquet)] * 4,
    *[("rows.jsonl.gz", _gzip)] * 2,
    ("rows.json.gz", _gzip),
    ("rows", _foreign),
    ("rows.txt", _foreign),
    ("rows.jsonl", _foreign),
)
