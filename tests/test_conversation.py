"""Names of conversations and of questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.conversation import ROLES, Example, Message
from tests.fakes import question

ROW = question("When will it come?", "Soon.", system="Be brief.")
TURNS = st.lists(
    st.builds(Message, role=st.sampled_from(ROLES), content=st.text("ab ", max_size=3)), min_size=1, max_size=4
)


def test_the_last_turn_is_expected_and_all_before_it_is_the_prompt() -> None:
    assert ROW.expected == "Soon."
    assert [m.role for m in ROW.prompt] == ["system", "user"]


@given(TURNS, TURNS)
def test_conversations_have_the_same_id_just_when_they_are_the_same(a: list[Message], b: list[Message]) -> None:
    first, second = Example(messages=tuple(a), source="x:1"), Example(messages=tuple(b), source="y:2")
    assert (first.id == second.id) == (a == b)


@pytest.mark.parametrize(
    "other",
    [
        question("When will it come?", "Never."),
        question("when WILL it come?", "Soon."),
        question(" When\twill it\n come? ", "Soon."),
        question("When will it come?", "Soon.", system="Be kind."),
        replace(ROW, source="elsewhere:7"),
    ],
)
def test_answer_case_spacing_system_prompt_and_place_make_no_other_question(other: Example) -> None:
    assert other.question == ROW.question


@pytest.mark.parametrize("change", [lambda t: t + "!", lambda t: t.replace(" ", ""), lambda t: t[::-1]])
def test_other_words_make_another_question(change: Callable[[str], str]) -> None:
    assert question(change("When will it come?"), "Soon.").question != ROW.question


def test_earlier_turns_belong_to_the_question() -> None:
    later = replace(ROW, messages=(*ROW.messages, *ROW.messages[1:]))
    assert later.question != ROW.question


def test_an_answer_that_calls_tools_is_expected_as_its_calls() -> None:
    called = replace(ROW, messages=(*ROW.prompt, Message(role="assistant", content="", tool_calls="[1]")))
    assert called.expected == "[1]"


@pytest.mark.parametrize(
    "extra", [{"tool_calls": "[]"}, {"tool_call_id": "a"}, {"trained": False}, {"complete": False}]
)
def test_what_is_rarely_said_of_a_turn_makes_another_conversation(extra: dict[str, Any]) -> None:
    answer = replace(ROW.messages[-1], **extra)
    assert answer.extras == extra
    assert replace(ROW, messages=(*ROW.prompt, answer)).id != ROW.id != replace(ROW, tools="[]").id
