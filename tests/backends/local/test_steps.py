"""Which rows make which step: every row once an epoch, the same steps whatever was asked before, nothing lost between
ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.backends.base import Hyperparameters
from runner.backends.local.steps import Steps, divide, learning_rate, make_steps, pack_rows
from tests.backends.local.test_session import hyperparameters

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60).map(np.array)
BATCHES = st.one_of(
    st.builds(lambda n: {"batch_size": n, "batch_tokens": None}, st.integers(1, 70)),
    st.builds(lambda n: {"batch_size": 8, "batch_tokens": n}, st.integers(1, 20_000)),
)
SEEDS = st.integers(0, 2**32 - 1)


def make(lengths: Any, seed: int = 3, **changes: Any) -> Steps:
    return make_steps(np.array(lengths), hyperparameters(**changes), seed)


def an_epoch(steps: Steps, number: int) -> list[int]:
    begin = number * steps.per_epoch
    return [int(row) for step in range(begin, begin + steps.per_epoch) for row in steps.rows(step)]


@given(LENGTHS, BATCHES, SEEDS, st.integers(0, 3))
def test_every_row_comes_exactly_once_an_epoch(lengths: Any, batch: Any, seed: int, epoch: int) -> None:
    steps = make(lengths, seed, **batch)
    assert sorted(an_epoch(steps, epoch)) == list(range(len(lengths)))


@given(LENGTHS, BATCHES, SEEDS, st.lists(st.integers(0, 100), max_size=5), st.integers(0, 100))
def test_a_step_is_the_same_whatever_was_asked_before(
    lengths: Any, batch: Any, seed: int, before: list[int], step: int
) -> None:
    fresh, used = make(lengths, seed, **batch), make(lengths, seed, **batch)
    for other in before:
        used.rows(other)
    assert used.rows(step).tolist() == fresh.rows(step).tolist()


def test_epochs_and_seeds_shuffle_differently() -> None:
    steps = make([10] * 50)
    assert an_epoch(steps, 0) != an_epoch(steps, 1)
    assert an_epoch(steps, 0) != an_epoch(make([10] * 50, seed=4), 0)
    assert an_epoch(steps, 0) != list(range(50)), "the order of the file is no shuffle"


def test_a_batch_in_rows_has_as_many_rows_but_for_the_last_of_an_epoch() -> None:
    steps = make([10] * 50, batch_size=8)
    assert [len(steps.rows(step)) for step in range(14)] == [8, 8, 8, 8, 8, 8, 2] * 2


@given(st.lists(st.integers(1, 300), min_size=20, max_size=60), SEEDS)
def test_a_batch_in_tokens_is_never_off_by_more_than_the_longest_row(lengths: list[int], seed: int) -> None:
    steps = make(lengths, seed, batch_tokens=1000)
    share = sum(lengths) / steps.per_epoch
    assert share <= 1000, "no more than was asked for, on average"
    for step in range(steps.per_epoch):
        assert abs(steps.tokens(step, step + 1) - share) <= max(lengths)


def test_the_length_of_a_run_is_that_of_its_epochs_or_of_max_steps() -> None:
    assert make([10] * 50, batch_size=8, epochs=3).num_steps == 21
    assert make([10] * 50, batch_size=8, epochs=0.01).num_steps == 1, "a run has a step at least"
    limited = make([10] * 50, batch_size=8, epochs=3, max_steps=4)
    assert (limited.num_steps, limited.per_epoch) == (4, 7)
    assert make([10] * 50, batch_tokens=100, epochs=2).num_steps == 10


def test_tokens_are_those_of_the_rows_of_the_steps() -> None:
    steps = make(range(1, 51), batch_size=8)
    assert steps.tokens(0, steps.per_epoch) == sum(range(1, 51))
    assert steps.tokens(2, 4) == sum(int(row) + 1 for step in (2, 3) for row in steps.rows(step))


@given(LENGTHS, st.integers(1, 5), st.integers(0, 600))
def test_dividing_a_step_loses_no_row_and_keeps_to_the_tokens(lengths: Any, num_ranks: int, max_tokens: int) -> None:
    shares = divide(np.arange(len(lengths)), lengths, num_ranks, max_tokens)
    assert len(shares) == num_ranks
    assert sorted(int(row) for share in shares for some in share for row in some) == list(range(len(lengths)))
    for some in (some for share in shares for some in share):
        assert len(some) == 1 or lengths[some].sum() <= max_tokens, "only a longer row stands alone"


@given(LENGTHS, st.integers(2, 5))
def test_ranks_get_like_amounts_of_tokens(lengths: Any, num_ranks: int) -> None:
    shares = divide(np.arange(len(lengths)), lengths, num_ranks, 10_000)
    held = [sum(int(lengths[some].sum()) for some in share) for share in shares]
    assert max(held) - min(held) <= max(lengths)


@given(LENGTHS, st.integers(1, 600))
def test_packs_are_fewer_than_twice_what_is_needed(lengths: Any, max_tokens: int) -> None:
    """Of any two packs, what is in the emptier would not have fitted into the fuller."""
    packs = pack_rows(range(len(lengths)), lengths, max_tokens)
    held = sorted(int(lengths[some].sum()) for some in packs)
    assert all(a + b > max_tokens for a, b in pairwise(held))


def test_packing_depends_on_the_rows_and_not_on_their_order() -> None:
    lengths = np.array([5, 9, 5, 3, 8, 1, 2])
    one, other = pack_rows([0, 1, 2, 3, 4, 5, 6], lengths, 12), pack_rows([6, 2, 4, 0, 1, 5, 3], lengths, 12)
    assert [some.tolist() for some in one] == [some.tolist() for some in other]
    assert [some.tolist() for some in pack_rows([0, 1, 2, 3], lengths, 0)] == [[1], [0], [2], [3]]


def rates(num_steps: int, **changes: Any) -> list[float]:
    hyper = hyperparameters(**changes)
    return [learning_rate(step, num_steps, hyper) for step in range(num_steps)]


def test_warm_up_begins_above_zero_and_rises_evenly() -> None:
    found = rates(100, warmup=0.1, learning_rate=1.1)
    assert found[:11] == pytest.approx([0.1 * (step + 1) for step in range(11)])


def test_the_schedules_are_those_of_the_formula() -> None:
    """Cosine of Loshchilov and Hutter (2017), with one cycle and no floor."""
    cosine = rates(100, warmup=0.1, schedule="cosine", learning_rate=2.0)
    assert cosine[55] == pytest.approx(0.5 * 2.0 * (1 + math.cos(math.pi * 45 / 90)))
    assert cosine[99] == pytest.approx(1 + math.cos(math.pi * 89 / 90))
    linear = rates(100, warmup=0.1, schedule="linear", learning_rate=2.0)
    assert linear[10] == 2.0
    assert linear[55] == pytest.approx(1.0)
    assert rates(100, warmup=0.1, schedule="constant_with_warmup", learning_rate=2.0)[10:] == [2.0] * 90


@given(
    st.integers(1, 200),
    st.floats(0, 0.9),
    st.sampled_from(["cosine", "linear", "constant_with_warmup"]),
)
def test_every_step_has_a_rate_above_zero_and_not_above_the_highest(
    num_steps: int, warmup: float, schedule: str
) -> None:
    found = rates(num_steps, warmup=warmup, schedule=schedule)
    assert all(0 < rate <= 1e-2 for rate in found)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


def test_a_long_run_ends_low() -> None:
    for schedule in ("cosine", "linear"):
        assert rates(1000, schedule=schedule)[-1] < 1e-2 * 0.002


def test_a_batch_in_tokens_counts_passes_as_the_steps_do() -> None:
    """The plan's estimate and the trainer have to agree on how long a run is."""
    lengths = np.array([10, 30, 20] * 7)
    for hyper in (hyperparameters(batch_tokens=90), hyperparameters(batch_tokens=None), _limited()):
        steps = make_steps(lengths, hyper, 0)
        asked = hyper.passes(len(lengths), int(lengths.sum()))
        assert steps.num_steps / steps.per_epoch == pytest.approx(asked, abs=1 / steps.per_epoch)


def _limited() -> Hyperparameters:
    return replace(hyperparameters(), max_steps=5)
