"""Texts that say nearly the same, found among up to a million in bounded memory.

A text is the set of its words and of its pairs of adjacent words, each weighing the more the fewer texts have it
(inverse document frequency). Words that stand close together in many texts are a template and do not count. Two texts
are as similar as the weight of what they share (Dice coefficient), provided that the shared words weigh too much to be
shared by chance. Texts are compared where they share one of their rarest features. A text is known by
the hash of what it says, never by its place, so the order of the rows cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from runner.data.near.features import LOW, PAIR_BIT, SHIFT, Floats, Index, make_index
from runner.data.near.words import Hashes, Ints, Words, read_words, slices

DEFAULT_SIMILARITY = 0.4
NUM_PASSES = 4
NUM_KEYS = 16  # rarest features by which a text is looked up
NUM_NEIGHBOURS = 24  # texts with the same key that each is compared with
SLACK = 0.4  # share of the similarity that the keys alone must show
CHANCE = 2.5  # nats beyond log(texts), at which chance alone finds one such text, that the shared words must weigh
BLOCK_PAIRS = 1 << 20
BLOCK_FEATURES = 1 << 21
ROUND_WORDS = 1 << 24

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads the texts again and again; a repeat of an earlier text is passed over."""

    batches: Iterable[pa.Array]
    ranks: Ints
    first: Flags
    progress: Callable[[int], None]

    def read(self, wanted: Flags | None = None) -> Iterator[tuple[Ints, Words]]:
        """Ranks and words of the distinct texts, or of those wanted (by rank), slice by slice."""
        stop = 0
        for piece in slices(self.batches):
            start, stop = stop, stop + len(piece)
            ranks, keep = self.ranks[start:stop], self.first[start:stop]
            if wanted is not None:
                keep = keep & wanted[ranks]
            if keep.any():
                yield ranks[keep], read_words(piece.filter(pa.array(keep)))
            self.progress(len(piece))


@dataclass(frozen=True, kw_only=True)
class _Postings:
    """Which texts have which key: keys (K,) in order, their texts by rank (K,), how many of the entries that follow
    each is compared with (K,); and the weight of all keys of each text (N,)."""

    keys: NDArray[np.uint32]
    ranks: NDArray[np.uint32]
    num_partners: NDArray[np.uint8]
    totals: Floats


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """The features of some texts, one text after the other (F,); of each text (by rank) where they start, how many
    they are, and what they weigh (N,)."""

    features: NDArray[np.uint32]
    starts: Ints
    counts: Ints
    totals: Floats


def near_duplicates(
    batches: Iterable[pa.Array],
    similarity: float = DEFAULT_SIMILARITY,
    progress: Callable[[int], None] = lambda num_texts: None,
) -> Ints:
    """Pairs (P, 2), i < j, of texts at least `similarity` alike; a text that repeats an earlier one word for word is
    paired with the first of its kind alone. The batches (string arrays) are read NUM_PASSES times, more when very many
    texts are alike; progress hears of the texts of each reading."""
    ranks, firsts, num_words = _identify(batches, progress)
    first = np.zeros(len(ranks), np.bool_)
    first[firsts] = True
    reader = _Reader(batches=batches, ranks=ranks, first=first, progress=progress)
    index = make_index(reader.read(), len(firsts), int(num_words.sum()))
    candidates = _candidates(_postings(reader, index), index, similarity)
    near = [_verified(part, reader, index, similarity) for part in _rounds(candidates, num_words[firsts])]
    repeats = np.flatnonzero(~first)
    repeated = np.stack([firsts[ranks[repeats]], repeats], axis=1)
    pairs = np.concatenate([repeated, *(np.sort(firsts[part], axis=1) for part in near)])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def clusters(num_texts: int, pairs: Ints) -> NDArray[np.int32]:
    """The cluster of each text (N,): texts joined by pairs, directly or through others, have the same number."""
    links = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(num_texts, num_texts))
    labels: NDArray[np.int32] = connected_components(links, directed=False)[1].astype(np.int32)
    return labels


def _identify(batches: Iterable[pa.Array], progress: Callable[[int], None]) -> tuple[Ints, Ints, Ints]:
    """The rank of each row's text among the distinct texts (by hash), the first row of each rank, words of each row."""
    hashes, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for piece in slices(batches):
        words = read_words(piece)
        hashes.append(words.texts)
        counts.append(np.bincount(words.owners, minlength=len(piece)))
        progress(len(piece))
    _, firsts, ranks = np.unique(np.concatenate(hashes), return_index=True, return_inverse=True)
    return ranks, firsts, np.concatenate(counts)


def _postings(reader: _Reader, index: Index) -> _Postings:
    """The rarest features of each text, of those that another text has too."""
    entries, size = np.empty(index.num_texts * NUM_KEYS, np.uint64), 0
    totals = np.zeros(index.num_texts)
    for ranks, words in reader.read():
        owners, features = _rarest(*index.features(words), index)
        totals[ranks] = np.bincount(owners, index.weights(features), len(ranks))
        entries[size : size + len(owners)] = (features << SHIFT) | ranks[owners].astype(np.uint64)
        size += len(owners)
    entries = entries[:size]
    entries.sort()
    keys = (entries >> SHIFT).astype(np.uint32)
    num_partners = np.zeros(size, np.uint8)
    for i in range(1, NUM_NEIGHBOURS + 1):
        num_partners[:-i] += keys[i:] == keys[:-i]
    return _Postings(keys=keys, ranks=entries.astype(np.uint32), num_partners=num_partners, totals=totals)


