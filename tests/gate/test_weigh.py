"""From the arms' figures to a verdict: edges, prices, targets, and what may never turn it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.arms import NO_ROOM
from runner.cost import Estimate
from runner.errors import Exit, RunnerError
from runner.gate.measure import ArmResult
from runner.gate.weigh import Target, Weighed, find_target, rows_to_tell, tuned_price, weigh
from runner.metrics import METRICS, Metric, Score
from runner.plan import Plan
from runner.scoring import Scoring
from runner.stats import Interval
from tests.gate.cases import ESTIMATE, FREE, dataset, plan, result

ENOUGH = ("prompting_enough", "prompting_cheaper", "retrieval_enough")
WRONG_SHARE = Metric(score=lambda answer: Score(value=0.0), title="errors", higher_is_better=False)
SECONDS = replace(WRONG_SHARE, unit="seconds", bounds=None)
OURS = {**METRICS, "errors": WRONG_SHARE, "seconds": SECONDS}


def scoring(*names: str) -> Scoring:
    chosen = {name: OURS[name] for name in names or ("exact_match",)}
    return Scoring(metrics=chosen, schema=None, pattern=None, seed=0, resamples=1000)


def weighed(
    arms: Sequence[ArmResult],
    target: float | None = 0.8,
    *,
    metric: str = "exact_match",
    of: Plan | None = None,
    tuned_usd: float | None = None,
    estimate: Estimate = ESTIMATE,
) -> Weighed:
    goal = None if target is None else Target(metric=metric, value=target, origin="written")
    return weigh(of or plan(FREE), arms, goal, tuned_usd, estimate, scoring(metric))


def priced(requests: int = 100_000, horizon: int = 10, one_time: int = 900) -> Plan:
    """The run costs 100 dollars and the rest 900: 1,000 to earn back in 10 months at 100 a month."""
    written = {"requests_per_month": requests, "horizon_months": horizon, "one_time_usd": one_time}
    return plan(*(f"roi.{key}={value}" for key, value in written.items()))


class TestTarget:
    @pytest.mark.parametrize(
        ("metrics", "margin", "target"),
        [
            (("exact_match", "chrf"), 0.05, ("exact_match", 0.95)),
            (("exact_match",), 0.7, ("exact_match", 0.3)),
            (("errors",), 0.05, ("errors", 0.05)),
            (("loss", "chrf"), 0.05, ("chrf", 0.95)),
            (("seconds", "judge", "errors"), 0.1, ("errors", 0.1)),
            (("judge", "chrf"), 0.02, ("chrf", 0.98)),
            (("loss", "judge", "seconds"), 0.02, None),
        ],
    )
    def test_unless_written_it_is_the_best_there_can_be_less_the_margin(
        self, metrics: tuple[str, ...], margin: float, target: tuple[str, float] | None
    ) -> None:
        found = find_target(plan(f"eval.margin={margin}"), scoring(*metrics))
        assert (found and (found.metric, found.value)) == target

    @pytest.mark.parametrize(
        ("metric", "value"), [("exact_match", 0), ("exact_match", 1), ("loss", 1.7), ("seconds", 9)]
    )
    def test_a_written_one_is_of_the_first_metric(self, metric: str, value: float) -> None:
        found = find_target(plan(f"gate.target={value}"), scoring(metric, "chrf"))
        assert found == Target(metric=metric, value=value, origin="--set")

    @pytest.mark.parametrize(
        ("metric", "value", "told"),
        [("chrf", 90, "between 0 and 1"), ("errors", -0.1, "-0.1"), ("judge", 0.5, "judge")],
    )
    def test_one_that_no_arm_can_have_is_a_fault(self, metric: str, value: float, told: str) -> None:
        with pytest.raises(RunnerError, match=told) as caught:
            find_target(plan(f"gate.target={value}"), scoring(metric, "exact_match"))
        (problem,) = caught.value.problems
        assert (problem.code, problem.where.key, caught.value.exit_code) == (
            "gate/target",
            "gate.target",
            Exit.MANIFEST,
        )
        assert problem.fix


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "verdict"),
        [
            (0.8, 0.9, "prompting_enough"),
            (0.81, 1.0, "prompting_enough"),
            (0.799, 0.9, "inconclusive"),
            (0.1, 0.8, "inconclusive"),
            (0.1, 0.799, "fine_tune"),
            (None, None, "inconclusive"),
        ],
    )
    def test_the_whole_interval_counts(self, low: float | None, high: float | None, verdict: str) -> None:
        found = weighed([result("zero_shot", 0.5, low, high)])
        assert (found.verdict, found.best) == (verdict, "zero_shot")
        assert bool([f for f in found.findings if f.severity == "error"]) == (verdict == "inconclusive")
        assert (found.enough == "zero_shot") == (verdict == "prompting_enough")

    @pytest.mark.parametrize("metric", ["errors", "loss", "seconds"])
    @pytest.mark.parametrize(
        ("low", "high", "verdict"),
        [(0.1, 0.2, "prompting_enough"), (0.1, 0.21, "inconclusive"), (0.2, 9, "inconclusive"), (0.21, 9, "fine_tune")],
    )
    def test_where_lower_is_better_the_upper_end_must_reach_it(
        self, metric: str, low: float, high: float, verdict: str
    ) -> None:
        arms = [result("zero_shot", 10, 10, 11, metric=metric), result("few_shot", low, low, high, metric=metric)]
        found = weighed(arms, 0.2, metric=metric)
        assert (found.verdict, found.best) == (verdict, "few_shot")

    @pytest.mark.parametrize(
        ("reaching", "verdict"),
        [
            (["nearest"], "retrieval_enough"),
            (["nearest", "few_shot"], "prompting_enough"),
            (["large"], "prompting_enough"),
            (["zero_shot", "large"], "prompting_enough"),
        ],
    )
    def test_it_is_retrievals_where_nothing_else_reaches_it(self, reaching: list[str], verdict: str) -> None:
        arms = [result(name, 0.9, 0.85, 0.95) for name in reaching] + [result("instruction")]
        assert weighed(arms).verdict == verdict
        dear = [replace(arm, usd_per_1000=50.0) for arm in arms]
        if verdict == "retrieval_enough":
            assert weighed(dear, of=priced(), tuned_usd=100.0).verdict == verdict

    def test_one_arm_that_reaches_it_outweighs_what_is_open_or_missing(self) -> None:
        arms = [result("few_shot"), result("zero_shot", 0.9, 0.8, 1), result("large", left_out="over the cap")]
        found = weighed([replace(arm) for arm in arms], 0.55)
        assert found.verdict == "prompting_enough"
        assert [f.code for f in found.findings] == ["gate/reached", "gate/not-measured"]

    @pytest.mark.parametrize("missing", [result("large", left_out="it failed"), result("large", None)])
    def test_an_arm_that_was_not_measured_leaves_it_open(self, missing: ArmResult) -> None:
        found = weighed([result("zero_shot"), missing])
        assert found.verdict == "inconclusive"
        told = found.findings[-1]
        assert told.severity == "warning" and told.fix and told.where.key == "gate.models"
        assert "'large' was not measured" in told.what
        alone = weighed([missing])
        assert (alone.verdict, alone.best) == ("inconclusive", None)

    def test_examples_that_the_context_cannot_hold_are_no_way_of_answering(self) -> None:
        arms = [result("zero_shot"), result("few_shot", left_out=NO_ROOM)]
        found = weighed(arms)
        assert found.verdict == "fine_tune" and [f.code for f in found.findings] == ["gate/not-measured"]
        assert weighed(arms[1:]).verdict == "inconclusive", "nothing was measured at all"

    def test_without_a_target_it_is_open_and_the_best_arm_is_known_all_the_same(self) -> None:
        arms = [result("zero_shot", 2.0, 1.0, 3.0, metric="loss"), result("few_shot", 1.0, 0.5, 1.5, metric="loss")]
        found = weighed(arms, None, metric="loss")
        assert (found.verdict, found.best) == ("inconclusive", "few_shot")
        assert [f.code for f in found.findings] == ["gate/no-target"]
        assert weighed([], None).best is None

    def test_it_says_on_how_many_rows_that_rests(self) -> None:
        for goal, verdict in ((0.3, "prompting_enough"), (0.5, "inconclusive"), (0.8, "fine_tune")):
            found = weighed([result("zero_shot", unscored={"exact_match": 13})], goal)
            assert found.verdict == verdict and " 47 dev rows" in found.text

    def test_every_finding_of_the_gate_says_what_to_do(self) -> None:
        cases = [[result(mean=0.9, low=0.85)], [result()], [result("large", left_out="x")], [result(high=0.9)], []]
        for arms in cases:
            assert all(f.fix and f.where.key for f in weighed(arms).findings)


class TestBest:
    def test_ties_are_broken_by_the_other_metrics_then_by_length_then_by_name(self) -> None:
        def arm(name: str, chrf: float | None, tokens: float | None) -> ArmResult:
            other = None if chrf is None else Interval(mean=chrf, low=0, high=1)
            scores = {"exact_match": Interval(mean=0.5, low=0.4, high=0.6), "chrf": other}
            return result(name, scores=scores, prompt_tokens=tokens, unscored={"exact_match": 0, "chrf": 0})

        order = [arm("d", 0.9, 900), arm("c", 0.8, 10), arm("a", 0.8, 20), arm("b", 0.8, 20), arm("e", 0.8, None)]
        order.append(arm("f", None, 1))
        goal = Target(metric="exact_match", value=0.8, origin="written")
        for number in range(len(order)):
            for left in permutations(order[number : number + 3]):
                found = weigh(plan(FREE), left, goal, None, ESTIMATE, scoring("exact_match", "chrf"))
                assert found.best == order[number].name

    def test_of_another_metric_the_lower_value_wins_where_lower_is_better(self) -> None:
        def arm(name: str, errors: float) -> ArmResult:
            scores = {
                "exact_match": Interval(mean=0.5, low=0.4, high=0.6),
                "errors": Interval(mean=errors, low=0, high=1),
            }
            return result(name, scores=scores, unscored={"exact_match": 0, "errors": 0})

        goal = Target(metric="exact_match", value=0.8, origin="written")
        found = weigh(
            plan(FREE), [arm("a", 0.3), arm("b", 0.2)], goal, None, ESTIMATE, scoring("exact_match", "errors")
        )
        assert found.best == "b"


class TestPrices:
    """A thousand requests of an arm at 2 dollars against 1 tuned saves 100 a month, with 100,000 requests."""

    @pytest.mark.parametrize(
        ("usd", "horizon", "verdict"),
        [
            (2.0, 10, "fine_tune"),
            (2.0, 9, "prompting_cheaper"),
            (2.1, 10, "fine_tune"),
            (1.9, 10, "prompting_cheaper"),
            (1.0, 120, "prompting_cheaper"),
            (0.0, 120, "prompting_cheaper"),
            (None, 120, "prompting_enough"),
        ],
    )
    def test_tuning_must_pay_back_within_the_horizon(self, usd: float | None, horizon: int, verdict: str) -> None:
        arm = result("few_shot", 0.9, 0.85, 0.95, usd=usd)
        found = weighed([arm], of=priced(horizon=horizon), tuned_usd=1.0)
        assert found.verdict == verdict
        assert ("would pay back in" in found.text) == (verdict == "fine_tune")

    @pytest.mark.parametrize(("usd", "verdict"), [(1.0, "prompting_cheaper"), (1.5, "fine_tune")])
    def test_nothing_to_earn_back_pays_back_at_once_if_anything_is_saved(self, usd: float, verdict: str) -> None:
        unknown = replace(ESTIMATE, usd=None)
        found = weighed([result(low=0.85, usd=usd)], of=priced(one_time=0), tuned_usd=1.0, estimate=unknown)
        assert found.verdict == verdict and "unknown, and counted as 0" in found.text

    def test_the_cheapest_arm_that_reaches_it_counts(self) -> None:
        dear, cheap = result("few_shot", 0.9, 0.85, 0.95, usd=9.0), result("nearest", 0.9, 0.85, 0.95, usd=1.1)
        for arms in ([dear, cheap], [cheap, dear]):
            found = weighed(arms, of=priced(), tuned_usd=1.0)
            assert found.verdict == "prompting_cheaper" and found.text.startswith("nearest")
        assert weighed([dear, result("zero_shot", usd=0.0)], of=priced(), tuned_usd=1.0).verdict == "fine_tune"

    def test_an_arm_of_unknown_price_is_not_taken_for_a_dear_one(self) -> None:
        arms = [result("few_shot", 0.9, 0.85, 0.95, usd=9.0), result("large", 0.9, 0.85, 0.95)]
        found = weighed(arms, of=priced(), tuned_usd=1.0)
        assert found.verdict == "prompting_enough" and "large" in found.text
        cheap = [replace(arms[0], usd_per_1000=1.1), arms[1]]
        assert weighed(cheap, of=priced(), tuned_usd=1.0).verdict == "prompting_cheaper"

    def test_the_tuned_models_tokens_are_the_written_ones_even_none_at_all(self) -> None:
        prices = (
            "roi.tuned.usd_per_million_input=1000",
            "roi.tuned.usd_per_million_output=100",
            "roi.tuned.usd_per_month=0",
        )
        assert tuned_price(plan(*prices), dataset()) == pytest.approx(80 + 2)
        assert tuned_price(plan(*prices, "roi.tuned.prompt_tokens=10"), dataset()) == pytest.approx(10 + 2)
        assert tuned_price(plan(*prices, "roi.tuned.prompt_tokens=0"), dataset()) == pytest.approx(2)
        assert tuned_price(plan(*prices, "roi.tuned.output_tokens=0"), dataset()) == pytest.approx(80)
        assert tuned_price(plan(FREE), dataset()) is None


ends = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)).map(sorted)
prices = st.none() | st.floats(0, 100)
arms_drawn = st.lists(st.tuples(ends, prices, st.sampled_from(["named", "missing", "no room"])), min_size=1, max_size=4)


def made(drawn: list[Any]) -> list[ArmResult]:
    reasons = {"named": None, "missing": "it failed", "no room": NO_ROOM}
    names = ("zero_shot", "few_shot", "nearest", "large")
    return [
        result(name, mean, low, high, usd=usd, left_out=reasons[kind])
        for name, ((low, mean, high), usd, kind) in zip(names, drawn, strict=False)
    ]


class TestLaws:
    @settings(max_examples=200, deadline=None)
    @given(arms_drawn, st.floats(0, 1), st.floats(0, 1), st.booleans())
    def test_a_higher_target_never_turns_fine_tune_into_enough(
        self, drawn: list[Any], one: float, other: float, has_prices: bool
    ) -> None:
        lower, higher = sorted((one, other))
        arms, of = made(drawn), priced() if has_prices else plan(FREE)
        tuned = 1.0 if has_prices else None
        if weighed(arms, lower, of=of, tuned_usd=tuned).verdict == "fine_tune":
            assert weighed(arms, higher, of=of, tuned_usd=tuned).verdict not in ENOUGH

    @settings(max_examples=200, deadline=None)
    @given(arms_drawn, st.floats(0, 1), st.floats(0, 100))
    def test_twice_all_prices_change_no_verdict(self, drawn: list[Any], target: float, tuned: float) -> None:
        arms = made(drawn)
        dear = [replace(arm, usd_per_1000=None if arm.usd_per_1000 is None else 2 * arm.usd_per_1000) for arm in arms]
        assert ESTIMATE.usd
        cost = replace(ESTIMATE, usd=replace(ESTIMATE.usd, expected=2 * ESTIMATE.usd.expected))
        once = weighed(arms, target, of=priced(), tuned_usd=tuned)
        twice = weighed(dear, target, of=priced(one_time=1800), tuned_usd=2 * tuned, estimate=cost)
        assert (once.verdict, once.best) == (twice.verdict, twice.best)

    @settings(max_examples=100, deadline=None)
    @given(arms_drawn, st.floats(0, 1), st.randoms(use_true_random=False))
    def test_the_order_of_arms_changes_nothing(self, drawn: list[Any], target: float, random: Any) -> None:
        arms = made(drawn)
        shuffled = random.sample(arms, len(arms))
        once, again = (weighed(some, target, of=priced(), tuned_usd=1.0) for some in (arms, shuffled))
        assert (once.verdict, once.best, once.text) == (again.verdict, again.best, again.text)

    @settings(max_examples=100, deadline=None)
    @given(arms_drawn, st.floats(0, 1))
    def test_mirrored_scores_with_lower_as_better_give_the_same_verdict(self, drawn: list[Any], target: float) -> None:
        arms = made([([low / 2, mean / 2, high / 2], usd, kind) for (low, mean, high), usd, kind in drawn])

        def mirror(arm: ArmResult) -> ArmResult:
            interval = arm.side.scores["exact_match"] if arm.side else None
            if interval is None or interval.low is None or interval.high is None:
                return arm
            return result(
                arm.name, -interval.mean, -interval.high, -interval.low, metric="seconds", usd=arm.usd_per_1000
            )

        once = weighed(arms, target / 2)
        again = weighed([mirror(arm) for arm in arms], -target / 2, metric="seconds")
        assert (once.verdict, once.best) == (again.verdict, again.best)


class TestRowsToTell:
    def test_four_times_the_rows_halve_an_interval(self) -> None:
        assert rows_to_tell(Interval(mean=0.5, low=0.25, high=0.75), 50, 0.625) == 200
        assert rows_to_tell(Interval(mean=0.5, low=0.25, high=0.75), 50, 0.375) == 200

    def test_it_is_always_more_than_there_are(self) -> None:
        assert rows_to_tell(Interval(mean=0.5, low=0.45, high=0.95), 50, 0.9) == 51

    @pytest.mark.parametrize(("mean", "low"), [(0.8, 0.7), (0.8049, 0.7), (0.7, None)])
    def test_a_mean_on_the_target_or_without_an_interval_cannot_say(self, mean: float, low: float | None) -> None:
        assert rows_to_tell(Interval(mean=mean, low=low, high=low and 0.9), 50, 0.8) is None

    def test_the_verdict_says_it_or_that_it_cannot(self) -> None:
        assert "About 240 dev rows would tell." in weighed([result("zero_shot", 0.7, 0.5, 0.9)]).text
        assert "No usual number" in weighed([result("zero_shot", 0.8, 0.7, 0.9)]).text
        assert "With more dev rows" in weighed([result("zero_shot", 1.0, None, None)]).text
