"""Intervals that keep their promise, tests with known answers, and verdicts at their borders."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from runner.stats import (
    Interval,
    SignTest,
    Verdict,
    cohens_kappa,
    effective_rows,
    holm,
    judge,
    mean_interval,
    minimum_detectable,
    pooled_interval,
    rows_needed,
    sign_test,
)
from runner.stats.intervals import _percentile_ends as percentile_ends

SCORES = st.sampled_from([0.0, 1.0]) | st.floats(0, 1, allow_subnormal=False)
NAMES = st.sampled_from(["a", "b", "c", None])
VALUES = st.lists(st.tuples(SCORES, SCORES, NAMES), min_size=1, max_size=14)
BOUNDS = st.sampled_from([(-1.0, 1.0), None])
Bounds = tuple[float, float] | None
Rows = list[tuple[float, float, str | None]]
Array = NDArray[np.float64]
laws = settings(deadline=None, max_examples=40)


def interval(
    values: list[float], groups: list[str | None] | None = None, bounds: Bounds = (-1, 1), resamples: int = 400
) -> Interval:
    return mean_interval(values, groups=groups or (), bounds=bounds, seed=1, resamples=resamples)


def gained(rows: Rows, bounds: Bounds = (-1, 1)) -> Interval:
    return interval([tuned - base for base, tuned, _ in rows], [group for _, _, group in rows], bounds)


def shares(values: list[float], bounds: Bounds = (0, 1), resamples: int = 10_000) -> tuple[float, float]:
    found = interval(values, bounds=bounds, resamples=resamples)
    assert found.low is not None and found.high is not None
    return found.low, found.high


def counts(rows: Rows) -> Array:
    """Right answers and answers of two classes, base beside tuned: (N, 8)."""
    table = [[b, 1, t, 1, 0, 0, 0, 0] if group == "a" else [0, 0, 0, 0, b, 1, t, 1] for b, t, group in rows]
    return np.array(table, dtype=float)


def macro_gain(sums: Array) -> Array:
    """The mean over two classes of the share right, tuned less base."""
    tuned = (sums[..., 2] + 1) / (sums[..., 3] + 2) + (sums[..., 6] + 1) / (sums[..., 7] + 2)
    base = (sums[..., 0] + 1) / (sums[..., 1] + 2) + (sums[..., 4] + 1) / (sums[..., 5] + 2)
    return np.asarray((tuned - base) / 2)


@laws
@given(VALUES, BOUNDS, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_names_of_groups_change_no_bit(rows: Rows, bounds: Bounds, random: Random) -> None:
    renamed = [(b, t, None if group is None else {"a": "z", "b": "a", "c": "k"}[group]) for b, t, group in rows]
    random.shuffle(renamed)
    assert gained(renamed, bounds) == gained(rows, bounds)


@laws
@given(VALUES, BOUNDS)
def test_swapping_the_sides_mirrors_the_interval_but_for_the_last_rounding(rows: Rows, bounds: Bounds) -> None:
    there, back = gained(rows, bounds), gained([(t, b, group) for b, t, group in rows], bounds)
    for found, mirrored in ((back.mean, there.mean), (back.low, there.high), (back.high, there.low)):
        assert (found is None) == (mirrored is None)
        assert found is None or mirrored is None or abs(found + mirrored) < 2e-12


@laws
@given(VALUES)
def test_groups_of_one_are_no_groups(rows: Rows) -> None:
    values = [t - b for b, t, _ in rows]
    assert interval(values, [f"g{row}" for row in range(len(rows))]) == interval(values) == interval(values, [])


def test_doubling_every_row_within_its_group_tells_nothing_new() -> None:
    values = list(np.random.default_rng(3).normal(0.1, 0.3, 40))
    names: list[str | None] = [f"g{row}" for row in range(40)]
    once, twice, naive = interval(values), interval(values * 2, names * 2), interval(values * 2)
    assert once.low is not None and once.high is not None and naive.low is not None and naive.high is not None
    assert (twice.mean, twice.low, twice.high) == pytest.approx((once.mean, once.low, once.high), abs=1e-9)
    assert naive.high - naive.low < 0.8 * (once.high - once.low)


@laws
@given(VALUES, BOUNDS)
def test_the_mean_lies_in_its_interval_and_the_interval_in_its_bounds(rows: Rows, bounds: Bounds) -> None:
    found = gained(rows, bounds)
    assert found.mean == pytest.approx(math.fsum(t - b for b, t, _ in rows) / len(rows), abs=1e-12)
    if found.low is not None and found.high is not None:
        assert found.low <= found.mean <= found.high
        assert bounds is None or (bounds[0] <= found.low and found.high <= bounds[1])


@laws
@given(VALUES, st.sampled_from([0.0, 0.05]), BOUNDS)
def test_base_against_itself_is_never_improved_nor_worse(rows: Rows, margin: float, bounds: Bounds) -> None:
    found = gained([(b, b, group) for b, _, group in rows], bounds)
    assert found.mean == 0 and judge(found, margin) in ("equivalent", "inconclusive")


def test_the_seed_decides_the_interval() -> None:
    values = list(np.random.default_rng(0).normal(size=30))
    one, same, other = (mean_interval(values, bounds=None, seed=seed, resamples=1000) for seed in (1, 1, 2))
    assert one == same and one.low != other.low and one.mean == other.mean


@pytest.mark.parametrize("groups", [[], ["one"] * 3])
def test_one_cluster_gives_no_interval(groups: list[str | None]) -> None:
    values = [0.5] * (len(groups) or 1)
    assert interval(values, groups) == Interval(mean=0.5, low=None, high=None)


def test_groups_that_do_not_match_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="2 groups for 3 rows"):
        interval([0.1, 0.2, 0.3], ["a", "b"])


@pytest.mark.parametrize("wrong", [0, 1, 3, 5])
def test_few_wrong_answers_get_clopper_and_pearsons_bound(wrong: int) -> None:
    low, high = shares([0.0] * wrong + [1.0] * (23 - wrong))
    exact = stats.binomtest(wrong, 23).proportion_ci(0.95, method="exact")
    assert low == pytest.approx(1 - exact.high, abs=0.02) and low <= 1 - exact.high + 1e-12
    assert high == 1


def test_none_of_23_right_is_up_to_14_8_percent() -> None:
    assert shares([0.0] * 23) == (0, pytest.approx(0.148185, abs=1e-6))


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), None])
@pytest.mark.parametrize("num_rows", [23, 60, 500])
def test_five_wins_to_none_are_no_improvement_and_eight_are(num_rows: int, bounds: Bounds) -> None:
    few, many = (interval([1.0] * n + [0.0] * (num_rows - n), bounds=bounds, resamples=2000) for n in (5, 8))
    assert judge(few, 0) == "inconclusive" and judge(many, 0) == "improved"


@pytest.mark.parametrize(("num_wins", "verdict"), [(5, "inconclusive"), (6, "improved")])
def test_when_every_row_is_won_the_verdict_is_the_sign_tests(num_wins: int, verdict: Verdict) -> None:
    assert judge(interval([1.0] * num_wins), 0) == verdict


def test_a_few_large_gains_among_tiny_ones_are_no_improvement() -> None:
    tiny = list(np.random.default_rng(0).uniform(-0.01, 0.01, 57))
    assert judge(interval([0.9, 0.8, 0.95, *tiny], resamples=2000), 0) == "inconclusive"


def test_large_groups_that_agree_count_for_less_than_their_rows() -> None:
    names: list[str | None] = [f"g{row // 6}" for row in range(60)]
    assert shares([1.0] * 10)[0] == interval([1.0] * 60, names, (0, 1)).low
    lopsided: list[str | None] = ["big"] * 50 + [None] * 10
    found = interval([1.0] * 60, lopsided, (0, 1))
    assert found.low is not None and found.low < shares([1.0] * 10)[0]


def test_float_noise_is_no_difference() -> None:
    assert interval([0.1 + 0.2, 0.3, 0.3], bounds=None) == Interval(mean=0.3, low=0.3, high=0.3)
    assert interval([0.1 + 0.2 - 0.3] + [0.0] * 30) == interval([0.0] * 31)


def test_without_bounds_equal_values_are_their_own_interval() -> None:
    assert interval([2.5] * 9, bounds=None) == Interval(mean=2.5, low=2.5, high=2.5)


def test_on_many_plain_rows_it_is_scipys_interval() -> None:
    values = np.random.default_rng(5).normal(0.1, 0.3, 400)
    found = mean_interval(list(values), bounds=None, seed=1, resamples=20_000)
    plain = stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=2, method="percentile").confidence_interval
    student = stats.ttest_1samp(values, 0).confidence_interval()
    for reference in (plain, student):
        assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.002)
    assert found.low is not None and found.low <= student.low + 1e-12


def test_the_percentiles_of_ten_clusters_are_as_wide_as_students() -> None:
    drawn = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    wide = stats.t.ppf(0.975, 9) * math.sqrt(10 / 9)
    assert percentile_ends(drawn, 10) == pytest.approx((-wide, wide), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_rows_with_heavy_tails_get_no_less_than_students_interval(seed: int) -> None:
    values = np.random.default_rng(seed).standard_t(3, 30)
    found = mean_interval(list(values), bounds=None, seed=1, resamples=1000)
    student = stats.ttest_1samp(values, 0).confidence_interval()
    assert found.low is not None and found.high is not None
    assert found.low <= student.low + 1e-12 and student.high - 1e-12 <= found.high


def test_the_order_of_large_values_changes_no_bit_either() -> None:
    values = [1e16, -1e16, 1.0, 0.3, 1e7 / 3, 0.7, -1e8 / 7, 11.0]
    names: list[str | None] = ["a", "a", "a", "b", "b", "b", None, None]
    turned = interval(values[::-1], names[::-1], None)
    assert turned == interval(values, names, None)


def test_skewed_rows_get_a_longer_end_than_students() -> None:
    values = np.random.default_rng(5).beta(0.3, 4, 60)
    _, high = shares(list(values))
    student = stats.ttest_1samp(values, 0).confidence_interval()
    assert high - values.mean() > 1.15 * (student.high - values.mean())


@laws
@given(VALUES)
def test_a_mean_is_the_pooled_ratio_of_values_and_ones(rows: Rows) -> None:
    values, groups = [t for _, t, _ in rows], [group for _, _, group in rows]
    pooled = pooled_interval(
        np.array([[value, 1.0] for value in values]),
        lambda sums: sums[..., 0] / sums[..., 1],
        groups=groups,
        bounds=(0, 1),
        seed=1,
        resamples=400,
    )
    assert pooled == interval(values, groups, (0, 1))


@laws
@given(VALUES, st.randoms(use_true_random=False))
def test_a_pooled_statistic_is_that_of_the_whole_whatever_the_order(rows: Rows, random: Random) -> None:
    table = counts(rows)
    found = pooled_interval(table, macro_gain, groups=(), bounds=(-1, 1), seed=1, resamples=400)
    assert found.mean == pytest.approx(float(macro_gain(table.sum(axis=0))), abs=1e-12)
    shuffled = table[random.sample(range(len(table)), len(table))]
    assert pooled_interval(shuffled, macro_gain, groups=(), bounds=(-1, 1), seed=1, resamples=400) == found


def test_swapping_the_stacked_sides_mirrors_a_pooled_interval() -> None:
    rng = np.random.default_rng(4)
    rows: Rows = [(float(rng.random()), float(rng.random()), "ab"[i % 2]) for i in range(40)]
    swapped: Rows = [(t, b, group) for b, t, group in rows]
    there, back = (
        pooled_interval(counts(side), macro_gain, groups=(), bounds=(-1, 1), seed=1, resamples=2000)
        for side in (rows, swapped)
    )
    assert there.low is not None and there.high is not None
    assert (back.mean, back.low, back.high) == (-there.mean, -there.high, -there.low)


def test_five_rows_that_differ_are_no_improvement_of_a_pooled_statistic() -> None:
    rows: Rows = [(0.0, 1.0, "a")] * 5 + [(1.0, 1.0, "a")] * 30 + [(1.0, 1.0, "b")] * 25
    found = pooled_interval(counts(rows), macro_gain, groups=(), bounds=(-1, 1), seed=1, resamples=2000)
    assert found.mean > 0.05 and judge(found, 0) == "inconclusive"


def test_a_statistic_that_some_resamples_leave_undefined_has_no_ends() -> None:
    rows = np.array([[1.0, 1.0], [1.0, 1.0]] + [[0.0, 0.0]] * 8)
    found = pooled_interval(rows, lambda s: s[..., 0] / s[..., 1], groups=(), bounds=(0, 1), seed=1, resamples=400)
    assert found == Interval(mean=1, low=None, high=None)


def test_millions_of_weights_are_drawn_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(2).normal(size=50))
    whole = interval(values, bounds=None, resamples=1000)
    monkeypatch.setattr("runner.stats.intervals.BATCH_CELLS", 1000)
    assert interval(values, bounds=None, resamples=1000) == whole


@pytest.mark.parametrize(
    ("wins", "losses", "p_value"),
    [(5, 0, 0.0625), (6, 0, 0.03125), (0, 6, 0.03125), (9, 1, 0.021484375), (8, 2, 0.109375), (3, 3, 1), (0, 0, 1)],
)
def test_the_sign_test_has_its_known_values(wins: int, losses: int, p_value: float) -> None:
    found = sign_test([0.2] * wins + [-0.7] * losses + [0.0] * 4)
    assert found == SignTest(wins=wins, losses=losses, ties=4, p_value=pytest.approx(p_value))


def power(num_decided: int, win_rate: float) -> float:
    """How often the test finds a true win rate, at the level of 5 %."""
    wins = np.arange(num_decided + 1)
    p_values = [sign_test([1.0] * w + [-1.0] * (num_decided - w)).p_value for w in wins]
    return float(stats.binom.pmf(wins, num_decided, win_rate)[np.array(p_values) <= 0.05].sum())


@pytest.mark.parametrize(
    ("win_rate", "enough", "too_few"),
    [
        (0.60, [199, 210], [198, 209]),
        (0.70, [49, 54], [48, 53]),
        (0.75, [30, 35], [29, 34]),
        (0.80, [20, 23], [19, 22]),
    ],
)
def test_the_sign_test_finds_a_win_rate_from_the_tabled_number_of_pairs(
    win_rate: float, enough: list[int], too_few: list[int]
) -> None:
    assert all(power(n, win_rate) >= 0.80 for n in enough)
    assert not any(power(n, win_rate) >= 0.80 for n in too_few)


def test_the_sign_test_counts_clusters_and_not_rows() -> None:
    names: list[str | None] = ["a"] * 6 + ["b", "b"] + [None, None]
    found = sign_test([1.0] * 6 + [0.3, -0.9] + [0.1 + 0.2 - 0.3, -1.0], groups=names)
    assert (found.wins, found.losses, found.ties) == (1, 2, 1)


def test_the_sign_test_of_swapped_sides_swaps_wins_and_losses() -> None:
    there, back = sign_test([1.0, 0.5, -0.2]), sign_test([-1.0, -0.5, 0.2])
    assert (there.wins, there.losses, there.p_value) == (back.losses, back.wins, back.p_value)


def test_holm_has_its_hand_computed_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04] and holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    ranked = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


def test_kappa_has_its_hand_computed_values() -> None:
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15  # 35 of 50 agree, 0.5 by chance
    assert cohens_kappa(a, b) == pytest.approx((0.7 - 0.5) / 0.5)
    assert cohens_kappa(["x", "y"], ["x", "y"]) == 1 and cohens_kappa(["x", "y"], ["y", "x"]) == -1
    assert cohens_kappa(["x", "x", "y"], ["x", "x", "x"]) == 0


def test_kappa_is_undefined_where_chance_explains_all() -> None:
    assert cohens_kappa([], []) is None and cohens_kappa(["x"] * 3, ["x"] * 3) is None
    with pytest.raises(ValueError, match="1 labels against 2"):
        cohens_kappa(["x"], ["x", "y"])


def test_effective_rows_are_between_the_clusters_largest_and_all() -> None:
    assert effective_rows([], 10) == 10 and effective_rows([None] * 10, 10) == 10
    assert effective_rows(["a"] * 10, 10) == 1
    assert effective_rows(["a", "a", "b", "b"], 4) == 2
    assert effective_rows(["a", "a", "a", None], 4) == pytest.approx(1.6)
    assert effective_rows([], 0) == 0


def test_the_minimum_detectable_gain_is_its_formula() -> None:
    assert minimum_detectable(60, 0.05) == pytest.approx(0.05 + (2.0010 + 0.8416) * 0.5 / math.sqrt(60), abs=1e-4)
    assert minimum_detectable(60, 0, spread=0.25) == pytest.approx(0.5 * (minimum_detectable(60, 0) or 0))


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3])
def test_few_rows_detect_no_possible_gain(num_rows: int) -> None:
    assert minimum_detectable(num_rows, 0) is None


@pytest.mark.parametrize(
    ("base", "tuned", "items"), [(0.6, 0.8, 41), (0.7, 0.8, 147), (0.8, 0.85, 455), (0.9, 0.95, 227)]
)
def test_the_rows_that_make_a_gain_detectable_are_the_tabled_ones(base: float, tuned: float, items: int) -> None:
    var = [share * (1 - share) for share in (base, tuned)]
    spread = math.sqrt(sum(var) - math.sqrt(var[0] * var[1]))
    too_few, enough = (minimum_detectable(num_rows, 0, spread) for num_rows in (items - 1, items + 3))
    assert too_few is not None and enough is not None
    assert enough <= tuned - base < too_few  # the table takes the normal, ours Student's quantile


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
