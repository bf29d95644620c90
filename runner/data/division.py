"""Which part each usable row belongs to, how often it counts, and why some are in none."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from runner.backends.base import Watch
from runner.data.near import NUM_PASSES, clusters, near_duplicates
from runner.data.split import (
    GENERAL,
    GIVEN_DEV,
    GIVEN_TEST,
    IGNORED,
    OWN_DEV,
    OWN_TEST,
    OWN_TRAIN,
    TRAIN,
    divide,
    draw,
    withhold,
)
from runner.data.store import StoredFile
from runner.files import make_readable
from runner.plan import MixPlan, SourcePlan, SplitPlan

ROLES = ("train", "dev", "test", "mix")
MIX = ROLES.index("mix")
VERSION = 1  # of what counts as a near-duplicate
_RANKS = np.array(  # by role (train, dev, test, mix) and part (train, dev, test)
    [[OWN_TRAIN, OWN_DEV, OWN_TEST], [GIVEN_DEV] * 3, [GIVEN_TEST] * 3, [GENERAL] * 3]
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file that was read, and what the manifest gives it for."""

    role: str
    source: SourcePlan
    file: StoredFile
    mix: MixPlan | None = None


@dataclass(frozen=True, kw_only=True)
class Division:
    """For each example (N,): its part, how often it counts there (0: not at all), its group, the row that it was
    withheld for (-1: none) and whether that is for their group alone. `pairs` (P, 2) are alike but not equal; `leaks`
    (L, 2) are alike, equal or of one group, and would stand in different parts. `num_missing` general rows were asked
    for that there are not."""

    parts: np.ndarray
    times: np.ndarray
    groups: np.ndarray
    partners: np.ndarray
    by_group: np.ndarray
    pairs: np.ndarray
    leaks: np.ndarray
    num_missing: int

    def members(self, part: int) -> np.ndarray:
        """The examples of a part, each as often as it counts."""
        mine = np.flatnonzero(self.parts == part)
        return np.repeat(mine, self.times[mine])


def first_parts(entries: Sequence[Entry], split: SplitPlan, seed: int) -> np.ndarray:
    """The part of each example by its source, or else by its own hash; before likenesses are looked at."""
    given = {entry.role for entry in entries}
    shares = {part: 0.0 if part in given else getattr(split, part) for part in ("dev", "test")}
    parts = divide(column(entries, "split_key"), seed, shares["dev"], shares["test"])
    roles = _roles(entries)
    return np.where(roles == TRAIN, parts, np.where(roles == MIX, TRAIN, roles)).astype(np.int8)


