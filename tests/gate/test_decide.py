"""The gate as a whole: arms answered by a scripted model, and the verdict that follows."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from runner.arms import ZERO_SHOT
from runner.backends.base import HeldOutLoss, Side, Watch
from runner.conversation import Example
from runner.data.prepare import Dataset
from runner.errors import Exit, Problem, RunnerError
from runner.gate.decide import Decision, decide, decide_for_free
from runner.metrics import METRICS, Metric, Score
from runner.plan import Plan
from runner.scoring import Scoring, read_scoring
from tests.fakes import FakeChat, FakeSession, make_answerer, question
from tests.gate.cases import ESTIMATE, FREE, dataset, model, plan, right, rows

ARMS = ("zero_shot", "instruction", "few_shot", "nearest")
DOWN = RunnerError(Problem(code="endpoint/down", what="It is down."), Exit.UNAVAILABLE)
GOOD = "gate.target=0.8"
WARN = ("gate.policy=warn", "gate.reason=seen")
JUDGE = "eval.judge={endpoint: {base_url: 'http://judge.test/v1', model: wise}, rubric: Right., min_gold_wins: 0.9}"
DEAR = ("roi.tuned.usd_per_million_input=1000", "roi.tuned.usd_per_month=0", "roi.one_time_usd=1")


def decided(
    folder: Path,
    of: Plan,
    data: Dataset | None = None,
    session: FakeSession | None = None,
    chats: Mapping[str, Any] | None = None,
    scoring: Scoring | None = None,
) -> Decision:
    data, session = data or dataset(), session or FakeSession()
    answerer = make_answerer(of, data, session, chats)
    return decide(of, data, ESTIMATE, answerer, scoring or read_scoring(of), folder)


def perfect(*arms: str, data: Dataset | None = None) -> FakeSession:
    return FakeSession(answers={arm: right(data or dataset()) for arm in arms})


def errors(decision: Decision) -> list[str]:
    return [finding.code for finding in decision.findings if finding.severity == "error"]


class TestVerdicts:
    @pytest.mark.parametrize("arm", ["zero_shot", "instruction", "few_shot"])
    def test_an_arm_that_is_always_right_is_prompting_enough(self, tmp_path: Path, arm: str) -> None:
        decision = decided(tmp_path, plan(FREE, GOOD), session=perfect(arm))
        assert (decision.verdict, decision.best, decision.refuses) == ("prompting_enough", arm, True)
        assert decision.enough == arm and arm in decision.text
        assert errors(decision) == [] and [reason.code for reason in decision.reasons] == ["gate/reached"]

    def test_one_with_retrieved_examples_alone_is_retrieval_enough(self, tmp_path: Path) -> None:
        assert decided(tmp_path, plan(FREE, GOOD), session=perfect("nearest")).verdict == "retrieval_enough"
        both = decided(tmp_path, plan(FREE, GOOD), session=perfect("nearest", "few_shot"))
        assert both.verdict == "prompting_enough"

    def test_with_prices_prompting_is_cheaper_where_a_request_costs_the_same(self, tmp_path: Path) -> None:
        decision = decided(tmp_path, plan(GOOD), session=perfect("zero_shot"))
        assert (decision.verdict, decision.refuses) == ("prompting_cheaper", True)
        assert decision.tuned_usd_per_1000 == decision.arms[0].usd_per_1000 == pytest.approx(1000 * 12 / 200_000)

    @pytest.mark.parametrize(("requests", "verdict"), [(200_000, "fine_tune"), (1, "prompting_cheaper")])
    def test_and_tuning_is_worth_it_where_it_saves_the_examples_in_every_prompt(
        self, tmp_path: Path, requests: int, verdict: str
    ) -> None:
        of = plan(GOOD, *DEAR, "roi.tuned.prompt_tokens=3", f"roi.requests_per_month={requests}")
        decision = decided(tmp_path, of, session=perfect("few_shot"))
        assert (decision.verdict, decision.best, decision.says_no) == (verdict, "few_shot", verdict != "fine_tune")
        assert (decision.reasons == ()) == (verdict == "fine_tune")

    def test_arms_that_are_all_wrong_leave_tuning(self, tmp_path: Path) -> None:
        decision = decided(tmp_path, plan(GOOD))
        assert (decision.verdict, decision.says_no, errors(decision)) == ("fine_tune", False, [])
        assert [arm.name for arm in decision.arms] == list(ARMS) and decision.best
        assert "No un-tuned arm reaches 0.800" in decision.text

    @pytest.mark.parametrize("num_right", [20, 26, 30])
    def test_an_arm_that_may_or_may_not_reach_it_is_inconclusive_with_the_rows_it_would_take(
        self, tmp_path: Path, num_right: int
    ) -> None:
        """With a target of 0.95, not even 30 right answers of 30 are enough to tell."""
        session = FakeSession(answers={"few_shot": right(dataset(), num_right)})
        decision = decided(tmp_path, plan(GOOD if num_right < 30 else FREE), session=session)
        assert (decision.verdict, decision.refuses, errors(decision)) == ("inconclusive", True, ["gate/inconclusive"])
        assert "dev rows would tell" in decision.text

    def test_enough_dev_rows_do_tell(self, tmp_path: Path) -> None:
        data = dataset(80)
        decision = decided(tmp_path, plan(FREE), data, perfect("zero_shot", data=data))
        assert decision.target and decision.target.value == 0.95 and decision.verdict == "prompting_enough"

    @pytest.mark.parametrize("num_dev", [1, 2, 3])
    def test_a_handful_of_right_answers_proves_nothing(self, tmp_path: Path, num_dev: int) -> None:
        data = dataset(num_dev)
        assert decided(tmp_path, plan(GOOD, FREE), data, perfect(*ARMS, data=data)).verdict == "inconclusive"

    @pytest.mark.parametrize(
        ("override", "num_train", "verdict"),
        [
            ("gate.task=knowledge", 400, "try_retrieval"),
            ("gate.task=reasoning", 400, "try_prompting"),
            ("gate.task=format", 99, "need_data"),
        ],
    )
    def test_a_free_no_ends_it_before_anything_is_asked(
        self, tmp_path: Path, override: str, num_train: int, verdict: str
    ) -> None:
        data, session = dataset(), FakeSession()
        few = replace(data, split=replace(data.split, num_own=num_train))
        decision = decided(tmp_path, plan(override, GOOD), few, session)
        assert (decision.verdict, decision.refuses, decision.arms) == (verdict, True, ())
        assert session.asked == [] and decision == decide_for_free(plan(override, GOOD), few, read_scoring(plan()))

    @pytest.mark.parametrize("arms", [(), ARMS])
    def test_under_warn_a_free_no_stands_whatever_the_arms_then_show(
        self, tmp_path: Path, arms: tuple[str, ...]
    ) -> None:
        decision = decided(tmp_path, plan("gate.task=knowledge", GOOD, *WARN), session=perfect(*arms))
        assert (decision.verdict, decision.says_no, decision.refuses) == ("try_retrieval", True, False)
        assert len(decision.arms) == 4 and decision.best
        assert "gate/wrong-tool" in errors(decision)

    def test_warn_says_what_enforce_says_and_goes_on(self, tmp_path: Path) -> None:
        for session in (perfect("zero_shot"), FakeSession()):
            strict = decided(tmp_path, plan(FREE, GOOD), session=session)
            mild = decided(tmp_path, plan(FREE, GOOD, *WARN), session=session)
            assert (mild.verdict, mild.says_no, mild.findings) == (strict.verdict, strict.says_no, strict.findings)
            assert not mild.refuses

    def test_a_skipped_gate_asks_nothing(self, tmp_path: Path) -> None:
        session = perfect("zero_shot")
        decision = decided(tmp_path, plan("gate.policy=skip", "gate.reason=seen", GOOD), session=session)
        assert (decision.verdict, decision.says_no, decision.arms, session.asked) == ("skipped", False, (), [])


class TestWhatIsNotMeasured:
    def test_the_cap_leaves_it_open_unless_another_arm_is_enough(self, tmp_path: Path) -> None:
        of = plan(FREE, GOOD, models=(model(price=1e6),))
        capped, chats = replace(of, gate=replace(of.gate, max_usd=1.0)), {"large": FakeChat(answers=right(dataset()))}
        assert decided(tmp_path, of, chats=chats).verdict == "prompting_enough"
        assert decided(tmp_path, capped, chats=chats).verdict == "inconclusive"
        decision = decided(tmp_path, capped, session=perfect("few_shot"), chats=chats)
        assert decision.verdict == "prompting_enough"
        told = [f.what for f in decision.findings if f.code == "gate/not-measured"]
        assert len(told) == 1 and "gate.max_usd" in told[0]

    def test_an_endpoint_that_fails_leaves_it_open_and_is_remembered(self, tmp_path: Path) -> None:
        of, data = plan(FREE, GOOD, models=(model(),)), dataset()
        answerer = make_answerer(of, data, FakeSession(), {"large": FakeChat(failure=DOWN)})
        decision = decide(of, data, ESTIMATE, answerer, read_scoring(of), tmp_path)
        assert decision.verdict == "inconclusive" and answerer.outages == [DOWN]

    def test_an_endpoint_that_leaves_rows_unanswered_does_not_count_as_measured(self, tmp_path: Path) -> None:
        of = plan(FREE, GOOD, models=(model(),))
        decision = decided(tmp_path, of, chats={"large": FakeChat(answers=right(dataset(), 28))})
        assert decision.verdict == "inconclusive" and "2 of 30 rows have no answer" in decision.findings[-1].what
        nearly = decided(tmp_path / "nearly", of, chats={"large": FakeChat(answers=right(dataset(), 29))})
        assert (nearly.verdict, nearly.enough) == ("prompting_enough", "large")
        silent = decided(tmp_path, of, chats={"large": FakeChat()})
        assert silent.verdict == "inconclusive" and "30 of 30 rows have no answer" in silent.findings[-1].what

    def test_rows_with_tools_are_not_held_against_an_endpoint_that_does_not_see_them(self, tmp_path: Path) -> None:
        data = dataset()
        data = replace(data, dev=[replace(row, tools="[]") for row in data.dev])
        decision = decided(tmp_path, plan(FREE, GOOD, models=(model(),)), data, chats={"large": FakeChat()})
        assert decision.verdict == "inconclusive"


@dataclass(kw_only=True)
class Listening(FakeSession):
    """Remembers every text that it was given to score."""

    scored: list[Example] = field(default_factory=list)

    def held_out_loss(self, side: Side, examples: Sequence[Example], watch: Watch) -> HeldOutLoss:
        self.scored += examples
        return super().held_out_loss(side, examples, watch)


class TestLaws:
    def test_no_test_row_reaches_a_model(self, tmp_path: Path) -> None:
        data = dataset(test=tuple(question(f"SECRET {i}", f"SECRET answer {i}") for i in range(60)))
        session, large, wise = Listening(), FakeChat(), FakeChat()
        of = plan("eval.metrics=[chrf, loss, judge]", JUDGE, *WARN, models=(model(),))
        decided(tmp_path, of, data, session, {"large": large, "wise": wise})
        asked = [prompt for _, prompts in session.asked for prompt in prompts]
        assert len(asked) == 4 * 30 and len(large.asked) == 30 and wise.asked and len(session.scored) == 4 * 30
        seen = [*asked, *large.asked, *wise.asked, *(example.messages for example in session.scored)]
        assert all("SECRET" not in turn.content for prompt in seen for turn in prompt)
        assert all("SECRET" not in path.read_text() for path in tmp_path.iterdir())

    def test_the_order_of_rows_changes_no_verdict_and_no_prompt(self, tmp_path: Path) -> None:
        seen = set()
        for seed in range(3):
            shuffle = random.Random(seed)
            data = dataset(50)
            data = replace(data, own=shuffle.sample(data.own, 400), dev=shuffle.sample(data.dev, 50))
            session = FakeSession(answers={"zero_shot": right(dataset(50), 25), "nearest": right(dataset(50), 41)})
            decision = decided(tmp_path, plan(GOOD, "gate.max_rows=40"), data, session)
            seen.add((repr(decision), json.dumps(session.asked, default=str)))
        assert len(seen) == 1

    @pytest.mark.parametrize("session", [perfect(), perfect("few_shot"), perfect(*ARMS)])
    def test_twice_all_prices_change_no_verdict(self, tmp_path: Path, session: FakeSession) -> None:
        def at(times: int) -> Decision:
            prices = {"tuned.usd_per_million_input": 1000, "tuned.usd_per_month": 12, "one_time_usd": 100}
            of = plan(GOOD, "roi.tuned.prompt_tokens=3", *(f"roi.{k}={v * times}" for k, v in prices.items()))
            estimate = replace(ESTIMATE, usd=replace(ESTIMATE.usd, expected=100 * times))  # type: ignore[type-var]
            answerer = make_answerer(of, dataset(), session)
            return decide(of, dataset(), estimate, answerer, read_scoring(of), tmp_path)

        assert at(1).verdict == at(2).verdict

    @pytest.mark.parametrize("num_right", [0, 10, 20, 25, 28, 30])
    def test_a_higher_target_never_turns_fine_tune_into_enough(self, tmp_path: Path, num_right: int) -> None:
        session = FakeSession(answers={"zero_shot": right(dataset(), num_right), "few_shot": right(dataset())})
        of = ("roi.tuned.prompt_tokens=3", *DEAR)
        found = [
            decided(tmp_path, plan(*of, f"gate.target={t}"), session=session).verdict for t in (0.1, 0.5, 0.8, 0.99)
        ]
        first = found.index("fine_tune") if "fine_tune" in found else len(found)
        assert set(found[first:]) <= {"fine_tune", "inconclusive"}

    def test_a_no_always_has_a_reason_that_says_what_to_do(self, tmp_path: Path) -> None:
        for override in ("gate.target=0.1", GOOD, "gate.target=0.99", "eval.metrics=[loss]"):
            for session in (perfect(), perfect("zero_shot"), perfect("nearest")):
                decision = decided(tmp_path, plan(FREE, override), session=session)
                found = decision.reasons
                assert decision.says_no == bool(found) and all(f.fix for f in found) and decision.text


class TestOtherMetrics:
    @pytest.mark.parametrize(("target", "verdict"), [(0.5, "prompting_enough"), (0.2, "fine_tune")])
    def test_a_loss_is_held_to_its_target_from_above(self, tmp_path: Path, target: float, verdict: str) -> None:
        data = dataset()
        losses = {row.prompt[-1].content: 0.3 + i / 1000 for i, row in enumerate(data.dev)}
        of = plan(FREE, "eval.metrics=[loss, exact_match]", f"gate.target={target}")
        decision = decided(tmp_path, of, data, FakeSession(losses={"base": losses}))
        assert (decision.verdict, decision.target and decision.target.metric) == (verdict, "loss")

    def test_without_any_target_the_best_arm_is_still_compared_with_later(self, tmp_path: Path) -> None:
        decision = decided(tmp_path, plan(FREE, "eval.metrics=[perplexity]", *WARN))
        assert (decision.verdict, decision.target, errors(decision)) == ("inconclusive", None, ["gate/no-target"])
        assert decision.best == ZERO_SHOT.name, "all alike, and its prompt is the shortest"

    @pytest.mark.parametrize(("higher", "value", "warned"), [(True, 0.9, True), (True, 0.1, False), (False, 0.1, True)])
    def test_what_is_left_to_gain_is_counted_from_the_better_end(
        self, tmp_path: Path, higher: bool, value: float, warned: bool
    ) -> None:
        metric = Metric(score=lambda answer: Score(value=value), title="ours", higher_is_better=higher)
        scoring = replace(read_scoring(plan()), metrics={"ours": metric})
        decision = decided(tmp_path, plan(FREE), scoring=scoring)
        assert ("gate/cannot-show" in [f.code for f in decision.findings]) == warned

    def test_a_judge_that_is_not_reliable_cannot_lead_to_training(self, tmp_path: Path) -> None:
        first = FakeChat()  # answers nothing at all
        of = plan(FREE, "eval.metrics=[judge, exact_match]", JUDGE)
        decision = decided(tmp_path, of, chats={"wise": first})
        assert decision.judge and not decision.judge.reliable
        assert (decision.verdict, decision.refuses) == ("inconclusive", True) and errors(decision)
        second = decided(tmp_path, plan(FREE, "eval.metrics=[exact_match, judge]", JUDGE), chats={"wise": first})
        assert second.verdict == "fine_tune", "it is not what the verdict rests on"

    def test_the_arms_are_held_to_the_first_metric_that_the_gate_can_take(self, tmp_path: Path) -> None:
        of = plan(FREE, "eval.metrics=[judge, exact_match]", JUDGE)
        target = decide_for_free(of, dataset(), read_scoring(of)).target
        assert target and target.metric == "exact_match"
        assert METRICS["judge"].needs == "judge"


def test_a_conversation_of_many_turns_keeps_them_behind_the_examples(tmp_path: Path) -> None:
    talk = replace(rows("dev", 1)[0], messages=(*rows("dev", 1)[0].messages, *question("and then?", "more").messages))
    session = FakeSession()
    decided(tmp_path, plan(FREE), dataset(dev=[talk] * 3), session)
    assert all(prompt[-3:] == talk.prompt[-3:] for _, prompts in session.asked for prompt in prompts)


@pytest.mark.parametrize(("num_dev", "told"), [(16, True), (17, False)])
def test_too_few_dev_rows_for_any_arm_to_reach_the_target_are_told_beforehand(num_dev: int, told: bool) -> None:
    of = plan(FREE, "gate.target=0.8")
    found = decide_for_free(of, dataset(num_dev), read_scoring(of)).findings
    warnings = [f.what for f in found if f.code == "gate/few-dev-rows"]
    assert bool(warnings) == told
    assert all("it takes 17" in what for what in warnings)