def _rarest(owners: Ints, features: Hashes, index: Index) -> tuple[Ints, Hashes]:
    """Of each text the NUM_KEYS features that the fewest texts have, but at least two."""
    counts = index.counts(features)
    shared = np.flatnonzero(counts > 1)
    place = owners[shared].astype(np.uint64) << np.uint64(48)
    order = np.sort(place | (counts[shared].astype(np.uint64) << SHIFT) | features[shared])
    owners = (order >> np.uint64(48)).astype(np.int64)
    chosen = _within(np.bincount(owners)) < NUM_KEYS
    return owners[chosen], order[chosen] & LOW


def _candidates(postings: _Postings, index: Index, similarity: float) -> Ints:
    """Pairs of ranks (P, 2) whose keys are alike enough to compare the texts."""
    num_pairs = np.zeros(index.num_texts, np.int64)
    for i in range(0, len(postings.ranks), BLOCK_PAIRS):
        np.add.at(num_pairs, postings.ranks[i : i + BLOCK_PAIRS], postings.num_partners[i : i + BLOCK_PAIRS])
    upto, found, start = np.cumsum(num_pairs), [np.zeros((0, 2), np.int64)], 0
    while start < index.num_texts:
        stop = int(np.searchsorted(upto, upto[start] + BLOCK_PAIRS, side="right"))
        own = np.flatnonzero((postings.ranks >= start) & (postings.ranks < stop))
        counts = postings.num_partners[own].astype(np.int64)
        left = np.repeat(own, counts)
        right = left + _within(counts) + 1
        pairs = (postings.ranks[left].astype(np.int64) << 32) | postings.ranks[right]
        both, inverse = np.unique(pairs, return_inverse=True)
        shared = np.bincount(inverse, index.weights(postings.keys[left].astype(np.uint64)), len(both))
        ranks = np.stack([both >> 32, both & 0xFFFF_FFFF], axis=1)
        found.append(ranks[2 * shared >= SLACK * similarity * postings.totals[ranks].sum(axis=1)])
        start = stop
    return np.concatenate(found)


def _rounds(pairs: Ints, num_words: Ints) -> Iterator[Ints]:
    """The pairs, as many at a time as have their words in memory together."""
    rounds = np.cumsum(num_words[pairs].sum(axis=1)) // ROUND_WORDS
    yield from np.split(pairs, np.flatnonzero(np.diff(rounds)) + 1)


def _verified(pairs: Ints, reader: _Reader, index: Index, similarity: float) -> Ints:
    """Those of the pairs that are similar."""
    wanted = np.zeros(index.num_texts, np.bool_)
    wanted[pairs] = True
    texts = _gather(reader, index, wanted)
    blocks = np.cumsum(texts.counts[pairs].sum(axis=1)) // BLOCK_FEATURES
    kept = [np.zeros((0, 2), np.int64)]
    for block in np.split(pairs, np.flatnonzero(np.diff(blocks)) + 1):
        owners, shared = _common(texts, block)
        weights = index.weights(shared)
        weight = np.bincount(owners, weights, len(block))
        words_weight = np.bincount(owners, np.where(shared & PAIR_BIT, 0.0, weights), len(block))
        alike = 2 * weight >= similarity * texts.totals[block].sum(axis=1)
        kept.append(block[alike & (words_weight >= np.log(max(index.num_texts, 1)) + CHANCE)])
    return np.concatenate(kept)


def _gather(reader: _Reader, index: Index, wanted: Flags) -> _Texts:
    """The features of the texts wanted (by rank)."""
    features, starts, size = [np.zeros(0, np.uint32)], np.zeros(len(wanted), np.int64), 0
    counts, totals = np.zeros(len(wanted), np.int64), np.zeros(len(wanted))
    for ranks, words in reader.read(wanted):
        owners, part = index.features(words)
        counts[ranks] = np.bincount(owners, minlength=len(ranks))
        totals[ranks] = np.bincount(owners, index.weights(part), len(ranks))
        starts[ranks] = size + np.cumsum(counts[ranks]) - counts[ranks]
        features.append(part.astype(np.uint32))
        size += len(part)
    return _Texts(features=np.concatenate(features), starts=starts, counts=counts, totals=totals)


def _common(texts: _Texts, pairs: Ints) -> tuple[Ints, Hashes]:
    """The features that both texts of a pair have: the number of the pair, and the feature."""
    sides = []
    for ranks in pairs.T:
        counts = texts.counts[ranks]
        owners = np.repeat(np.arange(len(ranks), dtype=np.uint64), counts)
        features = texts.features[np.repeat(texts.starts[ranks], counts) + _within(counts)]
        sides.append((owners << SHIFT) | features)
    both = np.sort(np.concatenate(sides))
    twice = both[1:][both[1:] == both[:-1]]
    return (twice >> SHIFT).astype(np.int64), twice & LOW


def _within(counts: Ints) -> Ints:
    """0 ... c - 1 for each count c, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