def divide_rows(
    entries: Sequence[Entry],
    parts: np.ndarray,
    usable: np.ndarray,
    split: SplitPlan,
    seed: int,
    cache: Path,
    watch: Watch,
) -> Division:
    """Withholds what is too like a row of another part, then draws by weight and for the mix.

    `parts` (N,) are the first parts, `usable` (N,) says which examples can be used at all.
    """
    keys, words = column(entries, "split_key"), column(entries, "words_key")
    roles = _roles(entries)
    pairs = _pairs(entries, split, cache, watch)
    pairs = pairs[usable[pairs].all(axis=1)]
    rank = np.where(usable, _RANKS[roles, parts], IGNORED)
    partners = withhold(parts, words, pairs, rank)
    by_group = withhold(parts, keys, pairs[:0], np.where(partners < 0, rank, IGNORED))
    partners = np.where(partners < 0, by_group, partners)
    lots = keys ^ column(entries, "question_key") ^ (column(entries, "answer_key") >> np.uint64(1))
    times = _weighted(entries, lots, parts, np.where(usable & (partners < 0), 1, 0), seed)
    times, missing = _mixed(entries, lots, parts, times, roles, seed)
    linked = np.concatenate((pairs, _same(words, usable), _same(keys, usable)))
    alike = clusters(len(parts), linked)
    names = np.full(int(alike.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(names, alike, keys)
    away = np.flatnonzero(partners >= 0)
    crossing = np.concatenate((linked[parts[linked[:, 0]] != parts[linked[:, 1]]], np.stack((away, partners[away]), 1)))
    questions = column(entries, "question_key")
    return Division(
        parts=parts,
        times=times,
        groups=names[alike],
        partners=partners,
        by_group=by_group >= 0,
        pairs=pairs[questions[pairs[:, 0]] != questions[pairs[:, 1]]],
        leaks=np.unique(np.sort(crossing, axis=1), axis=0),
        num_missing=missing,
    )


def spread(entries: Sequence[Entry], values: Sequence[float]) -> np.ndarray:
    """A value of each file as a value of each of its examples."""
    return np.repeat(np.asarray(values), [entry.file.num_examples for entry in entries])


def _roles(entries: Sequence[Entry]) -> np.ndarray:
    """What each example was given for, as its place in ROLES."""
    return spread(entries, [ROLES.index(entry.role) for entry in entries])


def column(entries: Sequence[Entry], name: str) -> np.ndarray:
    """A numeric column (N,) of all examples."""
    columns = [entry.file.numbers(name) for entry in entries]
    return np.concatenate(columns) if columns else np.empty(0, np.uint64)


def _pairs(entries: Sequence[Entry], split: SplitPlan, cache: Path, watch: Watch) -> np.ndarray:
    """The pairs (P, 2) of near-duplicate questions, from the cache when the same rows were searched before."""
    total = sum(entry.file.num_examples for entry in entries)
    if split.similarity is None or total < 2:
        return np.empty((0, 2), np.int64)
    names = " ".join(Path(entry.file.folder).name for entry in entries)
    key = hashlib.sha256(f"{VERSION} {split.similarity} {names}".encode()).hexdigest()[:24]
    path = cache / "pairs" / f"{key}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with watch.progress("near-duplicates", NUM_PASSES * total) as progress:
            pairs = near_duplicates(_Questions(entries), split.similarity, progress.advance)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            np.save(part, pairs)
        make_readable(part.name)
        os.replace(part.name, path)
    return np.asarray(np.load(path), np.int64)


class _Questions:
    """The questions of all examples, to be read several times."""

    def __init__(self, entries: Sequence[Entry]):
        self._entries = entries

    def __iter__(self) -> Iterator[pa.Array]:
        for entry in self._entries:
            yield from entry.file.texts("question")


def _same(keys: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Rows of one key (a group, or the same words), each paired with the next of its kind."""
    rows = np.flatnonzero(usable)
    order = rows[np.argsort(keys[rows], kind="stable")]
    again = keys[order[1:]] == keys[order[:-1]]
    return np.sort(np.stack((order[:-1][again], order[1:][again]), axis=1), axis=1).astype(np.int64)


def _weighted(
    entries: Sequence[Entry], keys: np.ndarray, parts: np.ndarray, times: np.ndarray, seed: int
) -> np.ndarray:
    """Training rows as often as their source's weight says; the fraction of a weight is drawn row by row."""
    weights = spread(entries, [entry.source.weight if entry.role != "mix" else 1.0 for entry in entries])
    if (weights == 1).all():
        return times
    drawn = np.floor(weights) + (draw(keys, seed, "weight") < weights % 1)
    return np.where(parts == TRAIN, times * drawn, times).astype(np.int64)


def _mixed(
    entries: Sequence[Entry],
    keys: np.ndarray,
    parts: np.ndarray,
    times: np.ndarray,
    roles: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, int]:
    """Keeps of each mix as many rows as were asked for, those with the lowest draws; and how many rows were missing."""
    own = int(times[(parts == TRAIN) & (roles != MIX)].sum())
    plans = list(dict.fromkeys(entry.mix for entry in entries if entry.mix))
    belongs = spread(entries, [plans.index(entry.mix) if entry.mix else -1 for entry in entries])
    lots = draw(keys, seed, "mix") if plans else keys
    times, missing = times.copy(), 0
    for i, plan in enumerate(plans):
        mine = np.flatnonzero((belongs == i) & (times > 0))
        wanted = plan.rows if plan.rows is not None else round((plan.fraction or 0) * own)
        missing += max(0, wanted - len(mine))
        times[mine[np.argsort(lots[mine], kind="stable")[wanted:]]] = 0
    return times, missing
