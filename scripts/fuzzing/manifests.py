"""Hostile manifests: shipped ones and one with every key, changed by what the schema says, by hand, or byte by byte."""
# ruff: noqa: E501 (tables of hostile values)

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fuzzing import hostile

ROOT = Path(__file__).parents[2]
Path_ = tuple[str | int, ...]
FILES = re.compile(r"(train|dev|test|source|json_schema|human)$")
LARGEST = 300_000  # bytes; a little more than a manifest may have


@cache
def shipped() -> tuple[Mapping[str, Any], ...]:
    """The manifests of the repository as plain data."""
    paths = sorted((ROOT / "manifests").glob("*.yaml"))
    return tuple(yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths)


@cache
def schema() -> Mapping[str, Any]:
    """The manifest's schema."""
    read: Mapping[str, Any] = json.loads((ROOT / "schemas" / "manifest.schema.json").read_text(encoding="utf-8"))
    return read


def filled(entry: Mapping[str, Any], rng: random.Random, depth: int = 0) -> Any:
    """A value that the schema allows, with most of its optional keys."""
    entry = schema()["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
    if "properties" in entry and rng.random() < 0.9:
        wanted = [key for key in entry["properties"] if key in entry.get("required", ()) or rng.random() < 0.7]
        return {key: filled(entry["properties"][key], rng, depth + 1) for key in wanted}
    if "enum" in entry:
        return rng.choice(entry["enum"])
    return rng.choice([*entry.get("examples", []), entry.get("default")])


def make_manifest(rng: random.Random, model: str, paths: tuple[str, ...]) -> tuple[bytes, list[str]]:
    """The bytes of a manifest, and the arguments of `--set` that go with it."""
    kind = rng.random()
    if kind < 0.06:
        return rng.randbytes(rng.choice([0, 1, 7, 100, 5000])), []
    if kind < 0.10:
        return "".join(rng.choice(TOKENS) for _ in range(rng.randint(1, 200))).encode("utf-8", "surrogatepass"), []
    tree: Any = json.loads(json.dumps(rng.choice(shipped()))) if rng.random() < 0.75 else filled(schema(), rng)
    tree = tree if isinstance(tree, dict) else {"name": "fuzz"}
    if isinstance(tree.get("approach"), dict):
        tree["approach"] |= {"model": model, "kind": rng.choice(["lora", "lora", "qlora", "full"])}
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        rng.choice(CHANGES)(tree, rng, paths)
    sets = [assignment(rng, tree) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    raw = written(tree, rng)
    if rng.random() < 0.35:
        raw = rng.choice(HARMS)(raw, rng)
    return raw[:LARGEST], sets


def written(tree: Any, rng: random.Random) -> bytes:
    """The tree as YAML or JSON, in one of their styles; numbers and texts of any size."""
    style = rng.random()
    if style < 0.5:
        return json.dumps(tree, indent=rng.choice([None, 1, 4]), ensure_ascii=rng.random() < 0.7).encode(
            "utf-8", "surrogatepass"
        )
    flow, wide = rng.choice([None, False, True]), rng.choice([20, 80, 10**6])
    return yaml.safe_dump(tree, default_flow_style=flow, width=wide, allow_unicode=rng.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def assignment(rng: random.Random, tree: Any) -> str:
    """An argument of `--set`: hostile as a whole, or a hostile value for a key."""
    if rng.random() < 0.4:
        return rng.choice(hostile.ODD_ASSIGNMENTS)
    path, _ = rng.choice([*leaves(tree)] or [(("name",), "")])
    value = rng.choice([*hostile.ODD_TEXTS, *map(json.dumps, hostile.ODD_VALUES)])
    return f"{'.'.join(map(str, path))}={value}"


def leaves(tree: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every key path with its value, groups and lists too."""
    if path:
        yield path, tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from leaves(value, (*path, key))


def _holder(tree: Any, path: Path_) -> Any:
    for part in path[:-1]:
        tree = tree[part]
    return tree


def _some(tree: Any, rng: random.Random) -> tuple[Any, Any]:
    """The group or list of some key, and that key."""
    path, _ = rng.choice([*leaves(tree)] or [(("name",), None)])
    return _holder(tree, path), path[-1]


def put_odd(tree: Any, rng: random.Random, paths: tuple[str, ...]) -> None:
    """A value of the wrong type, or far too large."""
    holder, key = _some(tree, rng)
    holder[key] = rng.choice([rng.choice(hostile.ODD_VALUES), rng.choice(hostile.ODD_TEXTS)])


def put_large(tree: Any, rng: random.Random, paths: tuple[str, ...]) -> None:
    """Something wide or deep."""
    holder, key = _some(tree, rng)
    deep: Any = 1
    for _ in range(rng.choice([20, 31, 60, 150])):
        deep = rng.choice([[deep], {"a": deep}])
    many = rng.choice([50, 500, 3000])
    holder[key] = rng.choice([deep, [1] * many, [{"a": i} for i in range(many)], {f"key_{i}": i for i in range(many)}])


def put_path(tree: Any, rng: random.Random, paths: tuple[str, ...]) -> None:
    """A hostile path where a file is named."""
    named = [path for path, value in leaves(tree) if FILES.search(str(path[-1])) and not isinstance(value, dict)]
    path = rng.choice(named or [("data",)])
    value: Any = rng.choice(paths)
    value = rng.choice([value, value, [value], {"source": value}, [value, rng.choice(paths)]])
    _holder(tree, path)[path[-1]] = value
    if rng.random() < 0.2 and isinstance(tree.get("eval", {}), dict):
        tree.setdefault("eval", {})[rng.choice(["json_schema", "human", "embedding"])] = rng.choice(paths)


def put_model(tree: Any, rng: random.Random, paths: tuple[str, ...]) -> None:
    """A model, or a metric of one's own, with an odd name."""
    if isinstance(tree.get("approach"), dict):
        tree["approach"]["model"] = rng.choice([*hostile.ODD_MODELS, *paths])
    if rng.random() < 0.5 and isinstance(tree.get("eval", {}), dict):
        tree.setdefault("eval", {})["metrics"] = [{"python": rng.choice(hostile.ODD_METRICS)}, "exact_match"]


def put_pattern(tree: Any, rng: random.Random, paths: tuple[str, ...]) -> None:
    """A regular expression that is none, or takes for ever; and a template with odd braces."""
    pattern = rng.choice(hostile.ODD_PATTERNS)
    if isinstance(tree.get("eval", {}), dict):
        tree.setdefault("eval", {}).update({"metrics": ["regex"], "pattern": pattern})
    if rng.random() < 0.5 and isinstance(tree.get("data"), dict):
        fields = ("prompt", "completion", "system")
        tree["data"]["template"] = {name: rng.choice([*hostile.ODD_TEXTS, "{{prompt}}"]) for name in fields}


def put_limit(tree: Any, rng: random.Random, paths: tuple[str, ...]) -> None:
    """A number at, or just beyond, a limit of the schema."""
    sections = [name for name, entry in schema()["properties"].items() if "properties" in entry]
    section = rng.choice(sections)
    limited = [
        (key, entry[name], name)
        for key, entry in schema()["properties"][section]["properties"].items()
        for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        if name in entry
    ]
    if limited and isinstance(tree.setdefault(section, {}), dict):
        key, limit, name = rng.choice(limited)
        beyond = -1 if "inimum" in name else 1
        tree[section][key] = rng.choice(
            [limit, limit + beyond, limit - beyond, limit + beyond * 1e-9, float(limit), str(limit)]
        )


def move(tree: Any, rng: random.Random, paths: tuple[str, ...]) -> None:
    """A key is gone, misspelt, unknown, or another's value."""
    holder, key = _some(tree, rng)
    how = rng.random()
    value = holder.pop(key)
    if isinstance(holder, dict) and how < 0.7:
        written = str(key)
        place = rng.randint(0, len(written))
        odd = rng.choice(
            [written.upper(), written + "s", written[:place] + written[place + 1 :], rng.choice(hostile.ODD_TEXTS)]
        )
        holder[odd if how < 0.5 else written] = value if how < 0.5 else {odd: value}


CHANGES: tuple[Callable[[Any, random.Random, tuple[str, ...]], None], ...] = (
    put_odd, put_odd, put_large, put_path, put_path, put_path, put_model, put_pattern, put_limit, put_limit, move,
)  # fmt: skip


def _insert(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(raw))
    return raw[:at] + rng.choice(PIECES) + raw[at:]


def _line(raw: bytes, rng: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True) or [b""]
    at = rng.randint(0, len(lines))
    return b"".join([*lines[:at], rng.choice(LINES) + b"\n", *lines[at:]])


def _flip(raw: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(raw)
    for _ in range(rng.choice([1, 3, 30]) if raw else 0):
        flipped[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _twice(raw: bytes, rng: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True) or [b""]
    chosen = rng.choice(lines)
    return b"".join([*lines, chosen]) if rng.random() < 0.5 else raw.replace(chosen, chosen + chosen, 1)


HARMS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _insert, _insert, _line, _line, _line, _flip, _twice,
    lambda raw, rng: raw[: rng.randint(0, len(raw))],
    lambda raw, rng: raw.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b"\n\t", "\u2028".encode()])),
    lambda raw, rng: raw.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-16-be", "utf-32", "cp1252", "utf-7"]), "replace"),
    lambda raw, rng: b"\xef\xbb\xbf" * rng.choice([1, 2]) + raw,
    lambda raw, rng: raw + rng.choice([b"[", b"{", b"- ", b"{a: ", b"? "]) * rng.choice([100, 100_000]),
    lambda raw, rng: raw + b"".join(b"k%d: %d\n" % (i, i) for i in range(rng.choice([300, 20_000]))),
    lambda raw, rng: raw + rng.choice([b"#", b" ", b"x", b"\n", b'"', b"\xff"]) * 250_000,
    lambda raw, rng: raw + b"\nbomb: " + BOMB,
)  # fmt: skip
BOMB = b"\n".join(
    [b"&a0 [x, x]", *(b"b%d: &a%d [*a%d, *a%d, *a%d, *a%d]" % (i, i, *[i - 1] * 4) for i in range(1, 30))]
)
PIECES = (
    b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x1b[2J", b"\x07", b"\x85", b"\xe2\x80\xa8", b"\t", b"\r", b"\n---\n", b"\n...\n", b"'", b'"', b"[", b"]",
    b"{", b"}", b": ", b" #", b"&a ", b"*a", b"!!int ", b"!", b"%", b"@", b"|", b">", b"\\ud800", b"\\U00110000", b"\\UFFFFFFFF", b"\\x00", b"\\", b"?", b"- ",
    b"9" * 5000, b"0x" + b"f" * 5000, b"1e999999999", b"." * 5000, b"x" * 120_000,
)  # fmt: skip
LINES = (
    b"!!python/object/apply:os.system ['id']", b"x: !!python/name:os.system", b"a: !include /etc/passwd", b"a: !!binary Zm9v", b"a: !!set {x, y}",
    b"<<: {name: merged}", b"<<: *a", b"a: &a [*a]", b"a: &a b", b"%YAML 9.9", b"%YAML 1.99999999999999999999", b"%TAG ! tag:x,2000:", b"---", b"...", b"name: twice",
    b"name : x", b"'name': x", b'"\\x6eame": x', b"? name\n: x", b"? [a]\n: b", b"? {a: b}\n: c", b"1: x", b"null: x", b"true: x", b"1.5: x", b"~: x", b"[]: x", b": x", b"-", b"-a",
    b"seed: " + b"9" * 5000, b"seed: 0x" + b"f" * 5000, b"seed: 1e400", b"seed: .nan", b"seed: -.inf", b"seed: 1:30", b"seed: 017", b"seed: 0b11", b"seed: 2026-01-02",
    b"trust_remote_code: true", b"api_key: sk-" + b"a" * 40, b"\ttab: x", b"  indented: x", b"name: |\n\n\n  x", b"name: >-2\n x", b"name: |9\n x", b"k" * 2000 + b": 1", b"x: '", b'x: "',
)  # fmt: skip
TOKENS = (
    "name", "data", "train", "approach", ": ", ":", " ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", "'", '"', "#", "&a ", "*a", "!!str ", "!", "|", ">", "---\n", "...\n",
    "%YAML 1.1\n", "? ", "<<", "null", "1", "1e5", "\t", "\r", "\x00", "\ud800", "\u2028", "é", "\ufeff", "\\", "\x7f", "@", "`", "=",
)  # fmt: skip
