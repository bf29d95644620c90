"""Rows -> conversations: every common shape is read, none is guessed, and each refusal says why."""

from __future__ import annotations

import json
from datetime import date
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.conversation import Message
from runner.data import formats
from runner.data.formats import FORMATS, Conversation, convert, detect, look_up, scalar_text
from runner.data.readers import HALF, Record
from runner.errors import Exit, Problem, RunnerError
from runner.plan import Template

NO_ROLE = "a role is not one of system, user, assistant, tool"
USER, ANSWER = ("user", "Hi?"), ("assistant", "Ho.")
SYSTEM = ("system", "Be brief.")
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
CALLS = json.dumps([CALL])
TEMPLATE = Template(prompt="Where is {{city}}?", completion="{{ answer.text }}", system="Map of {{n}}.")


def chat(*turns: Any, **more: Any) -> dict[str, Any]:
    messages = [{"role": t[0], "content": t[1]} if isinstance(t, tuple) else t for t in turns]
    return {"messages": messages, **more}


def turns_of(talk: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in talk.messages]


def refusal(value: Any, name: str = "chat", template: Template | None = None) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        convert(value, name, template)
    return str(caught.value)


SHAREGPT = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]


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
    ("row", "expected", "repair"),
    [
        (chat((" User", "Hi?"), ("ASSISTANT", "Ho.")), [USER, ANSWER], formats.ROLE_MENDED),
        (chat(USER, ("assistant", 7)), [USER, ("assistant", "7")], formats.MADE_TEXT),
        (chat(("user", True), ANSWER), [("user", "true"), ANSWER], formats.MADE_TEXT),
        (chat(("system", " \n"), USER, ANSWER), [USER, ANSWER], formats.EMPTY_SYSTEM),
        (chat(("system", ""), SYSTEM, USER, ANSWER), [SYSTEM, USER, ANSWER], formats.EMPTY_SYSTEM),
        (chat(USER, ANSWER, ("user", "And?")), [USER, ANSWER], formats.TAIL_CUT),
        (chat(USER, ANSWER, {"role": "assistant", "content": "", "weight": 0}), [USER, ANSWER], formats.TAIL_CUT),
        (chat(("user", "\x00H\x1bi\x7f?"), ANSWER), [USER, ANSWER], formats.CLEANED),
        (chat(("user", "a\r\nb\rc\td"), ANSWER), [("user", "a\nb\nc\td"), ANSWER], formats.LINE_ENDS),
    ],
)
def test_what_can_be_mended_is_mended_and_told(row: Any, expected: list[tuple[str, str]], repair: str) -> None:
    talk = convert(row, "chat", None)
    assert (turns_of(talk), talk.repairs) == (expected, (repair,))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([[1]], "the row is not a JSON object"),
        (None, "the row is not a JSON object"),
        ({}, "no 'messages' (format chat; the row has the keys: none)"),
        ({"prompt": 1, "b": 2}, "no 'messages' (format chat; the row has the keys: prompt, b)"),
        ({"messages": "Hi?"}, "'messages' is not a list"),
        ({"messages": None}, "'messages' is not a list"),
        ({"messages": [[["user", "Hi?"]]]}, "a message has not the keys role and content (message 1)"),
        (chat(("user", "a"), {"role": "assistant"}), "a message has not the keys role and content (message 2)"),
        (chat(USER, ("asistant", "Ho.")), f"{NO_ROLE} (message 2 has \"asistant\"; did you mean 'assistant'?)"),
        (chat(USER, ANSWER, ("asistant", "Ho.")), f"{NO_ROLE} (message 3 has \"asistant\"; did you mean 'assistant'?)"),
        (chat((["a"], "Hi?"), ANSWER), 'a role is not one of system, user, assistant, tool (message 1 has ["a"])'),
        (chat(("gpt", "Hi?"), ANSWER), 'a role is not one of system, user, assistant, tool (message 1 has "gpt")'),
        (chat(("user", None), ANSWER), "a message has no text as content (message 1, user)"),
        (chat(USER, ("assistant", [])), "a message has no text as content (message 2, assistant)"),
        (chat(USER, ("assistant", {"text": "Ho."})), "a message has no text as content (message 2, assistant)"),
        (chat(USER, ("assistant", float("nan"))), "a message has no text as content (message 2, assistant)"),
        (chat(("user", [{"type": "text"}]), ANSWER), "a message has no text as content (message 1, user)"),
        (
            chat(("user", [{"type": "image_url"}]), ANSWER),
            "a message has a part that is not text (message 1 has 'image_url')",
        ),
        (
            chat(("user", [{"type": "input_audio"}]), ANSWER),
            "a message has a part that is not text (message 1 has 'input_audio')",
        ),
        (chat(("user", [7]), ANSWER), "a message has a part that is not text (message 1 has 'no object')"),
        (chat(USER, ("assistant", "")), "a message is empty (message 2, assistant)"),
        (chat(("user", " \n"), ANSWER), "a message is empty (message 1, user)"),
        (chat(("user", "\0"), ANSWER), "a message is empty (message 1, user)"),
        (chat(USER, ANSWER, ("user", "And?"), ("assistant", "")), "a message is empty (message 4, assistant)"),
        (chat(SYSTEM, SYSTEM, USER, ANSWER), "a system message stands after the first"),
        (chat(USER, SYSTEM, ANSWER), "a system message stands after the first"),
        (chat(USER, ("tool", "42"), ANSWER), "a tool message answers no call (message 2)"),
        (chat(), "the last message is not the assistant's, so there is no answer to learn"),
        (chat(SYSTEM), "the last message is not the assistant's, so there is no answer to learn"),
        (chat(USER), "the last message is not the assistant's, so there is no answer to learn"),
        (chat(ANSWER), "the conversation does not begin with the user (message 1, assistant)"),
        (chat(SYSTEM, ANSWER, USER, ANSWER), "the conversation does not begin with the user (message 2, assistant)"),
        (chat(USER, ANSWER, ANSWER), "user and assistant do not take turns, beginning with the user"),
        (chat(USER, USER, ANSWER), "user and assistant do not take turns, beginning with the user"),
        (
            chat(USER, {"role": "assistant", "content": "x", "weight": 0}),
            "no answer is trained, so there is nothing to learn (every weight is 0)",
        ),
        (
            chat(USER, {"role": "assistant", "content": "x", "weight": 0.5}),
            "a weight is neither 0 nor 1 (message 2 has 0.5)",
        ),
        (
            chat(USER, {"role": "assistant", "content": "x", "weight": [1]}),
            "a weight is neither 0 nor 1 (message 2 has no number)",
        ),
        (chat(("user", "\ud83d"), ANSWER), HALF),
        (chat(USER, {"role": "assistant", "tool_calls": [{"name": "\ud83d"}]}), HALF),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: Any, reason: str) -> None:
    assert refusal(row) == reason


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("sharegpt", {"conversations": "x"}, "'conversations' is not a list"),
        ("sharegpt", {"conversation": {}}, "'conversation' is not a list"),
        ("sharegpt", {"a": 1}, "no 'conversations' (format sharegpt; the row has the keys: a)"),
        ("sharegpt", {"conversations": [{"from": "human"}]}, "a message has not the keys from and value (message 1)"),
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
            "a message has no text as content (message 1, user)",
        ),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["a"]]}, "'history' is not a list of pairs"),
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


