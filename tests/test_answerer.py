"""Whom to ask: the model in memory or one behind an endpoint, and what happens when an endpoint fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runner.answerer import Answerer
from runner.arms import ZERO_SHOT, Arm
from runner.backends.base import HeldOutLoss, Sampling, Side, Watch
from runner.conversation import Completion, Example, Message
from runner.errors import Exit, Interrupted, Problem, RunnerError
from runner.plan import OtherModel
from tests.fakes import (
    LARGE,
    FakeChat,
    FakeEmbedder,
    FakeSession,
    make_answerer,
    make_dataset,
    make_test_plan,
    question,
)

ROWS = [question(f"q{i}", f"a{i}") for i in range(3)]
SCHEMA = {"type": "object"}


def hosted(*, constrained: bool = False, name: str = "large") -> Arm:
    model = OtherModel(name=name, endpoint=LARGE, constrained=constrained)
    return replace(ZERO_SHOT, name=name, kind="model", model=model)


def with_examples(row: Example) -> tuple[Message, ...]:
    return (*question("example", "its answer").messages, *row.prompt)


@dataclass(kw_only=True)
class Listening(FakeSession):
    """Remembers the tools that were on offer, and what it was to score."""

    offered: list[str | None] = field(default_factory=list)
    scored: list[tuple[Side, Example]] = field(default_factory=list)

    def complete(
        self,
        side: Side,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        tools: Sequence[str | None] = (),
        label: str | None = None,
    ) -> list[Completion]:
        self.offered += tools
        return super().complete(side, prompts, sampling, watch, tools, label)

    def held_out_loss(self, side: Side, examples: Sequence[Example], watch: Watch) -> HeldOutLoss:
        self.scored += [(side, example) for example in examples]
        return super().held_out_loss(side, examples, watch)


def answerer(session: FakeSession | None = None, chat: FakeChat | None = None, *overrides: str) -> Answerer:
    plan, chats = make_test_plan(*overrides), {"large": chat} if chat else {}
    return replace(make_answerer(plan, make_dataset(), session or FakeSession(), chats), schema=SCHEMA)


def outage(code: Exit, what: str = "It is down.") -> RunnerError:
    return RunnerError(Problem(code="endpoint/failed", what=what), code)


class TestAnswers:
    def test_an_arm_asks_the_base_model_with_its_prompt_and_the_rows_tools(self) -> None:
        session = Listening(answers={"few": {"q1": "yes"}})
        arm = replace(ZERO_SHOT, name="few", prompt=with_examples)
        rows = [ROWS[0], replace(ROWS[1], tools="[]")]
        replies = answerer(session).answer(arm, rows)
        assert [reply.completion and reply.completion.text for reply in replies] == ["no", "yes"]
        assert session.asked == [("few", [with_examples(row) for row in rows])]
        assert session.offered == [None, "[]"]

    def test_no_arm_is_the_tuned_model_with_the_persons_prompt(self) -> None:
        session = FakeSession(answers={"tuned": {"q0": "tuned answer"}})
        (reply,) = answerer(session).answer(None, ROWS[:1])
        assert reply.completion and reply.completion.text == "tuned answer"
        assert session.asked == [("tuned", [ROWS[0].prompt])]

    def test_another_model_is_asked_at_its_endpoint_and_may_leave_rows_unanswered(self) -> None:
        chat, session = FakeChat(answers={"q0": "yes", "q2": ""}), FakeSession()
        replies = answerer(session, chat).answer(hosted(), ROWS)
        assert [reply.completion and reply.completion.text for reply in replies] == ["yes", None, ""]
        assert replies[1].reason == "the server refused it"
        assert chat.asked == [row.prompt for row in ROWS] and session.asked == []

    def test_only_a_constrained_arm_is_held_to_the_schema(self) -> None:
        chat = FakeChat()
        asked = answerer(chat=chat)
        asked.answer(hosted(), ROWS)
        asked.answer(hosted(constrained=True), ROWS)
        assert chat.schemas == [None, SCHEMA]

    @pytest.mark.parametrize("with_tools", [(1,), (0, 2), (0, 1, 2)])
    def test_an_endpoint_is_not_asked_about_rows_whose_tools_it_would_not_see(
        self, with_tools: tuple[int, ...]
    ) -> None:
        rows = [replace(row, tools="[]") if i in with_tools else row for i, row in enumerate(ROWS)]
        chat = FakeChat(answers={f"q{i}": f"said {i}" for i in range(3)})
        replies = answerer(chat=chat).answer(hosted(), rows)
        said = [reply.completion and reply.completion.text for reply in replies]
        assert said == [None if i in with_tools else f"said {i}" for i in range(3)]
        assert all("tools" in str(replies[i].reason) for i in with_tools)
        assert len(chat.asked) == 3 - len(with_tools)

    def test_an_endpoint_is_opened_once(self) -> None:
        opened = []
        asked = replace(answerer(), open_chat=lambda endpoint: opened.append(endpoint) or FakeChat())
        asked.answer(hosted(), ROWS)
        asked.answer(hosted(name="again"), ROWS)
        assert opened == [LARGE]


class TestLosses:
    def test_are_of_the_expected_answer_behind_the_arms_prompt(self) -> None:
        session = Listening(losses={"base": {"q0": 0.5}, "tuned": {"q0": 0.1}})
        assert answerer(session).losses(replace(ZERO_SHOT, prompt=with_examples), ROWS[:1]) == [0.5]
        ((side, example),) = session.scored
        assert side == "base"
        assert [(m.content, m.trained) for m in example.messages if m.role == "assistant"] == [
            ("its answer", False),
            ("a0", True),
        ]

    def test_base_and_tuned_are_scored_on_the_same_tokens_of_a_conversation(self) -> None:
        session = Listening()
        row = Example(messages=(*ROWS[0].messages, *ROWS[1].messages), source="x:1", tools="[]")
        answerer(session).losses(ZERO_SHOT, [row])
        answerer(session).losses(None, [row])
        (base, tuned) = session.scored
        assert (base[0], tuned[0]) == ("base", "tuned") and base[1] == tuned[1]
        assert [m.trained for m in tuned[1].messages if m.role == "assistant"] == [False, True]
        assert tuned[1].tools == "[]"

    def test_an_endpoint_tells_none(self) -> None:
        assert answerer(chat=FakeChat()).losses(hosted(), ROWS) == [None] * 3


class TestSimilarities:
    def test_are_of_the_rows_that_were_answered(self) -> None:
        chat = FakeChat(answers={"q0": "a0", "q2": "else"})
        asked = answerer(None, chat, "eval.embedding=some/model")
        assert asked.similarities(asked.answer(hosted(), ROWS), ROWS) == [1.0, None, 0.0]

    def test_without_an_embedding_model_there_are_none(self) -> None:
        asked = answerer()
        assert asked.similarities(asked.answer(ZERO_SHOT, ROWS), ROWS) == [None] * 3

    def test_the_embedding_model_is_opened_once(self) -> None:
        opened: list[Any] = []
        asked = answerer(None, None, "eval.embedding=some/model")
        asked = replace(asked, open_embedder=lambda model: opened.append(model) or FakeEmbedder())
        for _ in range(2):
            asked.similarities(asked.answer(ZERO_SHOT, ROWS), ROWS)
        assert opened == ["some/model"]


class TestOutages:
    @pytest.mark.parametrize("code", [Exit.INPUT_MISSING, Exit.UNAVAILABLE, Exit.CREDENTIALS, Exit.MANIFEST])
    def test_an_endpoints_failure_leaves_out_its_part_and_ends_the_run_later(self, code: Exit) -> None:
        asked = answerer()
        with asked.outage("The arm 'large'"):
            raise outage(code)
        assert asked.watch.lines == ["The arm 'large' is left out: It is down."]  # type: ignore[attr-defined]
        with pytest.raises(RunnerError) as caught:
            asked.raise_outages()
        assert caught.value.exit_code == code

    @pytest.mark.parametrize("error", [Interrupted("gate"), outage(Exit.DATA_REJECTED), ValueError("a bug")])
    def test_any_other_failure_goes_on(self, error: Exception) -> None:
        asked = answerer()
        with pytest.raises(type(error)), asked.outage("The arm 'large'"):
            raise error
        asked.raise_outages()

    def test_the_run_ends_with_every_failure_once_and_with_the_code_that_no_retry_mends(self) -> None:
        asked = answerer()
        failures = (outage(Exit.CREDENTIALS, "No key."), outage(Exit.UNAVAILABLE), outage(Exit.UNAVAILABLE))
        for failure in failures:
            with asked.outage("x"):
                raise failure
        with pytest.raises(RunnerError) as caught:
            asked.raise_outages()
        assert caught.value.exit_code == Exit.CREDENTIALS
        assert [problem.what for problem in caught.value.problems] == ["No key.", "It is down."]
