"""The estimate: exact in tokens, linear in price, and never silently fine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.cost import START_HOURS, Band, Estimate, check_budget, estimate_cost
from runner.data.prepare import Dataset
from runner.errors import Exit, Refused
from runner.plan import Plan
from tests.fakes import UNKNOWN, facts_of_size, make_dataset, make_ledger, make_test_plan

DATASET = make_dataset(400, 60)
RATE = 1e11


def estimate(plan: Plan, dataset: Dataset = DATASET, rate: float = RATE) -> Estimate:
    return estimate_cost(plan, dataset, lambda: rate)


def hours(found: Estimate) -> tuple[float, float, float]:
    assert found.hours is not None
    return found.hours.low, found.hours.expected, found.hours.high


def work_hours(found: Estimate) -> list[float]:
    return [value - START_HOURS for value in hours(found)]


def budget(plan: Plan, **changes: float | None) -> Plan:
    unset = {"max_hours": None, "max_usd": None, "usd_per_hour": 2.0}
    return replace(plan, budget=replace(plan.budget, **{**unset, **changes}))


NOT_FORGOTTEN = "eval.forgetting.measure=false"


def test_tokens_are_those_of_all_epochs() -> None:
    assert estimate(make_test_plan("hyperparameters.epochs=2.5")).train_tokens == 2.5 * 400 * 100


def test_tokens_are_those_of_all_steps_where_steps_are_asked_for() -> None:
    rows = make_test_plan("hyperparameters={ max_steps: 50, batch_size: 16 }")
    assert estimate(rows).train_tokens == 50 * 16 * 100
    assert estimate(make_test_plan("hyperparameters={ max_steps: 7, batch_tokens: 4000 }")).train_tokens == 7 * 4000


@pytest.mark.parametrize(("written", "key"), [("epochs: 1", "epochs"), ("max_steps: 9", "max_steps")])
def test_a_run_that_is_too_dear_is_told_which_length_to_lower(written: str, key: str) -> None:
    plan = budget(make_test_plan(f"hyperparameters={{ {written} }}"), max_hours=1e-9)
    with pytest.raises(Refused) as caught:
        check_budget(plan, estimate(plan))
    assert f"Lower hyperparameters.{key}," in caught.value.problems[0].fix


def test_the_gates_tokens_are_those_of_every_arm_on_the_dev_rows_with_its_examples() -> None:
    plan = make_test_plan("gate.arms=[zero_shot, few_shot]", "gate.shots=3")
    assert estimate(plan).gate_tokens == 30 * (80 + 20) + 30 * (80 + 3 * 100 + 20)
    assert estimate(make_test_plan("gate.arms=[zero_shot]", "gate.max_rows=20")).gate_tokens == 20 * 100
    assert estimate(make_test_plan("gate.policy=skip", "gate.reason=seen")).gate_tokens == 0


def test_the_evaluations_tokens_are_those_of_base_best_arm_and_tuned_answered_and_scored() -> None:
    answered = 60 * (2 * 100 + 80 + 2 * 100 + 20)
    plan = make_test_plan(NOT_FORGOTTEN, "gate.shots=2")
    assert estimate(plan).evaluation_tokens == answered
    scored = make_test_plan(NOT_FORGOTTEN, "gate.shots=2", "eval.metrics=[chrf, loss]")
    assert estimate(scored).evaluation_tokens == answered + 60 * (2 * 80 + 80 + 2 * 100 + 3 * 20)
    assert estimate(make_test_plan(NOT_FORGOTTEN, "gate.policy=skip", "gate.reason=seen")).evaluation_tokens == 12_000
    assert estimate(make_test_plan("gate.shots=2")).evaluation_tokens > answered


def test_dropped_rows_do_not_thin_the_tokens_of_a_row() -> None:
    used = DATASET.ledger.num_rows
    dropped = replace(DATASET, ledger=make_ledger(used + 100, num_faulty=100))
    assert estimate(make_test_plan(), dropped) == estimate(make_test_plan())


@pytest.mark.parametrize("size", [135_000_000, 7_000_000_000])
def test_twice_the_rows_or_the_model_take_twice_the_hours_and_twice_the_machine_half(size: int) -> None:
    plan = make_test_plan(NOT_FORGOTTEN, facts=facts_of_size(size))
    once = work_hours(estimate(plan))
    double_rows = replace(DATASET, train_tokens=2 * DATASET.train_tokens, dev=DATASET.dev * 2, test=DATASET.test * 2)
    assert work_hours(estimate(plan, double_rows)) == pytest.approx([2 * h for h in once])
    assert work_hours(estimate(replace(plan, model_facts=facts_of_size(2 * size)))) == pytest.approx(
        [2 * h for h in once]
    )
    assert work_hours(estimate(plan, rate=2 * RATE)) == pytest.approx([h / 2 for h in once])


def test_full_tuning_takes_longer_than_an_adapter() -> None:
    adapter, full = (make_test_plan(f"approach.kind={kind}") for kind in ("lora", "full"))
    assert hours(estimate(full)) > hours(estimate(adapter))


def test_the_expected_value_lies_inside_its_band() -> None:
    low, expected, high = hours(estimate(make_test_plan()))
    assert START_HOURS < low < expected < high


def test_dollars_are_linear_in_the_price_and_absent_without_one() -> None:
    plan = make_test_plan()
    found = {price: estimate(budget(plan, usd_per_hour=price)).usd for price in (0.0, 1.5, 3.0, None)}
    one, two = found[1.5], found[3.0]
    assert one is not None and two is not None
    assert (two.low, two.expected, two.high) == pytest.approx((2 * one.low, 2 * one.expected, 2 * one.high))
    assert found[0.0] == Band(low=0, expected=0, high=0)
    assert found[None] is None


def test_a_model_of_unknown_size_has_no_hours_and_needs_no_measurement() -> None:
    def measure() -> float:
        raise AssertionError("nothing to measure for")

    found = estimate_cost(make_test_plan(facts=UNKNOWN), DATASET, measure)
    assert (found.hours, found.usd, found.matmul_tflops) == (None, None, None)
    assert found.train_tokens > 0


KNOWN = Estimate(
    train_tokens=1,
    gate_tokens=1,
    evaluation_tokens=1,
    hours=Band(low=1, expected=3, high=9),
    usd=Band(low=2, expected=6, high=18),
    matmul_tflops=1.0,
    memory=None,
)
PRICELESS = replace(KNOWN, usd=None)
SIZELESS = replace(PRICELESS, hours=None)
EXCEEDED, SIZE, PRICE = "more than budget", "the model's size is unknown", "the machine's price is unknown"


@pytest.mark.parametrize(
    ("found", "limits", "refused"),
    [
        (KNOWN, {}, {}),
        (SIZELESS, {}, {}),
        (KNOWN, {"max_hours": 3.0, "max_usd": 6.0}, {}),
        (KNOWN, {"max_hours": 2.9}, {"max_hours": EXCEEDED}),
        (KNOWN, {"max_usd": 5.9}, {"max_usd": EXCEEDED}),
        (KNOWN, {"max_hours": 1.0, "max_usd": 1.0}, {"max_hours": EXCEEDED, "max_usd": EXCEEDED}),
        (KNOWN, {"max_hours": 1.0, "max_usd": 100.0}, {"max_hours": EXCEEDED}),
        (SIZELESS, {"max_hours": 1e9}, {"max_hours": SIZE}),
        (SIZELESS, {"max_usd": 1e9}, {"max_usd": SIZE}),
        (PRICELESS, {"max_usd": 1e9}, {"max_usd": PRICE}),
        (PRICELESS, {"max_usd": 1e9, "max_hours": 1e9}, {"max_usd": PRICE}),
    ],
)
def test_a_budget_is_kept_or_refused_with_the_reason(
    found: Estimate, limits: dict[str, float | None], refused: dict[str, str]
) -> None:
    plan = budget(make_test_plan(), **limits)
    if not refused:
        check_budget(plan, found)
        return
    with pytest.raises(Refused) as caught:
        check_budget(plan, found)
    assert caught.value.exit_code == Exit.SAID_NO
    assert {p.where.key for p in caught.value.problems} == {f"budget.{key}" for key in refused}
    for problem, words in zip(caught.value.problems, refused.values(), strict=True):
        assert problem.code == "budget/exceeded" and words in problem.what and problem.fix
