"""Encoded rows on disk, by content: what was tokenized once is not tokenized again, in this run or a later one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import transformers
from datasets import Dataset

from runner.backends.base import TokenCounts, Watch
from runner.backends.local.encode import Encoded, encode
from runner.conversation import Example
from runner.files import make_readable

BATCH, AHEAD = 256, 2
BATCH_CHARACTERS = 4 << 20  # of the rows of one batch; a single row may be longer
VERSION = 3  # of what `encode` makes of a row
SCHEMA = pa.schema(
    {"input_ids": pa.list_(pa.int32()), "spans": pa.list_(pa.int32()), "labelled": pa.int32(), "problem": pa.string()}
)


class EncodedRows(Sequence[Encoded]):
    """Rows of a memory-mapped Arrow file, in the order asked for."""

    def __init__(self, path: Path, keys: np.ndarray, places: np.ndarray | None = None):
        self._path = path
        self._dataset = Dataset.from_file(str(path))
        self._keys = keys
        self._places = np.arange(len(keys)) if places is None else places
        table = self._dataset.data
        reasons = table.column("problem")
        problems = {int(i): reasons[i].as_py() for i in np.flatnonzero(reasons.is_valid().to_numpy())}
        self._counts = TokenCounts(
            total=pa.compute.list_value_length(table.column("input_ids")).to_numpy(),
            labelled=table.column("labelled").to_numpy(),
            problems=problems,
        )

    @classmethod
    def open(cls, saved: Mapping[str, str]) -> EncodedRows:
        """The rows that `save` wrote down; other processes read them so."""
        with np.load(saved["places"]) as held:
            return cls(Path(saved["path"]), held["keys"], held["places"])

    def save(self, path: Path) -> Mapping[str, str]:
        """Writes down which rows of which file these are."""
        np.savez(path, keys=self._keys, places=self._places)
        return {"path": str(self._path.resolve()), "places": str(path.resolve())}

    @property
    def fingerprint(self) -> str:
        """A name for the rows: which, in what order, and how long in tokens."""
        counts = self.counts
        digest = hashlib.sha256(self._keys[self._places].tobytes())
        digest.update(counts.total.tobytes() + counts.labelled.tobytes())
        return digest.hexdigest()[:16]

    @property
    def counts(self) -> TokenCounts:
        """Token counts of every row, in order."""
        number = {int(place): i for i, place in enumerate(self._places)} if self._counts.problems else {}
        problems = {number[i]: reason for i, reason in self._counts.problems.items() if i in number}
        return TokenCounts(
            total=self._counts.total[self._places], labelled=self._counts.labelled[self._places], problems=problems
        )

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            rows = self._dataset[self._places[index].tolist()]
            return [as_encoded(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]
        return as_encoded(self._dataset[int(self._places[index])])

    def select(self, examples: Sequence[Example]) -> EncodedRows | None:
        """The rows of these examples; None when one of them is not here."""
        asked, order = _keys(examples), np.argsort(self._keys, kind="stable")
        found = np.minimum(np.searchsorted(self._keys, asked, sorter=order), len(order) - 1)
        places = order[found]
        known = bool((self._keys[places] == asked).all())
        return EncodedRows(self._path, self._keys, places) if known else None


def as_encoded(row: Mapping[str, Any]) -> Encoded:
    """A row of the file."""
    return Encoded(row["input_ids"], list(zip(row["spans"][::2], row["spans"][1::2], strict=True)))


def encode_rows(
    tokenizer: Any, examples: Sequence[Example], stop_ids: frozenset[int], cache: Path, watch: Watch
) -> EncodedRows:
    """Encodes the examples into a file of the cache, or opens that file when the same rows were encoded before."""
    keys = _keys(examples)
    path = cache / "encoded" / f"{_fingerprint(tokenizer, stop_ids, keys)}.arrow"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            try:
                _write(part, tokenizer, examples, stop_ids, watch)
            except BaseException:
                os.unlink(part.name)
                raise
        make_readable(part.name)
        os.replace(part.name, path)
    return EncodedRows(path, keys)


def _write(part: Any, tokenizer: Any, examples: Sequence[Example], stop_ids: frozenset[int], watch: Watch) -> None:
    with pa.ipc.new_stream(part, SCHEMA) as writer, watch.progress("tokens", len(examples)) as progress:
        for rows in _encoded_ahead(tokenizer, iter(examples), stop_ids):
            kept = [Encoded([], []) if isinstance(row, str) else row for row in rows]
            columns = [
                _lists([row.input_ids for row in kept]),
                _lists([list(chain.from_iterable(row.spans)) for row in kept]),
                pa.array([row.num_labelled for row in kept], pa.int32()),
                pa.array([row if isinstance(row, str) else None for row in rows], pa.string()),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
            progress.advance(len(rows))


def _lists(rows: list[list[int]]) -> pa.ListArray:
    """Made from one flat array, which takes a third of the time that lists do."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, np.fromiter(chain.from_iterable(rows), np.int32, int(ends[-1])))


def _encoded_ahead(
    tokenizer: Any, examples: Iterator[Example], stop_ids: frozenset[int]
) -> Iterator[list[Encoded | str]]:
    """Encodes two batches ahead in threads: the tokenizer works without Python's lock while rows are written."""
    with ThreadPoolExecutor(AHEAD) as pool:
        waiting: deque[Future[list[Encoded | str]]] = deque()
        for some in _batches(examples):
            waiting.append(pool.submit(encode, tokenizer, some, stop_ids))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batches(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """So many rows at a time, and of long ones no more than memory is for."""
    some: list[Example] = []
    num_characters = 0
    for example in examples:
        length = sum(len(message.content) for message in example.messages)
        if some and (len(some) == BATCH or num_characters + length > BATCH_CHARACTERS):
            yield some
            some, num_characters = [], 0
        some.append(example)
        num_characters += length
    if some:
        yield some


def _keys(examples: Sequence[Example]) -> np.ndarray:
    """The examples' ids (N,) as numbers."""
    return np.fromiter((int(example.id, 16) for example in examples), np.uint64, len(examples))


def _fingerprint(tokenizer: Any, stop_ids: frozenset[int], keys: np.ndarray) -> str:
    """Names what the tokens follow from: the tokenizer, its template, the stop tokens and the rows."""
    digest = hashlib.sha256(f"{VERSION} {sorted(stop_ids)} {tokenizer.bos_token_id}".encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    template = str(tokenizer.chat_template)
    today = date.today().isoformat() if "strftime_now" in template else ""
    digest.update(f"{template} {tokenizer.special_tokens_map} {transformers.__version__} {today}".encode())
    digest.update(keys.tobytes())
    return digest.hexdigest()[:24]
