"""Does it pay? Laws of money."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.plan import Plan, ServingPlan
from runner.report import to_json
from runner.roi import Roi, compute_roi
from tests.fakes import make_comparison, make_evaluation, make_side, make_test_plan

FREE = ServingPlan(
    prompt_tokens=None, output_tokens=None, usd_per_million_input=0, usd_per_million_output=0, usd_per_month=0
)
EVALUATION = make_evaluation(
    base=make_side(prompt_tokens=300.0, output_tokens=50.0), tuned=make_side(prompt_tokens=100.0, output_tokens=20.0)
)
QUICKSTART = make_test_plan()


def plan_for(
    current: ServingPlan = FREE,
    tuned: ServingPlan = FREE,
    *,
    one_time_usd: float = 0,
    usd_per_hour: float | None = 0,
    requests: float = 1000,
    horizon: int = 12,
) -> Plan:
    assert QUICKSTART.roi is not None
    roi = replace(
        QUICKSTART.roi,
        current=current,
        tuned=tuned,
        one_time_usd=one_time_usd,
        requests_per_month=requests,
        horizon_months=horizon,
    )
    return replace(QUICKSTART, roi=roi, budget=replace(QUICKSTART.budget, usd_per_hour=usd_per_hour))


def returns(plan: Plan, run_hours: float = 2) -> Roi:
    roi = compute_roi(plan, run_hours, EVALUATION)
    assert roi is not None
    return roi


def monthly(current: float, tuned: float, one_time_usd: float = 0, horizon: int = 12) -> Roi:
    """Two servers at a fixed price a month."""
    return returns(
        plan_for(
            replace(FREE, usd_per_month=current),
            replace(FREE, usd_per_month=tuned),
            one_time_usd=one_time_usd,
            horizon=horizon,
        )
    )


def test_without_a_question_about_money_there_is_no_answer() -> None:
    assert compute_roi(replace(QUICKSTART, roi=None), 1, EVALUATION) is None


def test_a_return_reckoned_by_hand() -> None:
    hosted = ServingPlan(
        prompt_tokens=600, output_tokens=50, usd_per_million_input=0.4, usd_per_million_output=1.6, usd_per_month=8
    )
    small = replace(FREE, usd_per_month=12, usd_per_million_output=0.5)
    roi = returns(plan_for(hosted, small, requests=40_000, one_time_usd=2, usd_per_hour=3), run_hours=0.5)
    assert roi.current_usd_per_month == pytest.approx(40_000 * (240 + 80) / 1e6 + 8)  # 20.80
    assert roi.tuned_usd_per_month == pytest.approx(40_000 * 20 * 0.5 / 1e6 + 12)  # 12.40
    assert roi.saving_usd_per_month == pytest.approx(8.4)
    assert roi.investment_usd == 3.5
    assert roi.payback_months == pytest.approx(3.5 / 8.4)
    assert roi.net_usd_over_horizon == pytest.approx(12 * 8.4 - 3.5)


PRICES = st.integers(0, 1000).map(float)
SERVING = st.builds(
    ServingPlan,
    prompt_tokens=st.none() | PRICES,
    output_tokens=st.none() | PRICES,
    usd_per_million_input=PRICES,
    usd_per_million_output=PRICES,
    usd_per_month=PRICES,
)
PLANS = st.builds(
    plan_for, SERVING, SERVING, one_time_usd=PRICES, usd_per_hour=PRICES, requests=st.integers(1, 10**6).map(float)
)


def doubled(serving: ServingPlan) -> ServingPlan:
    return replace(
        serving,
        usd_per_million_input=2 * serving.usd_per_million_input,
        usd_per_million_output=2 * serving.usd_per_million_output,
        usd_per_month=2 * serving.usd_per_month,
    )


@settings(deadline=None, max_examples=50)
@given(PLANS)
def test_doubling_every_price_doubles_the_cost_and_changes_no_payback(plan: Plan) -> None:
    assert plan.roi is not None and plan.budget.usd_per_hour is not None
    dear = replace(
        plan,
        roi=replace(
            plan.roi,
            current=doubled(plan.roi.current),
            tuned=doubled(plan.roi.tuned),
            one_time_usd=2 * plan.roi.one_time_usd,
        ),
        budget=replace(plan.budget, usd_per_hour=2 * plan.budget.usd_per_hour),
    )
    one, two = returns(plan), returns(dear)
    for name in ("current", "tuned", "saving"):
        assert getattr(two, f"{name}_usd_per_month") == pytest.approx(2 * getattr(one, f"{name}_usd_per_month"))
    assert two.investment_usd == pytest.approx(2 * one.investment_usd)
    assert two.net_usd_over_horizon == pytest.approx(2 * one.net_usd_over_horizon)
    assert two.payback_months == pytest.approx(one.payback_months)
    assert two.pays_back == one.pays_back


@settings(deadline=None, max_examples=50)
@given(PLANS)
def test_saving_payback_and_net_tell_one_story_in_finite_numbers(plan: Plan) -> None:
    roi = returns(plan)
    assert roi.saving_usd_per_month == roi.current_usd_per_month - roi.tuned_usd_per_month
    assert (roi.payback_months is None) == (roi.saving_usd_per_month <= 0)
    if roi.payback_months is not None:
        assert roi.payback_months * roi.saving_usd_per_month == pytest.approx(roi.investment_usd)
    if abs(roi.net_usd_over_horizon) > 1e-6:
        assert roi.pays_back == (roi.saving_usd_per_month > 0 and roi.net_usd_over_horizon > 0)
    assert all(math.isfinite(value) for value in asdict(roi).values() if isinstance(value, float))


@settings(deadline=None, max_examples=50)
@given(PLANS)
def test_what_it_costs_can_be_computed_again_from_the_inputs(plan: Plan) -> None:
    roi = returns(plan)
    value = {name: entry.value for name, entry in roi.inputs.items()}
    for side, cost in (("current", roi.current_usd_per_month), ("tuned", roi.tuned_usd_per_month)):
        request = sum(
            value[f"{side}.{tokens}"] * value[f"{side}.{price}"] / 1e6
            for tokens, price in (
                ("prompt_tokens", "usd_per_million_input"),
                ("output_tokens", "usd_per_million_output"),
            )
        )
        assert cost == pytest.approx(value["requests_per_month"] * request + value[f"{side}.usd_per_month"])
    assert roi.investment_usd == pytest.approx(value["run_hours"] * value["usd_per_hour"] + value["one_time_usd"])


@pytest.mark.parametrize(
    ("current", "tuned", "words"),
    [
        (10.0, 10.0, "It never pays back: serving the tuned model costs the same."),
        (10.0, 12.5, "It never pays back: serving the tuned model costs $2.50 more a month."),
    ],
)
def test_without_a_saving_it_never_pays_back(current: float, tuned: float, words: str) -> None:
    roi = monthly(current, tuned)
    assert (roi.payback_months, roi.pays_back, roi.text) == (None, False, words)
    assert json.loads(json.dumps(to_json(roi), allow_nan=False))["payback_months"] is None


@pytest.mark.parametrize(
    ("one_time_usd", "months", "pays_back", "words"),
    [
        (0, 0, True, "It pays back in 0.0 months and saves $10.00 a month."),
        (60, 6, True, "It pays back in 6.0 months and saves $10.00 a month."),
        (120, 12, True, "It pays back in 12.0 months and saves $10.00 a month."),
        (121, 12.1, False, "It does not pay back within 12 months: that would take 12.1."),
    ],
)
def test_it_pays_back_within_the_horizon_or_not(
    one_time_usd: float, months: float, pays_back: bool, words: str
) -> None:
    roi = monthly(30, 20, one_time_usd)
    assert roi.payback_months == pytest.approx(months)
    assert (roi.pays_back, roi.text) == (pays_back, words)


def test_a_longer_horizon_lets_more_pay_back() -> None:
    short, long = monthly(30, 20, 200), monthly(30, 20, 200, horizon=24)
    assert (short.pays_back, long.pays_back) == (False, True)
    assert long.net_usd_over_horizon == 24 * 10 - 200


def test_output_tokens_count() -> None:
    by_input = replace(FREE, prompt_tokens=10, output_tokens=30, usd_per_million_input=2)
    both = replace(by_input, usd_per_million_output=5)
    cheap, dear = (returns(plan_for(serving)).current_usd_per_month for serving in (by_input, both))
    assert dear - cheap == pytest.approx(1000 * 30 * 5 / 1e6)


@pytest.mark.parametrize(
    ("name", "side", "prompt", "output"), [("current", "base", 300.0, 50.0), ("tuned", "tuned", 100.0, 20.0)]
)
def test_tokens_that_are_not_written_are_those_measured_and_said_to_be(
    name: str, side: str, prompt: float, output: float
) -> None:
    inputs = returns(plan_for()).inputs
    for key, value in (("prompt_tokens", prompt), ("output_tokens", output)):
        assert (inputs[f"{name}.{key}"].value, inputs[f"{name}.{key}"].source) == (
            value,
            f"measured on the {side} model",
        )


def test_tokens_that_are_written_are_used_with_the_line_they_stand_on() -> None:
    found = returns(QUICKSTART).inputs["current.prompt_tokens"]
    name, _, line = found.source.partition(":")
    assert name == QUICKSTART.manifest_path.name
    written = QUICKSTART.manifest_path.read_text().splitlines()[int(line) - 1]
    assert written.split("#")[0].split() == ["prompt_tokens:", f"{found.value:g}"]


@pytest.mark.parametrize(
    ("price", "source"), [(None, "not given, counted as 0"), (0.0, "quickstart.yaml:"), (3.0, "quickstart.yaml:")]
)
def test_a_machine_without_a_price_is_said_to_have_none(price: float | None, source: str) -> None:
    roi = returns(plan_for(usd_per_hour=price, one_time_usd=7))
    assert roi.inputs["usd_per_hour"].source.startswith(source)
    assert roi.investment_usd == 2 * (price or 0) + 7


@pytest.mark.parametrize("verdict", ["improved", "equivalent", "worse", "inconclusive"])
def test_a_return_without_an_improvement_carries_a_warning(verdict: str) -> None:
    evaluation = make_evaluation(comparison=make_comparison(verdict=verdict))
    roi = compute_roi(QUICKSTART, 1, evaluation)
    assert roi is not None
    assert ("Beware" in roi.text) == (verdict != "improved")


def test_every_number_has_a_source() -> None:
    sources: dict[str, Any] = {name: entry.source for name, entry in returns(QUICKSTART).inputs.items()}
    assert len(sources) == 14 and all(sources.values())
