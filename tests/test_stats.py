"""Intervals that keep their promise, and verdicts at their borders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.stats import Interval, Verdict, bootstrap_mean, judge, rows_needed

VALUES = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=12)


def interval(values: list[float]) -> Interval:
    return bootstrap_mean(values, seed=1, resamples=1000)


@pytest.mark.parametrize("num_rows", [2, 60])
def test_base_against_itself_gains_exactly_nothing(num_rows: int) -> None:
    assert interval([0.0] * num_rows) == Interval(mean=0, low=0, high=0)


@settings(deadline=None, max_examples=25)
@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(values: list[float], random: Random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert interval(shuffled) == interval(values)


@settings(deadline=None, max_examples=25)
@given(VALUES)
def test_swapping_the_sides_mirrors_the_interval(values: list[float]) -> None:
    there, back = interval(values), interval([-value for value in values])
    assert there.low is not None and there.high is not None and back.low is not None and back.high is not None
    assert back.mean == -there.mean
    width = there.high - there.low  # other resamples are drawn from the other side, so the ends agree only nearly
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=0.25 * width + 1e-12)


@settings(deadline=None, max_examples=25)
@given(VALUES)
def test_the_mean_lies_in_its_interval_and_the_interval_in_the_values(values: list[float]) -> None:
    found = interval(values)
    assert found.low is not None and found.high is not None
    tiny = 1e-12
    assert min(values) - tiny <= found.low <= found.mean + tiny
    assert found.mean - tiny <= found.high <= max(values) + tiny


def test_the_seed_decides_the_interval() -> None:
    values = list(np.random.default_rng(0).normal(size=30))
    one, same, other = (bootstrap_mean(values, seed, 1000) for seed in (1, 1, 2))
    assert one == same
    assert (one.mean, one.low) != (other.mean, other.low) and one.mean == other.mean


def test_one_row_gives_no_interval() -> None:
    assert interval([0.5]) == Interval(mean=0.5, low=None, high=None)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.06, 0.09, "improved"),
        (0.05, 0.09, "inconclusive"),
        (math.nextafter(0.05, 1), 0.09, "improved"),
        (-0.09, -0.06, "worse"),
        (-0.09, -0.05, "inconclusive"),
        (-0.09, math.nextafter(-0.05, -1), "worse"),
        (-0.05, 0.05, "equivalent"),
        (0.0, 0.0, "equivalent"),
        (0.05, 0.05, "equivalent"),
        (-0.05, -0.05, "equivalent"),
        (-0.05, math.nextafter(0.05, 1), "inconclusive"),
        (math.nextafter(-0.05, -1), 0.05, "inconclusive"),
        (0.01, 0.09, "inconclusive"),
        (-0.9, 0.9, "inconclusive"),
        (None, None, "inconclusive"),
    ],
)
def test_the_verdict_is_where_the_interval_lies_against_the_margin(
    low: float | None, high: float | None, verdict: Verdict
) -> None:
    assert judge(Interval(mean=0, low=low, high=high), 0.05) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.02, "improved"), (-0.02, -0.01, "worse"), (0.0, 0.0, "equivalent"), (0.0, 0.1, "inconclusive")],
)
def test_without_a_margin_any_sure_difference_counts(low: float, high: float, verdict: Verdict) -> None:
    assert judge(Interval(mean=0, low=low, high=high), 0) == verdict


MIRROR: dict[Verdict, Verdict] = {"improved": "worse", "worse": "improved"}
ENDS = st.sampled_from([-0.2, -0.05, -0.01, 0.0, 0.01, 0.05, 0.2])


@given(ENDS, ENDS, st.sampled_from([0, 0.01, 0.05]))
def test_the_mirrored_gain_has_the_mirrored_verdict(a: float, b: float, margin: float) -> None:
    low, high = sorted((a, b))
    verdict = judge(Interval(mean=0, low=low, high=high), margin)
    assert judge(Interval(mean=0, low=-high, high=-low), margin) == MIRROR.get(verdict, verdict)


@dataclass(frozen=True)
class World:
    """How the rows' differences are spread; `mean` is the truth."""

    mean: float
    draw: str

    def sample(self, rng: np.random.Generator, num_rows: int) -> list[float]:
        if self.draw == "normal":
            return list(rng.normal(self.mean, 0.3, num_rows))
        up = 0.15 + self.mean  # right and wrong answers: some rows won, some lost, most alike
        return list(rng.choice([1.0, 0.0, -1.0], num_rows, p=[up, 0.85 - up, 0.15]))


@pytest.mark.parametrize("world", [World(0.1, "normal"), World(0.1, "answers")])
def test_an_interval_of_95_percent_holds_the_truth_about_so_often(world: World) -> None:
    rng, held = np.random.default_rng(7), 0
    for seed in range(300):
        found = bootstrap_mean(world.sample(rng, 60), seed, 1000)
        assert found.low is not None and found.high is not None
        held += found.low <= world.mean <= found.high
    assert 0.90 <= held / 300 <= 0.98


@pytest.mark.parametrize("world", [World(0.0, "normal"), World(0.0, "answers")])
def test_no_true_difference_is_seldom_called_improved(world: World) -> None:
    rng = np.random.default_rng(7)
    verdicts = [judge(bootstrap_mean(world.sample(rng, 60), seed, 1000), 0) for seed in range(600)]
    for verdict in ("improved", "worse"):
        assert 0.01 <= verdicts.count(verdict) / 600 <= 0.04  # 0.025 by right; 0.024 to 0.030 over 5,000 samples


def gain(mean: float, half_width: float) -> Interval:
    return Interval(mean=mean, low=mean - half_width, high=mean + half_width)


def test_more_rows_are_needed_the_wider_the_interval_and_the_nearer_the_margin() -> None:
    by_width = [rows_needed(gain(0.1, width), 60, 0.05) for width in (0.06, 0.1, 0.3, 0.9)]
    by_mean = [rows_needed(gain(mean, 0.3), 60, 0.05) for mean in (0.3, 0.2, 0.1, 0.07)]
    for needed in (by_width, by_mean):
        known = [n for n in needed if n is not None]
        assert len(known) == len(needed) and known == sorted(set(known)) and known[0] > 60


def test_rows_needed_follow_the_square_root_law() -> None:
    assert rows_needed(gain(0.1, 0.1), 60, 0.05) == 240  # half the width takes four times the rows
    assert rows_needed(gain(-0.1, 0.1), 60, 0.05) == 240


def test_rows_needed_are_always_more_than_there_are() -> None:
    assert rows_needed(gain(0.3, 0.25), 60, 0.05) == 61


@pytest.mark.parametrize("mean", [0.05, -0.05, 0.0501, 0.0499])
def test_a_gain_at_the_margin_is_settled_by_no_number_of_rows(mean: float) -> None:
    assert rows_needed(gain(mean, 0.1), 60, 0.05) is None


def test_without_an_interval_nothing_is_foretold() -> None:
    assert rows_needed(Interval(mean=0.5, low=None, high=None), 1, 0.05) is None


@pytest.mark.parametrize("mean", [0.1, 0.0])
def test_the_rows_that_are_said_to_be_needed_do_settle_it(mean: float) -> None:
    needed = rows_needed(gain(mean, 0.2), 60, 0.05)
    assert needed is not None
    assert judge(gain(mean, 0.99 * 0.2 * math.sqrt(60 / needed)), 0.05) in ("improved", "equivalent")
