"""Texts -> hashed words: case, white space, punctuation and Unicode spelling make no difference."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SLICE_BYTES = 1 << 18  # small enough for the working arrays, about 60 bytes for each of these, to stay near the core
SLICE_TEXTS = 1 << 15
SEPARATOR, LETTER, ALONE = 0, 1, 2
OPERATORS = "#%&*/@\\^"  # Unicode calls these punctuation, but 3*4 is not 3/4
UNSPACED = (  # scripts written without spaces between words: each character counts as a word
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)  # fmt: skip
BASE = 0x9E3779B97F4A7C15  # odd, so that its powers can be divided out modulo 2**64

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of some texts, one after the other: 32-bit hashes in uint64 (W,), the text each belongs to (W,), and a
    64-bit hash of each whole text (T,), equal for texts that read the same."""

    hashes: Hashes
    owners: Ints
    texts: Hashes


def slices(batches: Iterable[pa.Array]) -> Iterator[pa.Array]:
    """The same texts in the same order, in pieces that fit the working memory; a longer text is a piece of its own."""
    for batch in batches:
        ends = np.cumsum(pc.binary_length(batch).to_numpy(zero_copy_only=False).astype(np.int64))
        start = 0
        while start < len(batch):
            before = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, before + SLICE_BYTES, side="right"))
            stop = min(max(stop, start + 1), start + SLICE_TEXTS)
            yield batch.slice(start, stop - start)
            start = stop


def read_words(texts: pa.Array) -> Words:
    """The words of each text; a text of punctuation alone has none, and equals only texts of the same punctuation."""
    plain = [unicodedata.normalize("NFKC", text).casefold() for text in texts.to_pylist()]
    points = np.frombuffer("\n".join([*plain, ""]).encode("utf-32-le"), np.uint32)
    ends = np.cumsum(np.fromiter(map(len, plain), np.int64, len(plain)) + 1)
    kinds = _kinds()[points]
    first = kinds > SEPARATOR
    first[1:] &= (kinds[1:] != LETTER) | (kinds[:-1] != LETTER)
    starts = np.flatnonzero(first)
    words = _polynomial(np.where(kinds, points, np.uint32(0)), starts)
    owners = np.searchsorted(ends, starts, side="right")
    counts = np.bincount(owners, minlength=len(plain))
    whole = np.zeros(len(plain), np.uint64)
    some = np.flatnonzero(counts)
    whole[some] = _polynomial(words, (np.cumsum(counts) - counts)[some])
    for i in np.flatnonzero(counts == 0).tolist():
        whole[i] = int.from_bytes(hashlib.sha256("".join(plain[i].split()).encode()).digest()[:8], "big")
    return Words(hashes=words >> np.uint64(32), owners=owners, texts=whole)


def mix(values: Hashes) -> Hashes:
    """Each value scattered over 64 bits (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _polynomial(values: NDArray[np.unsignedinteger], starts: Ints) -> Hashes:
    """A hash of the run of values from each start to the next, wherever in the array the run stands."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    sums = np.add.reduceat(values * _powers(BASE, len(values)), starts)
    return mix(sums * _powers(pow(BASE, -1, 1 << 64), len(values))[starts])


def _powers(base: int, num: int) -> Hashes:
    """base**0 ... base**(num - 1), modulo 2**64."""
    common = 2 * SLICE_BYTES
    return (_power_table(base, common) if num <= common else _power_table.__wrapped__(base, num))[:num]


@cache
def _power_table(base: int, num: int) -> Hashes:
    powers = np.full(num, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


@cache
def _kinds() -> NDArray[np.uint8]:
    """What each code point is: a separator, a letter of a word, or a word of its own."""
    by_category = {"L": LETTER, "M": LETTER, "N": LETTER, "S": ALONE}
    kinds = np.zeros(0x110000, np.uint8)
    for point in (*range(0x33480), *range(0xE0000, 0xE0200)):
        category = unicodedata.category(chr(point))
        kinds[point] = SEPARATOR if category == "Sk" else by_category.get(category[0], SEPARATOR)
    for start, stop in UNSPACED:
        kinds[start : stop + 1] *= ALONE  # a letter becomes a word; a symbol would become 4
    kinds[kinds > ALONE] = ALONE
    kinds[[ord(character) for character in OPERATORS]] = ALONE
    return kinds
