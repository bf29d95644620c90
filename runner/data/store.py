"""Rows on disk, by content: a file is read and checked once, and its examples are fetched when they are asked for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, overload

import numpy as np
import pyarrow as pa

from runner.backends.base import Watch
from runner.conversation import Example, Message
from runner.data.reading import LocalFile, Row, read_rows
from runner.data.split import key_of, split_key
from runner.plan import SourcePlan

BATCH = 1024
VERSION = 5  # of what is made of a row
ROWS = pa.schema({"row": pa.int64(), "excerpt": pa.string(), "reason": pa.string(), "repairs": pa.string()})
EXAMPLES = pa.schema(
    {
        "row": pa.int64(),
        "messages": pa.string(),
        "tools": pa.string(),
        "group": pa.string(),
        "label": pa.string(),
        "question": pa.string(),
    }
)
NUMBERS = ("row", "split_key", "words_key", "question_key", "answer_key")  # of each example, in a file of their own


def _only(*names: str) -> pa.ipc.IpcReadOptions:
    return pa.ipc.IpcReadOptions(included_fields=[EXAMPLES.get_field_index(name) for name in names])


PARTS = _only("row", "messages", "tools", "group", "label")


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file that was read: what it is, and the folder that holds its rows and its usable examples."""

    name: str
    path: str
    container: str
    format: str
    evidence: str
    sha256: str
    num_bytes: int
    num_rows: int
    num_examples: int
    folder: str

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row, in order: row, excerpt, reason (None where there is an example), repairs."""
        for batch in _batches(f"{self.folder}/rows.arrow"):
            yield from batch.to_pylist()

    def numbers(self, name: str) -> np.ndarray:
        """One of NUMBERS for all examples (N,), as uint64."""
        table: np.ndarray = np.load(f"{self.folder}/numbers.npy", mmap_mode="r")
        return np.array(table[NUMBERS.index(name)])

    def texts(self, name: str) -> Iterator[pa.Array]:
        """A column of texts, batch by batch."""
        for batch in _batches(self._examples, _only(name)):
            yield batch.column(0)

    @property
    def _examples(self) -> str:
        return f"{self.folder}/examples.arrow"


class Examples(Sequence[Example]):
    """Examples of stored files in the order of `numbers` (N,), which count through all files; read batch by batch.

    `changed` stands in for single examples, `groups` (all examples,) names each one's group.
    """

    def __init__(
        self,
        files: Sequence[StoredFile],
        numbers: np.ndarray | None = None,
        *,
        groups: np.ndarray | None = None,
        changed: Mapping[int, Example] | None = None,
    ):
        self._files = files
        self._names = short_names([file.name for file in files])
        self._ends = np.cumsum([file.num_examples for file in files])
        self.numbers = np.arange(self._ends[-1] if len(files) else 0) if numbers is None else numbers
        self._groups = groups
        self._changed = changed or {}
        self._held: tuple[tuple[int, int], dict[str, list[Any]]] | None = None

    def select(self, numbers: np.ndarray) -> Examples:
        """The examples of these numbers, in their order."""
        return Examples(self._files, numbers, groups=self._groups, changed=self._changed)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return self.select(self.numbers[index])
        return self._read(int(self.numbers[index]))

    def __iter__(self) -> Iterator[Example]:
        for number in self.numbers:
            yield self._read(int(number))

    def _read(self, number: int) -> Example:
        if number in self._changed:
            return self._changed[number]
        part = int(np.searchsorted(self._ends, number, side="right"))
        file = self._files[part]
        place = number - int(self._ends[part]) + file.num_examples
        values = {name: column[place % BATCH] for name, column in self._batch(part, place // BATCH).items()}
        group = None if self._groups is None else f"{self._groups[number]:016x}"
        return Example(
            messages=tuple(map(_unpacked, json.loads(values["messages"]))),
            source=f"{self._names[part]}:{values['row']}",
            tools=values["tools"],
            group=values["group"] or group,
            label=values["label"],
        )

    def _batch(self, part: int, number: int) -> dict[str, list[Any]]:
        if self._held is None or self._held[0] != (part, number):
            with pa.OSFile(self._files[part]._examples) as file, pa.ipc.open_file(file, options=PARTS) as reader:
                self._held = ((part, number), reader.get_batch(number).to_pydict())
        return self._held[1]


def store_file(source: SourcePlan, file: LocalFile, cache: Path, watch: Watch) -> StoredFile:
    """Reads a file into the cache, or finds it there when the same bytes were read in the same way before.

    Raises RunnerError (65) when the file as a whole cannot be used.
    """
    how = replace(source, source="", weight=1.0)
    key = hashlib.sha256(f"{VERSION} {file.name} {file.sha256} {how}".encode()).hexdigest()[:24]
    folder = cache / "rows" / key
    facts = folder / "facts.json"
    if not facts.is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, suffix=".part"))
        try:
            (part / "facts.json").write_text(json.dumps(_write(source, file, part, watch)), encoding="utf-8")
            folder.mkdir(exist_ok=True)
            for path in sorted(part.iterdir(), key=lambda path: path.name == facts.name):  # the facts come last
                os.replace(path, folder / path.name)  # folders cannot be renamed on mounted object stores
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return StoredFile(
        name=file.name,
        path=str(file.path),
        sha256=file.sha256,
        num_bytes=file.num_bytes,
        folder=str(folder),
        **json.loads(facts.read_text(encoding="utf-8")),
    )


def _write(source: SourcePlan, file: LocalFile, folder: Path, watch: Watch) -> dict[str, Any]:
    """Reads the rows into the folder's two tables; returns what was found out about the file."""
    found = read_rows(source, file)
    num_rows = num_examples = num_bytes = 0
    numbers = {name: array("Q") for name in NUMBERS}
    with (
        pa.ipc.new_file(str(folder / "rows.arrow"), ROWS) as rows,
        pa.ipc.new_file(str(folder / "examples.arrow"), EXAMPLES) as examples,
        watch.progress(f"read {Path(file.name).name}", file.num_bytes) as progress,
    ):
        writer = _Blocks(examples)
        for some in iter(lambda: list(islice(found.rows, BATCH)), []):
            rows.write_batch(pa.RecordBatch.from_pylist([_row_entry(row) for row in some], ROWS))
            entries = [_example_entry(row) for row in some if row.example is not None]
            writer.add(entries)
            for name, values in numbers.items():
                values.extend(entry[name] for entry in entries)
            num_rows += len(some)
            num_examples += len(entries)
            read = min(file.num_bytes - num_bytes, sum(len(entry["messages"]) for entry in entries))  # about
            num_bytes += read
            progress.advance(read, rows=num_rows)
        writer.close()
        np.save(folder / "numbers.npy", np.array([np.frombuffer(numbers[name], np.uint64) for name in NUMBERS]))
        progress.advance(file.num_bytes - num_bytes, rows=num_rows)
    facts = {"container": found.container, "format": found.format, "evidence": found.evidence}
    return {**facts, "num_rows": num_rows, "num_examples": num_examples}