def test_an_answer_of_weight_0_is_context() -> None:
    context = {"role": "assistant", "content": "Ho.", "weight": 0}
    talk = convert(chat(USER, context, USER, {**context, "weight": 1}, USER, context), "chat", None)
    assert [message.trained for message in talk.messages] == [True, False, True, True]
    assert talk.repairs == (formats.TAIL_CUT,)


def test_a_hint_needs_a_likely_role() -> None:
    assert "did you mean 'user'?" in refusal(chat(("usr", "x"), ANSWER))
    assert "did you mean" not in refusal(chat(("zzz", "x"), ANSWER))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (1, "1"),
        (2.5, "2.5"),
        (True, "true"),
        (None, None),
        ([1], None),
        ({}, None),
        (b"x", None),
        (float("nan"), None),
        (date(2024, 1, 2), "2024-01-02"),
    ],
)
def test_single_values_have_a_text(value: Any, text: str | None) -> None:
    assert scalar_text(value) == text


def test_a_dotted_path_leads_into_objects_and_a_column_of_that_name_comes_first() -> None:
    assert look_up({"a": {"b": 1}}, "a.b") == 1
    assert look_up({"a.b": 2, "a": {"b": 1}}, "a.b") == 2
    for path in ("c", "a.c", "a.b.c"):
        with pytest.raises(KeyError):
            look_up({"a": {"b": 1}}, path)


# Which format?

ROWS: dict[str, dict[str, Any]] = {
    "chat": chat(USER, ANSWER),
    "sharegpt": {"conversations": SHAREGPT},
    "alpaca": {"instruction": "a", "output": "b"},
    "prompt_completion": {"prompt": "a", "completion": "b"},
}


def records(*rows: Any) -> list[Record]:
    return [Record(row=i, value=row) for i, row in enumerate(rows, 1)]


