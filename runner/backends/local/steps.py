"""Which rows make which optimizer step: a pure function of the seed, so that any step can be taken again."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from runner.backends.base import Hyperparameters


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The optimizer steps of a run. `lengths` (N,) are the rows' tokens; an epoch is a shuffled pass over all rows,
    cut into `per_epoch` steps."""

    lengths: np.ndarray
    per_epoch: int
    num_steps: int
    seed: int
    batch_size: int | None

    def rows(self, step: int) -> np.ndarray:
        """The numbers of the rows of a step, counted from 0."""
        epoch, place = divmod(step, self.per_epoch)
        order = _shuffled(len(self.lengths), self.seed, epoch)
        if self.batch_size is not None:
            return order[place * self.batch_size : (place + 1) * self.batch_size]
        ends = np.cumsum(self.lengths[order])
        share = (ends - self.lengths[order]) * self.per_epoch // ends[-1]  # by where a row begins among the tokens
        chosen: np.ndarray = order[share == place]
        return chosen

    def tokens(self, begin: int, end: int) -> int:
        """Tokens of the rows of steps `begin` to `end`."""
        return sum(int(self.lengths[self.rows(step)].sum()) for step in range(begin, end))


def make_steps(lengths: np.ndarray, hyper: Hyperparameters, seed: int) -> Steps:
    """The steps that the hyperparameters ask for: a batch in rows or in tokens, a length in epochs or in steps."""
    per_epoch = hyper.steps_per_pass(len(lengths), int(lengths.sum()))
    return Steps(
        lengths=lengths,
        per_epoch=per_epoch,
        num_steps=hyper.max_steps or max(1, round(per_epoch * hyper.epochs)),
        seed=seed,
        batch_size=hyper.batch_size if hyper.batch_tokens is None else None,
    )


@lru_cache(maxsize=2)
def _shuffled(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_rows)


def divide(rows: np.ndarray, lengths: np.ndarray, num_ranks: int, max_tokens: int) -> list[list[np.ndarray]]:
    """The micro-batches of each rank for one step: rows dealt out evenly by tokens, then packed into at most
    `max_tokens` each (a longer row stands alone). A rank may have none."""
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    held = [0] * num_ranks
    for row in sorted(rows.tolist(), key=lambda row: (-lengths[row], row)):
        lightest = held.index(min(held))
        shares[lightest].append(row)
        held[lightest] += int(lengths[row])
    return [pack_rows(share, lengths, max_tokens) for share in shares]


def pack_rows(rows: Sequence[int], lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Best-fit decreasing: each row goes where the least room is left over."""
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # free tokens and number of each pack, sorted
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        length = int(lengths[row])
        place = bisect_left(room, (length, -1))
        free, pack = room.pop(place) if place < len(room) else (max_tokens, len(packs))
        if pack == len(packs):
            packs.append([])
        packs[pack].append(row)
        left = (free - length, pack)
        room.insert(bisect_left(room, left), left)
    return [np.array(pack) for pack in packs]


def learning_rate(step: int, num_steps: int, hyper: Hyperparameters) -> float:
    """The learning rate of a step, counted from 0: a linear warm-up that begins above zero, then the schedule, which
    ends at zero."""
    warmup = math.ceil(num_steps * hyper.warmup)
    if step < warmup:
        return hyper.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, num_steps - warmup)
    shapes = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "constant_with_warmup": 1.0,
    }
    return hyper.learning_rate * shapes[hyper.schedule]
