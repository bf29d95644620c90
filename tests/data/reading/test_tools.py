"""Tools and calls of them: one shape, whatever the row's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.conversation import Message
from runner.data.reading.formats import convert
from tests.data.reading.talks import ANSWER, SHAREGPT, USER, chat, refusal

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
CALLS = json.dumps([CALL])


ASKS: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "42", "tool_call_id": "c1"}
ASKED = Message(role="assistant", content="", tool_calls=CALLS)
ANSWERED = Message(role="tool", content="42", tool_call_id="c1")
FIRST, LAST = Message(role="user", content="Hi?"), Message(role="assistant", content="Ho.")


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("chat", chat(USER, ASKS, RESULT, ANSWER), (FIRST, ASKED, ANSWERED, LAST)),
        (
            "chat",
            chat(USER, ASKS, RESULT, RESULT, ASKS, RESULT, ANSWER),
            (FIRST, ASKED, ANSWERED, ANSWERED, ASKED, ANSWERED, LAST),
        ),
        ("chat", chat(USER, ASKS), (FIRST, ASKED)),
        ("chat", chat(USER, {**ASKS, "content": ""}), (FIRST, ASKED)),
        ("chat", chat(USER, {"role": "assistant", "tool_calls": [CALL]}), (FIRST, ASKED)),
        (
            "chat",
            chat(USER, {**ASKS, "tool_calls": [{"id": "c1", "name": "find", "arguments": {"q": 1}}]}),
            (FIRST, ASKED),
        ),
        ("chat", chat(USER, {**ASKS, "tool_calls": CALLS}), (FIRST, ASKED)),
        (
            "chat",
            chat(
                USER,
                {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": ""}},
                {"role": "function", "name": "find", "content": "42"},
                ANSWER,
            ),
            (
                FIRST,
                Message(
                    role="assistant",
                    content="",
                    tool_calls='[{"type": "function", "function": {"name": "find", "arguments": "{}"}}]',
                ),
                Message(role="tool", content="42"),
                LAST,
            ),
        ),
        (
            "sharegpt",
            {
                "conversations": [
                    SHAREGPT[0],
                    {"from": "function_call", "value": '{"id": "c1", "name": "find", "arguments": {"q": 1}}'},
                    {"from": "observation", "value": "42"},
                    SHAREGPT[1],
                ]
            },
            (FIRST, ASKED, Message(role="tool", content="42"), LAST),
        ),
    ],
)
def test_calls_of_tools_are_kept_in_one_shape(name: str, row: Any, expected: tuple[Message, ...]) -> None:
    assert convert(row, name, None).messages == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat(USER, ASKS, ANSWER), "a tool call is not answered (message 3, assistant)"),
        (chat(USER, ASKS, USER, ANSWER), "a tool call is not answered (message 3, user)"),
        (chat(USER, ASKS, RESULT, USER, ANSWER), "user and assistant do not take turns, beginning with the user"),
        (
            chat({**ASKS, "role": "user", "content": "x"}, ANSWER),
            "a message calls tools and is not the assistant's (message 1, user)",
        ),
        (chat(USER, {**ASKS, "tool_calls": [7]}), "a tool call names no function (message 2)"),
        (chat(USER, {**ASKS, "tool_calls": [{"function": {}}]}), "a tool call names no function (message 2)"),
        (chat(USER, {**ASKS, "tool_calls": "x"}), "a tool call is not JSON (message 2)"),
        (
            chat(USER, {**ASKS, "tool_calls": [{"name": "f", "arguments": "{"}]}),
            "the text of a tool call's arguments is not JSON (message 2)",
        ),
        (chat(USER, ANSWER, tools=[7]), "a tool has no name (tools)"),
    ],
)
def test_calls_that_cannot_be_used_say_why(row: Any, reason: str) -> None:
    assert refusal(row) == reason


@pytest.mark.parametrize(
    "tools",
    [
        {"tools": [{"type": "function", "function": {"name": "find"}}]},
        {"functions": [{"name": "find"}]},
        {"tools": '[{"name": "find"}]'},
        {"tools": {"name": "find"}, "functions": None},
    ],
)
def test_tools_are_kept_in_one_shape(tools: dict[str, Any]) -> None:
    assert (
        convert(chat(USER, ANSWER, **tools), "chat", None).tools
        == '[{"type": "function", "function": {"name": "find"}}]'
    )


@pytest.mark.parametrize("tools", [None, [], "", "[]"])
def test_no_tools_are_none(tools: Any) -> None:
    assert convert(chat(USER, ANSWER, tools=tools), "chat", None).tools is None


TWO = {**ASKS, "tool_calls": [CALL, {**CALL, "id": "c2"}]}
UNNAMED = {**ASKS, "tool_calls": [CALL, {key: value for key, value in CALL.items() if key != "id"}]}


@pytest.mark.parametrize(
    ("asks", "ids", "reason"),
    [
        (ASKS, ["c1"], None),
        (TWO, ["c2", "c1"], None),
        (ASKS, ["c2"], "a tool_call_id is not that of a call before it (message 3 has 'c2')"),
        (TWO, ["c1", "c3"], "a tool_call_id is not that of a call before it (message 4 has 'c3')"),
        (ASKS, ["c" * 99], f"a tool_call_id is not that of a call before it (message 3 has '{'c' * 40}')"),
        (ASKS, [None], None),
        (ASKS, [""], None),
        (UNNAMED, ["c9"], None),  # it may answer the call that has no id
    ],
)
def test_a_tool_answers_a_call_of_the_turn_before_it(asks: Any, ids: list[str | None], reason: str | None) -> None:
    row = chat(USER, asks, *[{**RESULT, "tool_call_id": written} for written in ids], ANSWER)
    if reason is None:
        assert len(convert(row, "chat", None).messages) == len(row["messages"])
    else:
        assert refusal(row) == reason


def test_a_tool_does_not_answer_a_call_of_an_earlier_turn() -> None:
    later = {**ASKS, "tool_calls": [{**CALL, "id": "c2"}]}
    assert convert(chat(USER, ASKS, RESULT, later, {**RESULT, "tool_call_id": "c2"}, ANSWER), "chat", None)
    assert "(message 5 has 'c1')" in refusal(chat(USER, ASKS, RESULT, later, RESULT, ANSWER))
