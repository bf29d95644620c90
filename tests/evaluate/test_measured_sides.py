"""Whom to ask, and for what: every side and arm is measured in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.answerer import Answerer
from runner.arms import ZERO_SHOT, Arm, make_arms
from runner.backends.base import HeldOutLoss, Side, Watch
from runner.conversation import Example, Message
from runner.errors import Exit, Problem, RunnerError
from runner.scoring import Scored, Scoring
from tests.evaluate.sides import scoring_of
from tests.fakes import FakeSession, make_answerer, make_dataset, make_test_plan, questions


@dataclass(kw_only=True)
class LossSession(FakeSession):
    """Remembers what its loss was taken on."""

    scored: dict[str, Sequence[Example]] = field(default_factory=dict)

    def held_out_loss(self, side: Side, examples: Sequence[Example], watch: Watch) -> HeldOutLoss:
        self.scored[side] = examples
        return super().held_out_loss(side, examples, watch)


def conversation(trained: bool = True) -> Example:
    turns = [
        Message(role="user", content="hello"),
        Message(role="assistant", content="hello yourself", trained=trained),
        Message(role="user", content="how are you"),
        Message(role="assistant", content="well"),
    ]
    return Example(messages=tuple(turns), source="rows.jsonl:1")


def measured(
    session: FakeSession,
    scoring: Scoring,
    arm: Arm | str | None = ZERO_SHOT,
    rows: Sequence[Example] = (),
    **parts: Any,
) -> tuple[Answerer, Scored]:
    """An arm on some rows; `parts` replace those of the answerer."""
    plan = make_test_plan("eval.embedding=acme/words", "gate.shots=2")
    dataset = make_dataset(test=tuple(rows) or questions(6))
    answerer = make_answerer(plan, dataset, session)
    for name, part in parts.items():
        setattr(answerer, name, part)
    if isinstance(arm, str):
        (arm,) = (one for one in make_arms(plan, dataset, None) if one.name == arm)
    return answerer, answerer.measure(arm, dataset.test, scoring)


def test_the_loss_of_both_sides_is_that_of_the_last_answer_alone() -> None:
    session = LossSession()
    for arm in (ZERO_SHOT, None):
        measured(session, scoring_of("loss"), arm, [conversation()])
    assert session.scored == {side: [conversation(trained=False)] for side in ("base", "tuned")}


def test_the_loss_of_an_arm_is_taken_behind_its_own_prompt() -> None:
    session = LossSession()
    _, scored = measured(session, scoring_of("loss"), "few_shot")
    for row, prompt, asked in zip(scored.rows, scored.prompts, session.scored["base"], strict=True):
        assert [turn.content for turn in asked.prompt] == [turn.content for turn in prompt]
        assert asked.expected == row.expected
        assert not any(turn.trained for turn in asked.prompt if turn.role == "assistant")
    assert len(scored.prompts[0]) == 5


def test_every_metric_but_the_judge_is_measured_on_every_arm() -> None:
    session = FakeSession(otherwise="yes")
    scoring = scoring_of("exact_match", "similarity", "loss", "judge")
    for arm in (ZERO_SHOT, "nearest", None):
        _, scored = measured(session, scoring, arm)
        means = {name: [one.value for one in found][:1] for name, found in scored.scores.items()}
        assert means == {"exact_match": [1], "similarity": [1], "loss": [1], "judge": [None]}
        assert scored.scores["judge"][0].reason == "no judge was asked"


def test_what_no_metric_needs_is_not_computed() -> None:
    session = LossSession()
    measured(session, scoring_of("exact_match"), open_embedder=None)
    assert session.scored == {}


def test_an_embedding_model_that_fails_is_remembered_and_the_rest_is_measured() -> None:
    down = RunnerError(Problem(code="eval/embedding", what="No network."), Exit.UNAVAILABLE)

    def fail(model: str) -> Any:
        raise down

    answerer, scored = measured(FakeSession(otherwise="yes"), scoring_of("similarity", "chrf"), open_embedder=fail)
    assert answerer.outages == [down]
    assert [scored.scores[name][0].value for name in scored.scores] == [None, 1]


def test_a_question_is_looked_up_once_however_often_its_prompt_is_needed() -> None:
    plan, dataset = make_test_plan(), make_dataset(test=questions(3))
    (arm,) = (one for one in make_arms(plan, dataset, None) if one.name == "nearest")
    assert arm.prompt(dataset.test[0]) is arm.prompt(dataset.test[0])
    assert arm.prompt(dataset.test[0]) != arm.prompt(dataset.test[1])