class _Blocks:
    """Writes examples in batches of exactly BATCH, so that the place of the n-th is known."""

    def __init__(self, writer: Any):
        self._writer = writer
        self._waiting: list[dict[str, Any]] = []

    def add(self, entries: list[dict[str, Any]]) -> None:
        self._waiting += entries
        while len(self._waiting) >= BATCH:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(pa.RecordBatch.from_pylist(self._waiting[:BATCH], EXAMPLES))
        del self._waiting[:BATCH]


def _batches(path: str, options: Any = None) -> Iterator[pa.RecordBatch]:
    """Read, not mapped: the mapped pages of a large file would count as memory of ours."""
    with pa.OSFile(path) as file, pa.ipc.open_file(file, options=options) as reader:
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _row_entry(row: Row) -> dict[str, Any]:
    return {"row": row.row, "excerpt": row.excerpt, "reason": row.reason, "repairs": "; ".join(row.repairs) or None}


def _example_entry(row: Row) -> dict[str, Any]:
    example = row.example
    assert example is not None
    question = example.question
    words = split_key(None, question)
    return {
        "row": row.row,
        "messages": json.dumps([_packed(message) for message in example.messages], ensure_ascii=False),
        "tools": example.tools,
        "group": example.group,
        "label": example.label,
        "question": question,
        "split_key": words if example.group is None else split_key(example.group, question),
        "words_key": words,
        "question_key": key_of(f"{_system(example)}\n{question}"),
        "answer_key": key_of(example.expected),
    }


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of each path, as many as tell it from the others."""
    paths = [PurePath(name).parts for name in names]
    short = {}
    for path in set(paths):
        others = [other for other in set(paths) if other != path]
        length = next(n for n in range(1, len(path) + 1) if n == len(path) or all(o[-n:] != path[-n:] for o in others))
        short[path] = "/".join(path[-length:])
    return [short[path] for path in paths]


def _system(example: Example) -> str:
    return "\n".join(message.content for message in example.messages if message.role == "system")


def _packed(message: Message) -> list[Any]:
    return [message.role, message.content, *([message.extras] if message.extras else [])]


def _unpacked(values: list[Any]) -> Message:
    return Message(role=values[0], content=values[1], **(values[2] if len(values) > 2 else {}))
