"""Tuned against another side: laws of paired differences, the verdict that decides, and its words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from runner.evaluate.compare import SEVERITY, Comparison, compare, correct, deciding, describe
from runner.metrics import METRICS, Answer, Metric, Score
from runner.scoring import Scored, Scoring
from runner.stats import Verdict
from tests.evaluate.sides import rows_of, scoring_of, side
from tests.fakes import make_comparison

NUM = 40
KINDS = ("tea", "milk", "juice", "water")
EXPECTED = [KINDS[i % 4] for i in range(NUM)]
GROUPS = [f"g{i // 2}" for i in range(NUM)]
POOR = [text if i % 3 == 0 else "tea" for i, text in enumerate(EXPECTED)]
GOOD = [text if i % 7 else "beer" for i, text in enumerate(EXPECTED)]
HIGH = [1.5 + 0.1 * (i % 5) for i in range(NUM)]
LOW = [0.9 + 0.1 * (i % 3) for i in range(NUM)]


def _words(answer: Answer) -> Score:
    return Score(value=float(len(answer.output)))


WORDY = Metric(score=_words, title="letters", higher_is_better=False, unit="letters", bounds=None)
ALL = scoring_of("exact_match", "accuracy", "macro_f1", "chrf", "loss", "perplexity", wordy=WORDY)


def sides(
    scoring: Scoring = ALL, order: Sequence[int] = range(NUM), groups: Sequence[str | None] | None = GROUPS
) -> tuple[Scored, Scored]:
    rows = rows_of(EXPECTED, groups)
    return (
        side(scoring, [rows[i] for i in order], [POOR[i] for i in order], [HIGH[i] for i in order]),
        side(scoring, [rows[i] for i in order], [GOOD[i] for i in order], [LOW[i] for i in order]),
    )


def found(name: str, untuned: Scored, tuned: Scored, scoring: Scoring = ALL, margin: float = 0.01) -> Comparison:
    comparison = compare(name, "base", untuned, tuned, scoring, margin)
    assert comparison is not None
    return comparison


@pytest.mark.parametrize("name", ALL.metrics)
def test_a_side_against_itself_gains_nothing(name: str) -> None:
    base, _ = sides()
    comparison = found(name, base, base)
    assert comparison.ci_low is not None and comparison.ci_high is not None
    assert (comparison.difference, comparison.ci_low) == (0, -comparison.ci_high)
    assert (comparison.wins, comparison.losses, comparison.ties) == (0, 0, NUM // 2)
    assert (comparison.p_value, found(name, base, base, margin=0.2).verdict) == (1, "equivalent")


@pytest.mark.parametrize("name", ALL.metrics)
def test_swapping_the_sides_mirrors_the_comparison(name: str) -> None:
    there, back = found(name, *sides()), found(name, *sides()[::-1])
    assert there.ci_low is not None and there.ci_high is not None
    assert (back.untuned, back.tuned, back.difference) == (there.tuned, there.untuned, -there.difference)
    assert (back.ci_low, back.ci_high) == (-there.ci_high, -there.ci_low)
    assert (back.wins, back.losses, back.p_value) == (there.losses, there.wins, there.p_value)
    mirrored: dict[Verdict, Verdict] = {"improved": "worse", "worse": "improved"}
    assert back.verdict == mirrored.get(there.verdict, there.verdict)


@pytest.mark.parametrize("name", ALL.metrics)
def test_the_order_of_rows_changes_nothing(name: str) -> None:
    assert found(name, *sides(order=range(NUM)[::-1])) == found(name, *sides())
    assert found(name, *sides(order=sorted(range(NUM), key=lambda i: i * 11 % 41))) == found(name, *sides())


@pytest.mark.parametrize("name", ALL.metrics)
def test_every_row_twice_in_its_group_says_the_same(name: str) -> None:
    once, twice = found(name, *sides()), found(name, *sides(order=[*range(NUM), *range(NUM)]))
    assert once.ci_low is not None and once.ci_high is not None
    width = once.ci_high - once.ci_low
    assert (twice.ci_low, twice.ci_high) == pytest.approx((once.ci_low, once.ci_high), abs=0.02 * width)
    assert (twice.verdict, twice.wins, twice.p_value) == (once.verdict, once.wins, once.p_value)
    assert twice.num_rows == 2 * once.num_rows


@pytest.mark.parametrize("name", ALL.metrics)
def test_the_difference_is_that_of_the_means_and_lies_in_its_interval(name: str) -> None:
    comparison = found(name, *sides())
    assert comparison.difference == pytest.approx(comparison.tuned - comparison.untuned)
    assert comparison.ci_low is not None and comparison.ci_high is not None
    assert comparison.ci_low < comparison.difference < comparison.ci_high
    better = comparison.difference > 0 if comparison.higher_is_better else comparison.difference < 0
    expected = better if name != "wordy" else not better
    assert expected, "the tuned answers are better, and longer"


@pytest.mark.parametrize(
    ("name", "verdict"), [("loss", "improved"), ("perplexity", "improved"), ("wordy", "worse"), ("chrf", "improved")]
)
def test_the_sign_of_a_gain_follows_the_metric(name: str, verdict: Verdict) -> None:
    comparison = found(name, *sides())
    assert comparison.higher_is_better == ALL.metrics[name].higher_is_better
    assert comparison.verdict == verdict
    wins_more = comparison.wins > comparison.losses
    assert wins_more == (verdict == "improved")


def test_pooled_metrics_are_compared_as_they_are_pooled() -> None:
    perplexity = found("perplexity", *sides())
    assert perplexity.untuned == pytest.approx(math.exp(np.mean(HIGH)))
    assert perplexity.difference == pytest.approx(math.exp(np.mean(LOW)) - math.exp(np.mean(HIGH)))
    scoring = scoring_of("macro_f1", "accuracy")
    rows = rows_of(["a"] * 27 + ["b"] * 3)
    base, tuned = side(scoring, rows, ["a"] * 30), side(scoring, rows, ["a"] * 26 + ["b"] * 4)
    rare, common = (found(name, base, tuned, scoring) for name in ("macro_f1", "accuracy"))
    assert common.difference == pytest.approx(2 / 30)
    assert rare.difference > 5 * common.difference, "the rare class counts as much as the common one"


def test_groups_widen_the_interval_and_are_what_the_sign_test_counts() -> None:
    scoring = scoring_of("exact_match")
    expected = ["yes"] * 48
    answers = [("no" if (i // 8) % 2 else "yes") for i in range(48)]
    compared = []
    for groups in ([f"g{i // 8}" for i in range(48)], None):
        rows = rows_of(expected, groups)
        compared.append(found("exact_match", side(scoring, rows, ["no"] * 48), side(scoring, rows, answers), scoring))
    together, alone = compared
    assert together.ci_low is not None and alone.ci_low is not None and together.ci_low < alone.ci_low
    assert (together.wins, together.ties, alone.wins, alone.ties) == (3, 3, 24, 24)
    assert (together.verdict, alone.verdict) == ("inconclusive", "improved")


def test_a_row_counts_only_where_both_sides_have_a_score() -> None:
    scoring = scoring_of("exact_match", "loss", "macro_f1")
    rows = rows_of(["yes"] * 30)
    base = side(scoring, rows, [None] * 5 + ["no"] * 25, [math.inf] + [2.0] * 29)
    tuned = side(scoring, rows, ["yes"] * 28 + [None] * 2, [1.0] * 28 + [math.nan] * 2)
    for name in scoring.metrics:
        comparison = found(name, base, tuned, scoring)
        assert (comparison.num_rows, comparison.unscored) == (23, 7)
    assert found("exact_match", base, tuned, scoring).untuned == 0
    assert found("loss", base, tuned, scoring).untuned == 2


def test_without_a_row_that_both_have_scored_there_is_no_comparison() -> None:
    scoring = scoring_of("exact_match", "macro_f1", "perplexity")
    rows = rows_of(["yes"] * 6)
    halves = side(scoring, rows, ["yes"] * 3 + [None] * 3), side(scoring, rows, [None] * 3 + ["yes"] * 3)
    assert [compare(name, "base", *halves, scoring, 0.0) for name in scoring.metrics] == [None, None, None]


def test_one_row_gives_no_interval_and_no_verdict() -> None:
    scoring = scoring_of("exact_match")
    rows = rows_of(["yes"])
    comparison = found("exact_match", side(scoring, rows, ["no"]), side(scoring, rows, ["yes"]), scoring)
    assert (comparison.difference, comparison.ci_low, comparison.ci_high) == (1, None, None)
    assert (comparison.verdict, comparison.rows_needed) == ("inconclusive", None)


def test_an_inconclusive_comparison_says_how_many_rows_would_settle_it() -> None:
    scoring = scoring_of("exact_match")
    rows = rows_of(["yes"] * 30)
    base, tuned = (side(scoring, rows, ["yes"] * n + ["no"] * (30 - n)) for n in (10, 13))
    comparison = found("exact_match", base, tuned, scoring, margin=0.02)
    assert comparison.verdict == "inconclusive" and comparison.rows_needed is not None
    assert comparison.rows_needed > 30
    clear = found("exact_match", base, side(scoring, rows, ["yes"] * 30), scoring, margin=0.02)
    assert (clear.verdict, clear.rows_needed) == ("improved", None)


# --- Holm -------------------------------------------------------------------------------------------------------------


def test_the_primary_metric_is_not_corrected_and_the_others_are_by_their_number() -> None:
    ps = {"exact_match": 0.04, "chrf": 0.04, "loss": 0.01, "length": 0.5}
    comparisons = [make_comparison(metric=name, p_value=p) for name, p in ps.items()]
    corrected = correct(comparisons, "exact_match")
    assert [c.metric for c in corrected] == list(ps)
    assert [c.p_holm for c in corrected] == [None, pytest.approx(0.08), pytest.approx(0.03), 0.5]
    assert [c.verdict for c in corrected] == ["improved", "inconclusive", "improved", "inconclusive"]
    assert corrected[0] == comparisons[0]


def test_one_more_metric_needs_no_correction() -> None:
    (_, other) = correct([make_comparison(p_value=0.9), make_comparison(metric="chrf", p_value=0.04)], "exact_match")
    assert (other.p_holm, other.verdict) == (0.04, "improved")


@pytest.mark.parametrize("verdict", SEVERITY)
def test_the_correction_only_takes_away_what_was_claimed(verdict: Verdict) -> None:
    (one,) = correct([make_comparison(metric="chrf", p_value=0.9, verdict=verdict)], "exact_match")
    assert one.verdict == ("equivalent" if verdict == "equivalent" else "inconclusive")


def test_nothing_to_correct_is_no_fault() -> None:
    assert correct([], "exact_match") == []
    assert correct([make_comparison()], "exact_match") == [make_comparison()]


# --- which one decides ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", SEVERITY)
@pytest.mark.parametrize("arm", SEVERITY)
def test_of_base_and_best_arm_the_poorer_verdict_decides(base: Verdict, arm: Verdict) -> None:
    pair = [
        make_comparison(against="base", verdict=base, difference=0.9),
        make_comparison(against="few_shot", verdict=arm, difference=0.1),
        make_comparison(metric="chrf", verdict="worse", difference=-0.5),
    ]
    poorer = min(base, arm, key=SEVERITY.index)
    for order in (pair, pair[::-1]):
        decisive = deciding(order, "exact_match")
        assert decisive is not None and (decisive.metric, decisive.verdict) == ("exact_match", poorer)
        if base == arm:
            assert decisive.against == "few_shot", "the smaller gain"


def test_of_two_equal_verdicts_the_smaller_gain_decides_whatever_way_the_metric_points() -> None:
    pair = [
        make_comparison(metric="loss", against="base", difference=-0.9, higher_is_better=False),
        make_comparison(metric="loss", against="nearest", difference=-0.2, higher_is_better=False),
    ]
    decisive = deciding(pair, "loss")
    assert decisive is not None and decisive.against == "nearest"


def test_without_the_primary_metric_nothing_decides() -> None:
    assert deciding([make_comparison(metric="chrf")], "exact_match") is None


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "margin", "text"),
    [
        (
            {},
            0.05,
            "Tuning helped. Exact match: base 50.0 %, tuned 75.0 %: +25.0 points (95 % interval +15.0 points to "
            "+35.0 points, 60 rows), more than the margin of 5.0 points.",
        ),
        (
            {"tuned": 0.5, "difference": -0.0, "ci_low": -0.01, "ci_high": 0.01, "verdict": "equivalent"},
            0.05,
            "Tuning changed nothing that matters. Exact match: base 50.0 %, tuned 50.0 %: +0.0 points (95 % interval "
            "-1.0 points to +1.0 points, 60 rows), within the margin of 5.0 points.",
        ),
        (
            {"tuned": 0.3, "difference": -0.2, "ci_low": -0.3, "ci_high": -0.1, "verdict": "worse"},
            0.05,
            "Tuning made it worse. Exact match: base 50.0 %, tuned 30.0 %: -20.0 points (95 % interval -30.0 points "
            "to -10.0 points, 60 rows).",
        ),
        (
            {"ci_low": -0.1, "ci_high": 0.6, "verdict": "inconclusive", "rows_needed": 150},
            0.05,
            "Inconclusive. Exact match: base 50.0 %, tuned 75.0 %: +25.0 points (95 % interval -10.0 points to "
            "+60.0 points, 60 rows), which does not clear the margin of 5.0 points. About 150 test rows would "
            "settle it.",
        ),
        (
            {"ci_low": -0.1, "ci_high": 0.6, "verdict": "inconclusive"},
            0,
            "Inconclusive. Exact match: base 50.0 %, tuned 75.0 %: +25.0 points (95 % interval -10.0 points to "
            "+60.0 points, 60 rows), which does not clear the margin of 0.0 points.",
        ),
        (
            {"metric": "loss", "untuned": 2.0, "tuned": 1.5, "difference": -0.5, "ci_low": -0.6, "ci_high": -0.4},
            0.01,
            "Tuning helped. Held-out loss: base 2.000 nats, tuned 1.500 nats: -0.500 nats (95 % interval -0.600 nats "
            "to -0.400 nats, 60 rows), more than the margin of 0.010 nats.",
        ),
        (
            {"ci_low": None, "ci_high": None, "verdict": "inconclusive", "num_rows": 1},
            0.05,
            "Inconclusive. Exact match: base 50.0 %, tuned 75.0 % on 1 rows, too few for an interval.",
        ),
    ],
)
def test_each_verdict_is_said_in_a_sentence(changes: dict[str, Any], margin: float, text: str) -> None:
    comparison = make_comparison(**changes)
    assert describe(comparison, [], METRICS[comparison.metric], margin) == text


@pytest.mark.parametrize("decides", ["base", "few_shot"])
def test_with_a_best_arm_the_sentence_names_both_and_the_one_that_decides(decides: str) -> None:
    base = make_comparison(untuned=0.4)
    arm = replace(base, against="few_shot", untuned=0.6)
    one, other = (base, arm) if decides == "base" else (arm, base)
    text = describe(one, [other], METRICS["exact_match"], 0.05)
    assert text.startswith(
        f"Tuning helped. Exact match: base 40.0 %, few_shot 60.0 %, tuned 75.0 %: +25.0 points against {decides} (95 %"
    )
