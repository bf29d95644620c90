"""Every arm on the same dev rows: scores, prices, the cap, and endpoints that fail or stay silent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.arms import NO_ROOM, ZERO_SHOT, Arm, make_arms
from runner.cost import answers_work, gate_work, work_hours
from runner.data.prepare import Dataset
from runner.errors import Exit, Problem, RunnerError
from runner.gate.measure import ArmResult, expected_usd, measure_arms, usd_per_1000
from runner.plan import Plan
from runner.scoring import read_scoring
from tests.fakes import SMALL, UNKNOWN, FakeChat, FakeSession, make_answerer, make_side, read_lines
from tests.gate.cases import ESTIMATE, FREE, dataset, model, plan, right

DOWN = RunnerError(Problem(code="endpoint/down", what="It is down."), Exit.UNAVAILABLE)
PROMPTING = "gate.arms=[zero_shot, few_shot]"


def measured(
    folder: Path,
    of: Plan,
    data: Dataset | None = None,
    session: FakeSession | None = None,
    chats: Mapping[str, FakeChat] | None = None,
    arms: tuple[Arm, ...] | None = None,
) -> dict[str, ArmResult]:
    data = data or dataset()
    scoring = read_scoring(of)
    answerer = make_answerer(of, data, session or FakeSession(), chats)
    chosen = make_arms(of, data, scoring.schema) if arms is None else arms
    results = measure_arms(of, data, ESTIMATE, chosen, answerer, scoring, folder)
    assert [one.name for one in results] == [arm.name for arm in chosen]
    return {one.name: one for one in results}


def mean(found: ArmResult, metric: str = "exact_match") -> float | None:
    interval = found.side.scores[metric] if found.side else None
    return interval.mean if interval else None


def test_every_arm_answers_the_same_dev_rows_and_keeps_its_answers(tmp_path: Path) -> None:
    data = dataset(40)
    session = FakeSession(answers={"few_shot": right(data), "nearest": right(data, 20)})
    found = measured(tmp_path, plan("gate.max_rows=30"), data, session)
    kept = {name: read_lines(tmp_path / f"{name}.jsonl") for name in found}
    first = kept["zero_shot"]
    assert len(first) == 30 and all([r["id"] for r in some] == [r["id"] for r in first] for some in kept.values())
    assert mean(found["few_shot"]) == 1 and mean(found["zero_shot"]) == 0
    drawn = sum(record["expected"] in right(data, 20).values() for record in first)
    assert mean(found["nearest"]) == pytest.approx(drawn / 30)
    assert all(record["scores"]["exact_match"]["value"] == 1 for record in kept["few_shot"])


def test_the_order_of_dev_rows_changes_no_figure(tmp_path: Path) -> None:
    data = dataset(50)
    session = FakeSession(answers={"zero_shot": right(data, 20), "few_shot": right(data, 33)})
    once = measured(tmp_path / "1", plan("gate.max_rows=30"), data, session)
    again = measured(tmp_path / "2", plan("gate.max_rows=30"), replace(data, dev=data.dev[::-1]), session)
    assert once == again
    assert (tmp_path / "1/few_shot.jsonl").read_text() == (tmp_path / "2/few_shot.jsonl").read_text()


@pytest.mark.parametrize("num_dev", [1, 2, 3])
def test_a_handful_of_dev_rows_is_measured_with_what_interval_there_is(tmp_path: Path, num_dev: int) -> None:
    data = dataset(num_dev)
    side = measured(tmp_path, plan(), data, FakeSession(answers={"zero_shot": right(data)}))["zero_shot"].side
    assert side and side.num_rows == num_dev
    interval = side.scores["exact_match"]
    assert interval and interval.mean == 1 and (interval.low is None or interval.low < 0.5)


def test_every_metric_is_taken_also_loss_and_similarity(tmp_path: Path) -> None:
    data = dataset(20)
    metrics = "eval.metrics=[exact_match, loss, similarity]"
    losses = {row.prompt[-1].content: 0.25 for row in data.dev}
    session = FakeSession(answers={"zero_shot": right(data)}, losses={"base": losses})
    of = plan(metrics, "eval.embedding=some/model")
    found = measured(tmp_path, of, data, session)
    assert [mean(found["zero_shot"], name) for name in ("exact_match", "loss", "similarity")] == [1, 0.25, 1]
    assert mean(found["few_shot"], "similarity") == 0


class TestEndpoints:
    def test_rows_that_it_did_not_answer_are_unscored_and_never_nought(self, tmp_path: Path) -> None:
        data = dataset(20)
        of = plan(PROMPTING, models=(model(price=1.0),))
        found = measured(tmp_path, of, data, chats={"large": FakeChat(answers=right(data, 8))})["large"]
        assert found.side and (found.side.num_unanswered, found.side.unscored) == (12, {"exact_match": 12})
        assert mean(found) == 1 and found.usd_per_1000
        silent = [record for record in read_lines(tmp_path / "large.jsonl") if record["output"] is None]
        assert len(silent) == 12
        assert all(record["scores"]["exact_match"]["value"] is None for record in silent)
        assert all("refused" in record["scores"]["exact_match"]["reason"] for record in silent)

    def test_one_that_answers_nothing_has_no_score_and_no_price(self, tmp_path: Path) -> None:
        found = measured(tmp_path, plan(models=(model(price=1.0),)), chats={"large": FakeChat()})["large"]
        assert found.side and found.side.num_unanswered == 30 and mean(found) is None
        assert found.usd_per_1000 is None and found.price_source.startswith("unknown")

    def test_one_that_fails_leaves_the_other_arms_their_figures(self, tmp_path: Path) -> None:
        data = dataset(20)
        of = plan(PROMPTING, models=(model("down"), model("up")))
        answerer = make_answerer(
            of, data, FakeSession(), {"down": FakeChat(failure=DOWN), "up": FakeChat(answers=right(data))}
        )
        scoring = read_scoring(of)
        arms = make_arms(of, data, None)
        found = {one.name: one for one in measure_arms(of, data, ESTIMATE, arms, answerer, scoring, tmp_path)}
        assert found["down"].side is None and "It is down." in str(found["down"].left_out)
        assert mean(found["zero_shot"]) == 0 and mean(found["up"]) == 1
        assert answerer.outages == [DOWN] and not (tmp_path / "down.jsonl").exists()

    def test_a_name_with_slashes_is_a_file_like_any_other(self, tmp_path: Path) -> None:
        measured(tmp_path, plan(models=(model("org/large"),)), chats={"org/large": FakeChat()})
        assert (tmp_path / "org-large.jsonl").is_file()


class TestPrice:
    def arm(self, price: float | None = None) -> Arm:
        return replace(ZERO_SHOT, name="large", kind="model", model=model(price=price))

    def test_is_the_endpoints_own(self) -> None:
        side = make_side(prompt_tokens=200.0, output_tokens=40.0)
        assert usd_per_1000(plan(), self.arm(5.0), side) == (
            pytest.approx(1000 * 240 * 5 / 1e6),
            "the endpoint's prices in gate.models",
        )
        for arm, known in ((self.arm(None), side), (self.arm(5.0), make_side(output_tokens=None))):
            usd, source = usd_per_1000(plan(), arm, known)
            assert usd is None and source.startswith("unknown")

    def test_is_that_of_the_server_that_the_tuned_model_would_have(self) -> None:
        prices = {"usd_per_million_input": 2, "usd_per_million_output": 5, "usd_per_month": 300}
        of = plan("roi.requests_per_month=100000", *(f"roi.tuned.{key}={value}" for key, value in prices.items()))
        usd, source = usd_per_1000(of, ZERO_SHOT, make_side(prompt_tokens=200.0, output_tokens=40.0))
        assert usd == pytest.approx(0.2 * 2 + 0.04 * 5 + 3) and "roi.tuned" in source

    def test_is_else_that_of_this_machines_time_if_it_has_one(self) -> None:
        side = make_side(seconds_per_answer=1.8)
        usd, source = usd_per_1000(plan(FREE, "budget.usd_per_hour=2.0"), ZERO_SHOT, side)
        assert usd == pytest.approx(1000 * 1.8 / 3600 * 2) and "measured time" in source
        assert usd_per_1000(plan(FREE, "budget.usd_per_hour=null"), ZERO_SHOT, side)[0] is None


class TestCap:
    def costs(self, of: Plan, data: Dataset) -> dict[str, float]:
        found = {arm.name: expected_usd(of, data, ESTIMATE, arm, 30) for arm in make_arms(of, data, None)}
        return {name: cost for name, cost in found.items() if cost is not None}

    def capped(self, of: Plan, max_usd: float) -> Plan:
        return replace(of, gate=replace(of.gate, max_usd=max_usd))

    def test_it_leaves_out_just_those_arms_that_would_go_over_it(self, tmp_path: Path) -> None:
        data, chats = dataset(), {"large": FakeChat(), "small": FakeChat()}
        of = plan(models=(model("large", 900.0), model("small", 0.001)))
        costs = self.costs(of, data)
        assert len(costs) == 6 and costs["nearest"] > costs["zero_shot"] > 0
        total = sum(cost for name, cost in costs.items() if name != "large")
        enough = measured(tmp_path, self.capped(of, total * 1.001), data, chats=chats)
        assert [name for name, one in enough.items() if one.left_out] == ["large"]
        assert "gate.max_usd" in str(enough["large"].left_out) and chats["large"].asked == []
        less = measured(tmp_path, self.capped(of, total * 0.999), data, chats=chats)
        assert [name for name, one in less.items() if one.left_out] == ["large", "small"]

    def test_what_it_holds_just_fits(self, tmp_path: Path) -> None:
        data, of = dataset(), plan("gate.arms=[zero_shot]")
        cost = self.costs(of, data)["zero_shot"]
        assert measured(tmp_path, self.capped(of, cost), data)["zero_shot"].left_out is None
        assert measured(tmp_path, self.capped(of, cost * 0.999), data)["zero_shot"].left_out

    @pytest.mark.parametrize(
        ("of", "unknown"),
        [
            (plan("budget.usd_per_hour=null", models=(model(price=0.001),)), {"zero_shot", "few_shot"}),
            (plan(models=(model(),)), {"large"}),
            (replace(plan(models=(model(price=0.001),)), model_facts=UNKNOWN), {"zero_shot", "few_shot"}),
        ],
    )
    def test_an_unknown_cost_is_not_taken_for_nothing(self, tmp_path: Path, of: Plan, unknown: set[str]) -> None:
        of = replace(of, gate=replace(of.gate, arms=("zero_shot", "few_shot")))
        found = measured(tmp_path, self.capped(of, 1e9), chats={"large": FakeChat()})
        assert {name for name, one in found.items() if one.left_out} == unknown
        assert all("cost is unknown" in str(found[name].left_out) for name in unknown)
        assert all(one.left_out is None for one in measured(tmp_path, of, chats={"large": FakeChat()}).values())

    def test_an_arm_that_has_no_room_costs_nothing_and_keeps_its_own_reason(self, tmp_path: Path) -> None:
        of = replace(plan(), model_facts=replace(SMALL, context_tokens=150))
        found = measured(tmp_path, self.capped(of, 1e-9))
        assert found["few_shot"].left_out == NO_ROOM and "gate.max_usd" in str(found["zero_shot"].left_out)

    def test_reading_the_expected_answers_for_their_loss_costs_too(self) -> None:
        once, twice = (plan(f"eval.metrics={metrics}") for metrics in ("[chrf]", "[chrf, loss]"))
        costs = [expected_usd(of, dataset(), ESTIMATE, ZERO_SHOT, 30) for of in (once, twice)]
        assert costs[0] and costs[1] and costs[1] > costs[0]
        endpoint = replace(ZERO_SHOT, model=model(price=1.0))
        assert expected_usd(once, dataset(), ESTIMATE, endpoint, 30) == expected_usd(
            twice, dataset(), ESTIMATE, endpoint, 30
        )


class TestWork:
    def test_a_row_is_one_of_those_in_use_however_many_were_dropped(self) -> None:
        data = dataset()
        dropped = replace(data, tokens=replace(data.tokens, num_counted=10 * data.tokens.num_counted))
        assert answers_work(dropped, 5, 2) == answers_work(data, 5, 2)
        assert (answers_work(data, 5, 2).read, answers_work(data, 5, 2).written) == (5 * (80 + 200), 5 * 20)

    def test_the_gate_reads_every_prompt_again_where_a_metric_is_a_loss(self) -> None:
        data, arms = dataset(), "gate.arms=[zero_shot, instruction]"
        once, twice = (gate_work(plan(arms, f"eval.metrics={m}"), data) for m in ("[chrf]", "[perplexity]"))
        assert (once.read, twice.read) == (60 * 80, 60 * (80 + 80 + 20)) and once.written == twice.written

    def test_hours_are_unknown_with_size_or_speed(self) -> None:
        work: Any = answers_work(dataset(), 30)
        assert work_hours(plan(), ESTIMATE, work)
        assert work_hours(replace(plan(), model_facts=UNKNOWN), ESTIMATE, work) is None
        assert work_hours(plan(), replace(ESTIMATE, matmul_tflops=None), work) is None


def test_the_prompt_of_a_prompting_arm_is_left_ready_to_use(tmp_path: Path) -> None:
    data = dataset()
    measured(tmp_path, plan(PROMPTING, "gate.shots=2"), data)
    turns = json.loads((tmp_path / "few_shot.prompt.json").read_text(encoding="utf-8"))["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert turns[-1]["content"] == "{{question}}"
    known = {(row.prompt[-1].content, row.expected) for row in data.own}
    assert {(turns[1]["content"], turns[2]["content"]), (turns[3]["content"], turns[4]["content"])} <= known
    assert not (tmp_path / "nearest.prompt.json").exists(), "it differs from question to question"