def undetected(rows: list[Any], wanted: str = "auto", template: Template | None = None) -> Problem:
    with pytest.raises(RunnerError) as caught:
        detect(records(*rows), wanted, template, "rows.jsonl")
    assert caught.value.exit_code == Exit.DATA_REJECTED
    assert caught.value.problems[0].where.path == "rows.jsonl"
    return caught.value.problems[0]


@pytest.mark.parametrize("name", ROWS)
def test_a_format_is_known_by_its_keys(name: str) -> None:
    found = detect(records(*[ROWS[name]] * 91), "auto", None, "rows.jsonl")
    assert found.format == name
    assert found.evidence == f"{name}: 91 of 91 rows looked at have {FORMATS[name].known_by}"


def test_only_the_first_readable_rows_are_looked_at() -> None:
    bad = [Record(row=i, reason="not JSON") for i in range(50)]
    rows = [*bad, *records(*[ROWS["chat"]] * 200), *records(*[ROWS["alpaca"]] * 200)]
    assert detect(rows, "auto", None, "x").evidence == "chat: 200 of 200 rows looked at have messages"


def test_a_stray_row_is_told_and_does_not_make_a_second_format() -> None:
    rows = [ROWS["chat"]] * 95 + [ROWS["alpaca"]] * 5
    found = detect(records(*rows), "auto", None, "x")
    assert found.format == "chat"
    assert found.evidence.endswith("; alpaca: 5 of 100 rows looked at have instruction and output")
    undetected(rows[1:])


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([ROWS["chat"]] * 2 + [ROWS["alpaca"]], ["chat: 2 of 3", "alpaca: 1 of 3"]),
        ([{**ROWS["chat"], **ROWS["alpaca"]}] * 3, ["alpaca and chat: 3 of 3"]),
    ],
)
def test_two_formats_are_a_problem_and_never_a_guess(rows: list[Any], counts: list[str]) -> None:
    found = undetected(rows)
    assert (found.code, found.where.key) == ("data/ambiguous-format", "data.format")
    assert all(count in found.what for count in counts) and "alpaca or chat" in found.fix


def test_a_key_without_a_value_is_no_sign_of_a_format() -> None:
    row = {**ROWS["chat"], "instruction": None, "output": "x"}
    assert detect(records(row), "auto", None, "x").format == "chat"


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        (
            {"question": 1, "id": 2, "answer": 3},
            "columns are: question, id, answer",
            '{prompt: "{{question}}", completion: "{{answer}}"}',
        ),
        ({"x": 1, "y": 2}, "columns are: x, y", '{prompt: "{{x}}", completion: "{{y}}"}'),
        ({"mesages": []}, "columns are: mesages", "Did you mean 'messages' where 'mesages' stands?"),
        ([1], "none is an object", '{"messages": '),
        ({}, "none is an object", '{"messages": '),
    ],
)
def test_rows_of_no_known_format_name_their_columns_and_a_template(row: Any, what: str, fix: str) -> None:
    found = undetected([row] * 3)
    assert (found.code, found.where.key) == ("data/unknown-format", "data.format")
    assert what in found.what and fix in found.fix


def test_a_file_of_which_no_row_can_be_read_has_no_format() -> None:
    with pytest.raises(RunnerError, match="No row can be read"):
        detect([Record(row=1, reason="not JSON")], "auto", None, "x")


def test_a_format_that_is_named_is_taken_at_its_word() -> None:
    found = detect(records(ROWS["alpaca"]), "chat", None, "x")
    assert (found.format, found.evidence) == ("chat", "chat: named by data.format")


@pytest.mark.parametrize("wanted", ["auto", "columns"])
def test_a_template_names_columns_that_some_row_must_have(wanted: str) -> None:
    rows: list[Any] = [{"city": "x"}, {"n": None, "answer": {"text": 1}}]
    found = detect(records(*rows), wanted, TEMPLATE, "x")
    assert (found.format, found.evidence) == ("columns", "columns: data.template names n, city, answer.text")
    missing = undetected([{"citi": "x", "n": 1, "answer": {"text": 1}}] * 2, wanted, TEMPLATE)
    assert (missing.code, missing.where.key) == ("data/unknown-column", "data.template")
    assert "'city'" in missing.what and missing.fix == "Did you mean 'citi'? The columns are: citi, n, answer."


def test_columns_without_a_template_are_a_problem() -> None:
    assert undetected([{"a": 1}], "columns").code == "data/no-template"


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
    optional={"tool_calls": JSON, "weight": st.sampled_from([0, 1, 2, None]), "function_call": JSON},
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
