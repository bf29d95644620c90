"""Train, dev or test: decided by the row alone, so that no row moves when others come, go or change places.

A row's part follows from the hash of what it asks (or of its group). Two questions that are nearly the same may hash
to different parts; then the smaller side is withheld: it is used in no part. A scheme that instead moved such rows to
one side could not keep old rows where they are when a near-duplicate is appended. For the same reason classes are
held out at one rate each, not by exact quota.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

import numpy as np

PARTS = ("train", "dev", "test")
TRAIN, DEV, TEST = range(3)
GIVEN, OWN, GENERAL, IGNORED = range(4)
_WORD = re.compile(r"\w+")


def split_key(group: str | None, question: str) -> int:
    """What decides a row's part: its group, else its question's words whatever their order, case and punctuation."""
    words = sorted(_WORD.findall(unicodedata.normalize("NFKC", question).casefold()))
    text = f"group {group}" if group is not None else "words " + (" ".join(words) or question)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def draw(keys: np.ndarray, seed: int, purpose: str = "") -> np.ndarray:
    """A number in [0, 1) for each key (N,), the same whatever other keys there are."""
    named = f"{seed}:{purpose}:".encode()
    digests = (hashlib.blake2b(named + key.tobytes(), digest_size=8).digest() for key in keys)
    return np.fromiter((int.from_bytes(d, "little") / 2**64 for d in digests), float, len(keys))


def divide(keys: np.ndarray, seed: int, dev: float, test: float) -> np.ndarray:
    """The part (N,) that each key belongs to, by the shares asked for."""
    share = draw(keys, seed)
    return np.where(share < test, TEST, np.where(share < test + dev, DEV, TRAIN)).astype(np.int8)


@dataclass(frozen=True, kw_only=True)
class Withheld:
    """Rows left out of every part because a row of another part is like them, and for each the row that it is like."""

    rows: np.ndarray
    partners: np.ndarray


def withhold(parts: np.ndarray, clusters: np.ndarray, pairs: np.ndarray, rank: np.ndarray) -> Withheld:
    """Keeps each cluster of like rows in one part: that of most of its rows (on a tie test before dev before train).

    `parts`, `clusters` (N,), `pairs` (P, 2) of like rows. Only a cluster's rows of the best `rank` (N,) have a voice:
    GIVEN (test outvotes dev, whatever their numbers), then OWN, then GENERAL; IGNORED rows have none and are let be.
    """
    order = np.array([TEST, DEV, TRAIN])
    num_clusters = int(clusters.max(initial=-1)) + 1
    votes = np.zeros((3, num_clusters, 3), np.int64)
    heard = rank != IGNORED
    np.add.at(votes, (rank[heard], clusters[heard], parts[heard]), 1)
    given, own, general = votes[:, :, order]
    voice = np.where(given.any(1)[:, None], given > 0, np.where(own.any(1)[:, None], own, general))
    away = heard & (parts != order[np.argmax(voice, axis=1)][clusters])
    rows = np.flatnonzero(away)
    return Withheld(rows=rows, partners=_partners(rows, heard & ~away, clusters, pairs))


def _partners(rows: np.ndarray, kept: np.ndarray, clusters: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """For each withheld row a kept row that it is directly like, or else the first kept row of its cluster."""
    numbers = np.flatnonzero(kept)
    first = np.full(int(clusters.max(initial=-1)) + 1, -1)
    first[clusters[numbers][::-1]] = numbers[::-1]
    partner = first[clusters]
    both = np.concatenate((pairs, pairs[:, ::-1]))
    direct = both[kept[both[:, 1]]][::-1]
    partner[direct[:, 0]] = direct[:, 1]
    result: np.ndarray = partner[rows]
    return result
