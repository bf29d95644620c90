"""Train, dev or test: decided by the row alone, so that no row moves when others come, go or change places.

A row's part follows from the hash of what it asks (or of its group). Two questions that are nearly the same may hash
to different parts; then the training row is withheld for the dev row, and either for the test row: it is used in no
part. A scheme that instead moved such rows to one side could not keep old rows where they are when a near-duplicate is
appended. For the same reason classes are held out at one rate each, not by exact quota.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

import numpy as np

PARTS = ("train", "dev", "test")
TRAIN, DEV, TEST = range(3)
# Who stays where rows are alike: what the person gave for a part, then test before dev before training.
GIVEN_TEST, GIVEN_DEV, OWN_TEST, OWN_DEV, OWN_TRAIN, GENERAL, IGNORED = range(7)
_WORD = re.compile(r"\w+")


def split_key(group: str | None, question: str) -> int:
    """What decides a row's part: its group, else its question's words whatever their order, case and punctuation."""
    words = sorted(_WORD.findall(unicodedata.normalize("NFKC", question).casefold()))
    return key_of(f"group {group}" if group is not None else "words " + (" ".join(words) or question))


def key_of(text: str) -> int:
    """A 64-bit name of a text."""
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


def withhold(parts: np.ndarray, keys: np.ndarray, pairs: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """For each row (N,) the kept row of another part that it must yield to, or -1 where it may stay.

    Rows are like each other when they share a key (N,) or when rows of their keys are a pair (P, 2). A row yields to a
    like row of another part that has a lower `rank` (N,); rows of one rank are of one part. IGNORED rows take no part.
    """
    _, units = np.unique(keys, return_inverse=True)
    num_units = int(units.max(initial=-1)) + 1
    links = np.unique(np.sort(units[pairs], axis=1), axis=0)
    itself = np.arange(num_units)
    source = np.concatenate((itself, links[:, 0], links[:, 1]))
    target = np.concatenate((itself, links[:, 1], links[:, 0]))
    partners = np.full(len(parts), -1)
    kept = np.full((3, num_units), -1)  # by part and unit, one row that stays
    for level in range(IGNORED):
        rows = np.flatnonzero(rank == level)
        if not len(rows):
            continue
        part = int(parts[rows[0]])
        for other in (TRAIN, DEV, TEST):
            if other != part:
                seen = kept[other][target]
                near = np.full(num_units, -1)
                near[source[seen >= 0]] = seen[seen >= 0]
                partners[rows] = np.where(near[units[rows]] >= 0, near[units[rows]], partners[rows])
        stays = rows[partners[rows] < 0][::-1]
        kept[part][units[stays]] = stays
    return partners
