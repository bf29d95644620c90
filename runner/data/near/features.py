"""What a text is compared by: its words and its pairs of adjacent words, and how much each weighs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.data.near.words import Hashes, Ints, Words, mix

TEMPLATE_SHARE, TEMPLATE_TEXTS = 0.015, 30  # two words that stand together in so many texts belong to a template,
TEMPLATE_LIFT = 0.5  # unless each is so common that they would be in that many texts together anyway
DISTANCES = (1, 2)  # a slot of one word lies between the words of a template
SAMPLE_TEXTS = 10_000  # enough to see a template
MOST = 65_535  # counted no further: what so many texts have weighs nothing
MIN_TABLE_BITS, MAX_TABLE_BITS = 16, 27
LOW = np.uint64(0xFFFF_FFFF)
SHIFT = np.uint64(32)
PAIR_BIT = np.uint64(1 << 31)  # a feature is a 32-bit hash; this bit tells two adjacent words from one

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Index:
    """What is known of all texts: how many there are, how many have each feature (by hash), the words that may
    make a template, by two (C,), and the share of the texts in which they stand together (C,)."""

    num_texts: int
    table: NDArray[np.uint16]
    companions: NDArray[np.uint32]
    shares: Floats

    def counts(self, features: Hashes) -> Ints:
        """How many texts have each feature; a little too many where two features share a place in the table."""
        return self.table[_places(features, self.table)].astype(np.int64)

    def weights(self, features: Hashes) -> Floats:
        """Inverse document frequency, in nats."""
        counts = self.counts(features)
        return np.where(counts < MOST, np.log((self.num_texts + 1) / np.maximum(counts, 1)), 0.0)

    def features(self, words: Words) -> tuple[Ints, Hashes]:
        """The features of each text that do not belong to a template, once each: its number, and the feature."""
        free = np.ones(len(words.hashes), np.bool_)
        for distance in DISTANCES if len(self.companions) else ():
            left = self._template(words, distance)
            free[left] = free[left + distance] = False
        return _once_each(*_features(words, free))

    def _template(self, words: Words, distance: int) -> Ints:
        """Where a word and the one so far to its right are of a template."""
        hint = np.zeros(1 << 16, np.bool_)  # few words have companions, and a search for each would take long
        hint[self.companions >> 16] = True
        left = np.flatnonzero(words.owners[:-distance] == words.owners[distance:])
        both = _companions(words, left, distance)
        hinted = hint[both >> 16]
        left, both = left[hinted], both[hinted]
        nearest = np.minimum(np.searchsorted(self.companions, both), len(self.companions) - 1)
        known = self.companions[nearest] == both
        left, together = left[known], self.shares[nearest[known]]
        apart = self._share(words.hashes[left]) * self._share(words.hashes[left + distance])
        template: Ints = left[together >= TEMPLATE_LIFT * apart]
        return template

    def _share(self, words: Hashes) -> Floats:
        return self.counts(words & ~PAIR_BIT) / self.num_texts


def make_index(texts: Iterable[tuple[Ints, Words]], num_texts: int, num_words: int) -> Index:
    """Counts the features of texts that come with their ranks in an order by hash, so that the first are a sample."""
    bits = (4 * num_words).bit_length()
    table = np.zeros(1 << min(MAX_TABLE_BITS, max(MIN_TABLE_BITS, bits)), np.uint16)
    sample = [np.zeros(0, np.uint32)]
    for ranks, words in texts:
        _, features = _once_each(*_features(words, np.ones(len(words.hashes), np.bool_)))
        places = np.sort(_places(features, table))
        changes = np.flatnonzero(np.diff(places, prepend=-1))
        counts = np.diff(changes, append=len(places))
        table[places[changes]] = np.minimum(table[places[changes]] + counts, MOST)
        sample += [_once_each(*part)[1].astype(np.uint32) for part in _sampled(words, ranks < SAMPLE_TEXTS)]
    companions, counts = np.unique(np.concatenate(sample), return_counts=True)
    num_sampled = min(num_texts, SAMPLE_TEXTS)
    many = counts >= max(TEMPLATE_TEXTS, TEMPLATE_SHARE * num_sampled)
    return Index(
        num_texts=num_texts, table=table, companions=companions[many], shares=counts[many] / max(num_sampled, 1)
    )


def _sampled(words: Words, chosen: NDArray[np.bool_]) -> Iterator[tuple[Ints, Hashes]]:
    """The companions in the chosen texts."""
    for distance in DISTANCES if chosen.any() else ():
        owners = words.owners[:-distance]
        left = np.flatnonzero((owners == words.owners[distance:]) & chosen[owners])
        yield owners[left], _companions(words, left, distance).astype(np.uint64)


def _companions(words: Words, left: Ints, distance: int) -> NDArray[np.uint32]:
    """A 32-bit hash of the word at each place and the one so far to its right."""
    both = mix((words.hashes[left] << SHIFT) + words.hashes[left + distance] + np.uint64(distance))
    return (both >> SHIFT).astype(np.uint32)


def _features(words: Words, free: NDArray[np.bool_]) -> tuple[Ints, Hashes]:
    """The free words, and the pairs of adjacent words of which one is free; a feature may come more than once."""
    left = np.flatnonzero((words.owners[:-1] == words.owners[1:]) & (free[:-1] | free[1:]))
    pairs = mix((words.hashes[left] << SHIFT) | words.hashes[left + 1]) >> SHIFT
    single = np.flatnonzero(free)
    owners = np.concatenate([words.owners[single], words.owners[left]])
    return owners, np.concatenate([words.hashes[single] & ~PAIR_BIT, pairs | PAIR_BIT])


def _once_each(owners: Ints, hashes: Hashes) -> tuple[Ints, Hashes]:
    """Each (owner, 32-bit hash) once, in order."""
    both = np.sort((owners.astype(np.uint64) << SHIFT) | hashes)  # np.unique hashes, which is far slower here
    both = both[np.append(True, both[1:] != both[:-1])] if len(both) else both
    return (both >> SHIFT).astype(np.int64), both & LOW


def _places(features: Hashes, table: NDArray[np.uint16]) -> Ints:
    return (features & np.uint64(len(table) - 1)).astype(np.int64)
