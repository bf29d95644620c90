"""Rows -> conversations: every common shape is read, and each refusal says why."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.reading import FORMATS
from runner.data.reading.formats import convert
from runner.data.reading.turns import KEYS_LEFT_OUT, ROLE_MENDED
from tests.data.reading.talks import ANSWER, SHAREGPT, SYSTEM, TEMPLATE, USER, chat, refusal, turns_of


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("chat", chat(USER, ANSWER), [USER, ANSWER]),
        ("chat", chat(("developer", "Be brief."), USER, ANSWER), [SYSTEM, USER, ANSWER]),
        (
            "chat",
            chat(USER, ANSWER, ("user", "And?"), ("assistant", "Done.")),
            [USER, ANSWER, ("user", "And?"), ("assistant", "Done.")],
        ),
        (
            "chat",
            chat(("user", [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}, "C"]), ANSWER),
            [("user", "A\nB\nC"), ANSWER],
        ),
        ("sharegpt", {"conversations": SHAREGPT}, [USER, ANSWER]),
        ("sharegpt", {"conversation": SHAREGPT, "system": "Be brief."}, [SYSTEM, USER, ANSWER]),
        ("sharegpt", {"conversations": None, "conversation": SHAREGPT, "system": None}, [USER, ANSWER]),
        ("sharegpt", {"conversations": chat(SYSTEM, USER, ANSWER)["messages"]}, [SYSTEM, USER, ANSWER]),
        *[
            ("sharegpt", {"conversations": [{"from": who, "value": "Hi?"}, SHAREGPT[1]]}, [USER, ANSWER])
            for who in ("user", "human")
        ],
        *[
            ("sharegpt", {"conversations": [SHAREGPT[0], {"from": who, "value": "Ho."}]}, [USER, ANSWER])
            for who in ("assistant", "chatgpt", "bard", "model", "bing")
        ],
        ("alpaca", {"instruction": "Hi?", "output": "Ho."}, [USER, ANSWER]),
        ("alpaca", {"instruction": "Hi?", "input": " ", "output": "Ho.", "history": None}, [USER, ANSWER]),
        (
            "alpaca",
            {"instruction": "Add", "input": "1, 2", "output": "3"},
            [("user", "Add\n\n1, 2"), ("assistant", "3")],
        ),
        ("alpaca", {"instruction": "", "input": "Hi?", "output": "Ho."}, [USER, ANSWER]),
        (
            "alpaca",
            {"instruction": "And?", "output": "Done.", "history": [["Hi?", "Ho."]], "system": "Be brief."},
            [SYSTEM, USER, ANSWER, ("user", "And?"), ("assistant", "Done.")],
        ),
        ("prompt_completion", {"prompt": "Hi?", "completion": "Ho."}, [USER, ANSWER]),
        (
            "prompt_completion",
            {"prompt": chat(SYSTEM, USER)["messages"], "completion": chat(ANSWER)["messages"]},
            [SYSTEM, USER, ANSWER],
        ),
        ("prompt_completion", {"prompt": chat(USER)["messages"], "completion": "Ho."}, [USER, ANSWER]),
        (
            "columns",
            {"city": "Rome", "answer": {"text": {"in": "Italy"}}, "n": 2.5},
            [("system", "Map of 2.5."), ("user", "Where is Rome?"), ("assistant", '{"in": "Italy"}')],
        ),
        (
            "columns",
            {"city": "{{n}}", "answer.text": "là", "n": True},
            [("system", "Map of true."), ("user", "Where is {{n}}?"), ("assistant", "là")],
        ),
    ],
)
def test_every_format_becomes_the_same_turns(name: str, row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    talk = convert(row, name, TEMPLATE)
    assert (turns_of(talk), talk.repairs, talk.tools) == (expected, (), None)
    assert all(message.trained for message in talk.messages)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "columns"])
def test_the_example_of_a_format_has_its_shape(name: str) -> None:
    row = json.loads(FORMATS[name].shape)
    assert [message.role for message in convert(row, name, None).messages] == ["user", "assistant"]
    assert [other for other, form in FORMATS.items() if form.fits(row)] == [name]


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("sharegpt", {"conversations": "x"}, "'conversations' is not a list"),
        ("sharegpt", {"conversation": {}}, "'conversation' is not a list"),
        ("sharegpt", {"a": 1}, "no 'conversations' (format sharegpt; the row has the keys: a)"),
        ("sharegpt", {"conversations": [{"from": "human"}]}, "a message has not the keys from and value (message 1)"),
        ("sharegpt", {"conversations": []}, "there are no messages"),
        ("sharegpt", {"conversations": [7]}, "a message has not the keys role and content (message 1)"),
        (
            "sharegpt",
            {"conversations": SHAREGPT[::-1]},
            "the conversation does not begin with the user (message 1, assistant)",
        ),
        (
            "sharegpt",
            {"conversations": [SHAREGPT[0], {"from": "function_call", "value": "{"}]},
            "a tool call is not JSON (message 2)",
        ),
        ("sharegpt", {"conversations": SHAREGPT, "tools": "{"}, "the list of tools is not JSON"),
        ("alpaca", {"instruction": "a"}, "no 'output' (format alpaca; the row has the keys: instruction)"),
        ("alpaca", {"instruction": "a", "output": None}, "a message has no text as content (message 2, assistant)"),
        ("alpaca", {"instruction": None, "output": "b"}, "a message has no text as content (message 1, user)"),
        (
            "alpaca",
            {"instruction": "a", "input": ["b"], "output": "b"},
            "a list stands where one text belongs ('input')",
        ),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["a"]]}, "'history' is not a list of pairs"),
        ("alpaca", {"instruction": "a", "output": ["b", "c"]}, "a list stands where one text belongs ('output')"),
        ("alpaca", {"instruction": ["a"], "output": "b"}, "a list stands where one text belongs ('instruction')"),
        (
            "alpaca",
            {"instruction": "a", "output": "b", "history": [["a", ["b", "c"]]]},
            "a list stands where one text belongs ('history')",
        ),
        ("alpaca", {"instruction": "a", "output": "b", "history": "ab"}, "'history' is not a list of pairs"),
        (
            "prompt_completion",
            {"prompt": "a"},
            "no 'completion' (format prompt_completion; the row has the keys: prompt)",
        ),
        ("prompt_completion", {"prompt": {}, "completion": "b"}, "a message has no text as content (message 1, user)"),
        ("prompt_completion", {"prompt": "a", "completion": " "}, "a message is empty (message 2, assistant)"),
        ("columns", {"answer": {"text": "x"}, "n": 1}, "a column of the template is missing ('city')"),
        ("columns", {"city": "x", "answer": "x", "n": 1}, "a column of the template is missing ('answer.text')"),
        ("columns", {"city": None, "answer": {"text": "x"}, "n": 1}, "a column of the template has no value ('city')"),
        (
            "columns",
            {"city": "x", "answer": {"text": "x"}, "n": float("inf")},
            "a column of the template has no value ('n')",
        ),
        ("columns", {"city": "x", "answer": {"text": " "}, "n": 1}, "a message is empty (message 3, assistant)"),
    ],
)
def test_a_row_of_another_format_that_cannot_be_used_says_why(name: str, row: Any, reason: str) -> None:
    assert refusal(row, name, TEMPLATE) == reason


def test_columns_need_a_template() -> None:
    assert refusal({"a": 1}, "columns") == "there is no template (data.template)"


NAMES = [
    "messages",
    "conversations",
    "role",
    "content",
    "from",
    "value",
    "prompt",
    "completion",
    "instruction",
    "output",
    "input",
    "history",
    "system",
    "tools",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "weight",
    "type",
    "text",
    "id",
    "function_call",
    "tool_call_id",
    "refusal",
]
WORDS = [
    "user",
    "assistant",
    "system",
    "tool",
    "gpt",
    "human",
    "function_call",
    "Assistant ",
    "text",
    "",
    " ",
    "[]",
    "{",
    "\x00",
    "\ud83d",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-2, 2) | st.sampled_from(WORDS) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=14,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from([*WORDS[:8], 7]), "content": st.text(max_size=5) | JSON},
    optional={
        "tool_calls": JSON,
        "weight": st.sampled_from([0, 1, 2, None]),
        "function_call": JSON,
        "name": JSON,
        "tool_call_id": JSON,
    },
)
ROW = st.one_of(
    JSON,
    *(
        st.fixed_dictionaries(
            {names[0]: st.lists(TURN, max_size=5) | JSON for names in form.keys},
            optional={"tools": JSON, "system": JSON, "input": JSON, "history": JSON},
        )
        for form in FORMATS.values()
    ),
)


AFTER = {"user": ["assistant"], "assistant": ["user"], "call": ["tool"], "tool": ["assistant", "tool"]}


@settings(max_examples=400, deadline=None, derandomize=True)
@given(row=ROW, name=st.sampled_from([*FORMATS]))
def test_any_value_is_a_conversation_by_the_rules_or_has_a_reason(row: Any, name: str) -> None:
    try:
        talk = convert(row, name, TEMPLATE)
    except ValueError as error:
        reason = str(error)
        assert reason and "\n" not in reason and reason.encode()
        return
    spoken = [message for message in talk.messages if message.role != "system"]
    assert spoken[0].role == "user" and spoken[-1].role == "assistant" and spoken[-1].trained
    assert [message.role for message in talk.messages[1:]].count("system") == 0
    for before, message in pairwise(spoken):
        assert message.role in AFTER["call" if before.tool_calls else before.role]
    for message in talk.messages:
        assert message.text.strip() and message.text.encode()
        assert not set(message.content) & {chr(i) for i in range(32) if i not in (9, 10)}


def test_more_keys_of_a_sharegpt_turn_are_heeded_or_told() -> None:
    called = {"from": "Function_Call", "value": '{"name": "find"}', "weight": 0, "note": "x"}
    turns = [SHAREGPT[0], called, {"from": "observation", "value": "42"}, {**SHAREGPT[1], "markdown": None}]
    talk = convert({"conversations": turns}, "sharegpt", None)
    assert [message.trained for message in talk.messages] == [True, False, True, True]
    assert talk.repairs == (ROLE_MENDED, f"{KEYS_LEFT_OUT} (note)")


def test_the_keys_of_a_row_are_shown_short_and_on_one_line() -> None:
    found = refusal({"a\nb": 1, "c" * 100: 2, "com\ufeffpletion": 3})
    assert found.endswith(f"(format chat; the row has the keys: a\\nb, {'c' * 40}, com\\ufeffpletion)")
