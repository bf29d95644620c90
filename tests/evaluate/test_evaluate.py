"""Base, best un-tuned arm and tuned, on answers and losses that a test wrote down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from runner.answerer import Answerer
from runner.backends.base import Endpoint, HeldOutLoss, Reply, Sampling, Side, Watch
from runner.conversation import Completion, Example, Message
from runner.errors import Exit, Problem, RunnerError
from runner.evaluate import Comparison, Evaluation, evaluate
from runner.plan import OtherModel
from runner.scoring import read_scoring
from runner.stats import Verdict
from tests.fakes import FakeSession, make_answerer, make_dataset, make_decision, make_test_plan, question, questions
from tests.fakes import read_lines as read

ROWS = questions(30)
PROMPTS = [row.prompt[-1].content for row in ROWS]
RIGHT = dict.fromkeys(PROMPTS, "yes")
DOWN = RunnerError(Problem(code="endpoint/down", what="Nobody answers."), Exit.UNAVAILABLE)
LARGE = OtherModel(name="large", endpoint=Endpoint(base_url="http://large.test/v1", model="large"), constrained=False)


def first(count: int, text: str = "yes") -> dict[str, str]:
    """Answers to the first questions; the others are answered with 'no'."""
    return dict.fromkeys(PROMPTS[:count], text)


@dataclass
class OtherChat:
    """Another model: it knows every answer, or raises."""

    error: RunnerError | None = None
    text: str | None = "yes"
    endpoint: Endpoint = LARGE.endpoint

    def check(self) -> None:
        pass

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        *,
        label: str,
        schema: Mapping[str, object] | None = None,
    ) -> list[Reply]:
        if self.error:
            raise self.error
        if self.text is None:
            return [Reply(completion=None, reason="the server said 400") for _ in prompts]
        answer = Completion(text=self.text, prompt_tokens=9, output_tokens=1, seconds=0.1, finish="stop")
        return [Reply(completion=answer) for _ in prompts]


def run(
    folder: Path,
    session: FakeSession,
    *,
    rows: Sequence[Example] = ROWS,
    metrics: str = "exact_match",
    best: str | None = None,
    chat: OtherChat | None = None,
    overrides: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
) -> tuple[Evaluation, Answerer]:
    plan = make_test_plan(f"eval.metrics=[{metrics}]", "eval.forgetting.measure=false", *overrides)
    plan = replace(plan, gate=replace(plan.gate, models=(LARGE,)))
    dataset = make_dataset(test=tuple(rows), **(changes or {}))
    answerer = make_answerer(plan, dataset, session, {"large": chat or OtherChat()})
    return evaluate(plan, dataset, answerer, read_scoring(plan), make_decision(best=best), folder), answerer


def evaluated(folder: Path, session: FakeSession, **options: Any) -> Evaluation:
    return run(folder, session, **options)[0]


def decisive(found: Evaluation) -> Comparison:
    assert found.comparison is not None
    return found.comparison


def by_side(found: Evaluation, metric: str = "exact_match") -> dict[str, Comparison]:
    return {comparison.against: comparison for comparison in found.comparisons if comparison.metric == metric}


@pytest.mark.parametrize(
    ("base", "tuned", "difference", "verdict"),
    [
        ({}, RIGHT, 1, "improved"),
        (RIGHT, {}, -1, "worse"),
        (first(10), first(20), 1 / 3, "improved"),
        (first(10), first(12), 2 / 30, "inconclusive"),
        (RIGHT, RIGHT, 0, "inconclusive"),
    ],
)
def test_a_share_is_better_when_it_is_higher(
    tmp_path: Path, base: Mapping[str, str], tuned: Mapping[str, str], difference: float, verdict: Verdict
) -> None:
    found = evaluated(tmp_path, FakeSession(answers={"base": base, "tuned": tuned}))
    assert decisive(found).difference == pytest.approx(difference)
    assert (decisive(found).verdict, found.verdict, decisive(found).against) == (verdict, verdict, "base")


@pytest.mark.parametrize(("tuned", "verdict"), [(0.5, "improved"), (1.5, "worse"), (1.0, "equivalent")])
@pytest.mark.parametrize("metric", ["loss", "perplexity"])
def test_a_loss_is_better_when_it_is_lower(tmp_path: Path, tuned: float, verdict: Verdict, metric: str) -> None:
    losses = {prompt: tuned + 0.001 * (i % 3 - 1) for i, prompt in enumerate(PROMPTS)}
    session = FakeSession(answers={"tuned": RIGHT}, losses={"tuned": losses})
    found = evaluated(tmp_path, session, metrics=metric)
    shown = math.exp if metric == "perplexity" else float
    assert decisive(found).difference == pytest.approx(shown(tuned) - shown(1), abs=1e-6)
    assert (found.verdict, decisive(found).higher_is_better) == (verdict, False)


def test_the_order_of_test_rows_changes_no_comparison(tmp_path: Path) -> None:
    session = FakeSession(answers={"tuned": first(17)})
    metrics = "exact_match, chrf, macro_f1"
    there, back = (evaluated(tmp_path, session, rows=rows, metrics=metrics) for rows in (ROWS, ROWS[::-1]))
    assert there.comparisons == back.comparisons
    assert (there.sides, there.slices, there.text) == (back.sides, back.slices, back.text)


def test_the_first_metric_is_the_primary_one(tmp_path: Path) -> None:
    session = FakeSession(answers={"tuned": RIGHT}, losses={"tuned": dict.fromkeys(PROMPTS, 3.0)})
    by_answers = evaluated(tmp_path, session, metrics="exact_match, loss")
    by_loss = evaluated(tmp_path, session, metrics="loss, exact_match")
    assert (by_answers.verdict, by_loss.verdict) == ("improved", "worse")
    assert [c.p_holm is None for c in by_answers.comparisons] == [True, False]
    assert by_loss.text.startswith("Tuning made it worse. Held-out loss")


def test_what_answers_cost_is_measured_by_side(tmp_path: Path) -> None:
    answers = {"base": dict.fromkeys(PROMPTS, "a b c"), "tuned": first(15, "a b")}
    found = evaluated(tmp_path, FakeSession(answers=answers))
    assert (found.base.prompt_tokens, found.tuned.prompt_tokens) == (2, 2)
    assert (found.base.output_tokens, found.tuned.output_tokens) == (4, 2.5)
    assert found.tuned.seconds_per_answer == 0.5


@pytest.mark.parametrize(("overrides", "longest"), [((), 25), (("eval.max_new_tokens=7",), 7)])
def test_all_sides_may_answer_a_quarter_longer_than_the_longest_expected_answer_unless_written(
    tmp_path: Path, overrides: tuple[str, ...], longest: int
) -> None:
    session = FakeSession(answers={"tuned": RIGHT})
    found = evaluated(tmp_path, session, best="few_shot", overrides=(*overrides, "eval.batch_size=5"))
    assert found.max_new_tokens == longest
    assert [(s.max_new_tokens, s.batch_size) for s in session.samplings] == [(longest, 5)] * 3


# --- the best un-tuned arm --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "verdict", "against"),
    [(first(2), "improved", "few_shot"), (RIGHT, "inconclusive", "few_shot"), ({}, "improved", "base")],
)
def test_tuning_must_hold_against_base_and_the_best_arm(
    tmp_path: Path, arm: Mapping[str, str], verdict: Verdict, against: str
) -> None:
    session = FakeSession(answers={"few_shot": arm, "tuned": RIGHT})
    found = evaluated(tmp_path, session, best="few_shot")
    assert list(found.sides) == ["base", "few_shot", "tuned"]
    assert (found.best_arm, found.verdict, decisive(found).against) == ("few_shot", verdict, against)
    assert set(by_side(found)) == {"base", "few_shot"}
    assert f"base 0.0 %, few_shot {100 * len(arm) / 30:.1f} %, tuned 100.0 %" in found.text


@pytest.mark.parametrize("best", [None, "zero_shot"])
def test_base_is_asked_once_where_it_is_the_best_arm_itself(tmp_path: Path, best: str | None) -> None:
    session = FakeSession(answers={"tuned": RIGHT})
    found = evaluated(tmp_path, session, best=best)
    assert (list(found.sides), found.best_arm) == (["base", "tuned"], None)
    assert [label for label, _ in session.asked] == ["zero_shot", "tuned"]


def test_the_evidence_has_each_arm_s_own_prompt_and_tuned_the_rows(tmp_path: Path) -> None:
    session = FakeSession(answers={"tuned": RIGHT})
    evaluated(tmp_path / "evaluation", session, best="nearest")
    kept = {name: read(tmp_path / "evaluation" / f"{name}.jsonl") for name in ("base", "nearest", "tuned")}
    asked = {"base" if label == "zero_shot" else label: prompts for label, prompts in session.asked}
    for name, records in kept.items():
        assert [record["id"] for record in records] == [row.id for row in ROWS]
        told = [[turn["content"] for turn in record["input"]] for record in records]
        assert told == [[turn.content for turn in prompt] for prompt in asked[name]]
    assert len(kept["nearest"][0]["input"]) > len(kept["base"][0]["input"]) == len(kept["tuned"][0]["input"])


def test_the_evidence_adds_up_to_the_scores(tmp_path: Path) -> None:
    session = FakeSession(answers={"base": first(4), "few_shot": first(9), "tuned": first(19)})
    found = evaluated(tmp_path, session, best="few_shot")
    for name, side in found.sides.items():
        records = read(tmp_path / f"{name}.jsonl")
        mean = sum(record["scores"]["exact_match"]["value"] for record in records) / len(records)
        interval = side.scores["exact_match"]
        assert interval is not None and interval.mean == pytest.approx(mean)
        assert sum(record["output_tokens"] for record in records) / 30 == pytest.approx(side.output_tokens)


def test_another_model_s_rows_without_answer_or_loss_are_unscored_and_not_wrong(tmp_path: Path) -> None:
    found = evaluated(tmp_path, FakeSession(answers={"tuned": RIGHT}), best="large", metrics="exact_match, loss")
    assert found.sides["large"].scores["loss"] is None
    assert [c.against for c in found.comparisons if c.metric == "loss"] == ["base"]
    (finding,) = (f for f in found.findings if f.where.key == "eval.metrics")
    assert finding.what == (
        "Rows without a score of 'loss', left out of it: 30 of large (the first: this model gives no token "
        "probabilities)."
    )


@pytest.mark.parametrize(
    ("chat", "outages"), [(OtherChat(error=DOWN), [DOWN]), (OtherChat(text=None), [])], ids=["down", "refuses"]
)
@pytest.mark.parametrize(("tuned", "verdict"), [(RIGHT, "inconclusive"), ({}, "worse")])
def test_an_arm_that_cannot_be_compared_leaves_the_other_scores_but_no_success(
    tmp_path: Path, chat: OtherChat, outages: list[RunnerError], tuned: Mapping[str, str], verdict: Verdict
) -> None:
    base = {} if tuned else RIGHT
    session = FakeSession(answers={"base": base, "tuned": tuned})
    found, answerer = run(tmp_path, session, best="large", chat=chat)
    assert answerer.outages == outages
    assert decisive(found).against == "base"
    assert found.verdict == verdict
    assert len(read(tmp_path / "tuned.jsonl")) == 30
    if tuned:
        assert found.text.startswith("Inconclusive: tuned could not be compared with large. But for that: Tuning help")


def test_an_embedding_model_that_fails_leaves_the_other_scores(tmp_path: Path) -> None:
    session = FakeSession(answers={"tuned": RIGHT})
    overrides = ("eval.metrics=[exact_match, similarity]", "eval.embedding=acme/words")
    plan = make_test_plan("eval.forgetting.measure=false", *overrides)
    dataset = make_dataset(test=ROWS)

    def fail(model: str) -> Any:
        raise DOWN

    answerer = replace(make_answerer(plan, dataset, session), open_embedder=fail)
    found = evaluate(plan, dataset, answerer, read_scoring(plan), make_decision(), tmp_path)
    assert (found.verdict, found.tuned.unscored) == ("improved", {"exact_match": 0, "similarity": 30})
    assert answerer.outages[0] is DOWN
    (finding,) = found.findings
    assert finding.what == "No row has a score of 'similarity': no embedding model gave one."


# --- alarms and findings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("same", "codes"), [(30, ["eval/identical"]), (29, [])])
def test_answers_that_are_all_the_same_raise_the_alarm(tmp_path: Path, same: int, codes: list[str]) -> None:
    tuned = {**RIGHT, **dict.fromkeys(PROMPTS[same:], "else")}
    found = evaluated(tmp_path, FakeSession(answers={"base": RIGHT, "tuned": tuned}))
    assert found.identical_share == pytest.approx(same / 30)
    assert [finding.code for finding in found.findings] == codes
    assert all(finding.severity == "error" for finding in found.findings)


@pytest.mark.parametrize(("loss", "verdict"), [(0.2, "inconclusive"), (3.0, "worse"), (1.0, "equivalent")])
def test_an_adapter_that_changes_no_answer_never_improved_anything(
    tmp_path: Path, loss: float, verdict: Verdict
) -> None:
    session = FakeSession(
        answers={"base": RIGHT, "tuned": RIGHT}, losses={"tuned": dict.fromkeys(PROMPTS, loss)}, otherwise="no"
    )
    found = evaluated(tmp_path, session, metrics="loss")
    assert (found.verdict, found.identical_share) == (verdict, 1)
    if loss < 1:
        assert decisive(found).verdict == "improved"
        assert found.text.startswith("Inconclusive: base and tuned gave the same answer to every row. But for that: ")


def test_tuned_answers_that_do_not_stop_are_found(tmp_path: Path) -> None:
    endless = FakeSession(answers={"tuned": RIGHT}, unfinished=frozenset({"tuned"}))
    (finding,) = evaluated(tmp_path, endless).findings
    assert finding.code == "eval/does-not-stop"
    assert finding.what == "Only 0% of the tuned answers end by themselves (base 100%)."
    assert evaluated(tmp_path, replace(endless, unfinished=frozenset({"base"}))).findings == ()


def test_rows_without_a_score_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = (*questions(20, '{"a": 1}'), *(question(f"letter {i}", "Dear Ann") for i in range(10)))
    session = FakeSession(answers={"tuned": dict.fromkeys(PROMPTS, '{"a": 1}')})
    found = evaluated(tmp_path, session, rows=rows, metrics="field_f1, exact_match")
    fields, exact = found.comparisons
    assert (fields.num_rows, fields.unscored, exact.num_rows, exact.unscored) == (20, 10, 30, 0)
    assert (fields.tuned, fields.verdict) == (1, "improved")
    assert found.tuned.unscored == {"field_f1": 10, "exact_match": 0}
    assert [f.what for f in found.findings] == [
        "Rows without a score of 'field_f1', left out of it: 10 of base, 10 of tuned (the first: the expected answer "
        "is not JSON)."
    ]


def test_a_loss_that_is_no_number_is_left_out_on_both_sides(tmp_path: Path) -> None:
    losses: dict[Side, dict[str, float]] = {"base": {PROMPTS[0]: math.inf}, "tuned": {PROMPTS[1]: math.nan}}
    found = evaluated(tmp_path, FakeSession(answers={"tuned": RIGHT}, losses=losses), metrics="loss")
    assert (decisive(found).num_rows, decisive(found).unscored, decisive(found).untuned) == (28, 2, 1)
    assert (found.base.unscored, found.tuned.unscored) == ({"loss": 1}, {"loss": 1})


def test_a_primary_metric_without_one_scored_row_gives_no_verdict_and_says_why(tmp_path: Path) -> None:
    session = FakeSession(answers={"tuned": RIGHT}, losses={"tuned": dict.fromkeys(PROMPTS, math.nan)})
    found = evaluated(tmp_path, session, metrics="loss, exact_match")
    assert (found.verdict, found.comparison) == ("inconclusive", None)
    assert found.text == (
        "No verdict: no row can be compared by 'loss', the primary metric (the loss is not a finite number)."
    )
    assert by_side(found)["base"].verdict == "improved"
    assert len(read(tmp_path / "tuned.jsonl")) == 30


def test_a_secondary_metric_without_one_scored_row_is_a_warning_beside_the_verdict(tmp_path: Path) -> None:
    found = evaluated(tmp_path, FakeSession(answers={"tuned": RIGHT}), metrics="exact_match, field_f1")
    assert [comparison.metric for comparison in found.comparisons] == ["exact_match"]
    assert [(p.code, p.severity) for p in found.findings] == [("eval/unscored", "warning")]


# --- confusion, samples, forgetting -----------------------------------------------------------------------------------


def test_the_confusion_is_of_answers_alone(tmp_path: Path) -> None:
    rows = [replace(row, messages=(*row.prompt, turn("tea" if i % 3 else "milk"))) for i, row in enumerate(ROWS)]
    session = FakeSession(answers={"tuned": dict.fromkeys(PROMPTS, "Milk")}, otherwise="beer")
    found = evaluated(
        tmp_path, session, rows=rows, metrics="exact_match, accuracy", best="large", chat=OtherChat(text=None)
    )
    assert found.confusion is not None
    assert found.confusion["tuned"].labels == ("tea", "milk")
    assert found.confusion["tuned"].counts == ((0, 20, 0), (0, 10, 0))
    assert found.confusion["base"].counts == ((0, 0, 20), (0, 0, 10))
    assert found.confusion["large"].counts == ((0, 0, 0), (0, 0, 0)), "no answer is not a wrong one"


def turn(text: str) -> Message:
    return Message(role="assistant", content=text)


@pytest.mark.parametrize(("metrics", "answer"), [("exact_match", "yes"), ("accuracy", "a long\nletter")])
def test_without_classes_or_a_metric_of_them_there_is_no_confusion(tmp_path: Path, metrics: str, answer: str) -> None:
    session = FakeSession(answers={"tuned": RIGHT})
    assert evaluated(tmp_path, session, rows=questions(30, answer), metrics=metrics).confusion is None


@pytest.mark.parametrize("metric", ["exact_match", "loss"])
def test_samples_show_improved_rows_first_whatever_way_the_metric_points(tmp_path: Path, metric: str) -> None:
    better, worse = PROMPTS[-6:], PROMPTS[:3]
    session = FakeSession(
        answers={"base": dict.fromkeys(worse, "yes"), "tuned": dict.fromkeys(better, "yes")},
        losses={"tuned": {**dict.fromkeys(better, 0.1), **dict.fromkeys(worse, 9.0)}},
    )
    samples = evaluated(tmp_path, session, metrics=metric, best="few_shot").samples
    assert [sample["question"] for sample in samples] == [*better[:4], *PROMPTS[3:5], *worse[:2]]
    assert samples[0]["answers"] == {"base": "no", "few_shot": "no", "tuned": "yes"}
    tuned_score = 1 if metric == "exact_match" else 0.1
    assert (samples[0]["expected"], samples[0]["scores"]["tuned"]) == ("yes", tuned_score)


@dataclass(kw_only=True)
class ForgettingSession(FakeSession):
    """Its loss on everything that is no question of the test grows with tuning."""

    def held_out_loss(self, side: Side, examples: Sequence[Example], watch: Watch) -> HeldOutLoss:
        rows = tuple(1.0 if row.prompt[-1].content in PROMPTS or side == "base" else 2.0 for row in examples)
        return HeldOutLoss(rows=rows, mean=1.0, num_tokens=len(rows))


@pytest.mark.parametrize(
    ("metrics", "budget", "verdict"),
    [
        ("exact_match", "0.5", "worse"),
        ("exact_match", "1.5", "improved"),
        ("field_f1", "0.5", "worse"),
        ("field_f1", "1.5", "inconclusive"),
    ],
)
def test_a_broken_budget_of_forgetting_makes_any_verdict_worse(
    tmp_path: Path, metrics: str, budget: str, verdict: Verdict
) -> None:
    session = ForgettingSession(answers={"tuned": RIGHT})
    overrides = ("eval.forgetting.measure=true", f"eval.forgetting.max_loss_rise={budget}")
    found = evaluated(tmp_path, session, metrics=metrics, overrides=overrides)
    assert found.forgetting is not None and found.forgetting.exceeded == (budget == "0.5")
    assert found.verdict == verdict
    if budget == "0.5":
        assert found.text.startswith("Tuning made it worse, for what it cost in general ability: ")
        assert "eval/forgot" in [finding.code for finding in found.findings]
