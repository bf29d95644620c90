"""The rules of a conversation: what is mended, what is refused, and why."""

from __future__ import annotations

from typing import Any

import pytest

from runner.data.reading import contents, turns
from runner.data.reading.formats import convert
from runner.data.reading.records import HALF
from tests.data.reading.talks import ANSWER, SYSTEM, USER, chat, refusal, turns_of

NO_ROLE = "a role is not one of system, user, assistant, tool"


@pytest.mark.parametrize(
    ("row", "expected", "repair"),
    [
        (chat((" User", "Hi?"), ("ASSISTANT", "Ho.")), [USER, ANSWER], turns.ROLE_MENDED),
        (chat(USER, ("assistant", 7)), [USER, ("assistant", "7")], contents.MADE_TEXT),
        (chat(USER, ("assistant", ["a", "b"])), [USER, ("assistant", "a\nb")], contents.JOINED),
        (chat(("user", True), ANSWER), [("user", "true"), ANSWER], contents.MADE_TEXT),
        (chat(("system", " \n"), USER, ANSWER), [USER, ANSWER], turns.EMPTY_SYSTEM),
        (chat(("system", ""), SYSTEM, USER, ANSWER), [SYSTEM, USER, ANSWER], turns.EMPTY_SYSTEM),
        (chat(USER, ANSWER, ("user", "And?")), [USER, ANSWER], turns.TAIL_CUT),
        (chat(USER, ANSWER, {"role": "assistant", "content": "", "weight": 0}), [USER, ANSWER], turns.TAIL_CUT),
        (chat(("user", "\x00H\x1bi\x7f?"), ANSWER), [USER, ANSWER], contents.CLEANED),
        (chat(("user", "a\r\nb\rc\td"), ANSWER), [("user", "a\nb\nc\td"), ANSWER], contents.LINE_ENDS),
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
        (chat(), "there are no messages"),
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


def test_an_answer_of_weight_0_is_context() -> None:
    context = {"role": "assistant", "content": "Ho.", "weight": 0}
    talk = convert(chat(USER, context, USER, {**context, "weight": 1}, USER, context), "chat", None)
    assert [message.trained for message in talk.messages] == [True, False, True, True]
    assert talk.repairs == (turns.TAIL_CUT,)


def test_a_hint_needs_a_likely_role() -> None:
    assert "did you mean 'user'?" in refusal(chat(("usr", "x"), ANSWER))
    assert "did you mean" not in refusal(chat(("zzz", "x"), ANSWER))


THOUGHT = {"role": "assistant", "content": "Ho.", "reasoning_content": "Hm.", "refusal": None, "audio": None}


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (chat(USER, THOUGHT), "reasoning_content"),
        (chat({"role": "user", "content": "Hi?", "name": "Ada"}, THOUGHT), "name, reasoning_content"),
        (chat({"role": "user", "content": "Hi?", "name": "Ada"}, {**THOUGHT, "name": 1}), "name, reasoning_content"),
        (chat(USER, {"role": "assistant", "content": "Ho.", "a; b": 1, "c\n(d)": []}), "a, b, c\\n(d)"),
        (chat(USER, {"role": "assistant", "content": "Ho.", **dict.fromkeys("abcdefgh", 1)}), "a, b, c, d, e, f"),
    ],
)
def test_keys_of_a_message_that_nobody_reads_are_told(row: Any, names: str) -> None:
    talk = convert(row, "chat", None)
    assert (talk.messages[-1].content, talk.repairs) == ("Ho.", (f"{turns.KEYS_LEFT_OUT} ({names})",))


def test_keys_that_are_read_or_empty_or_in_the_tail_that_is_cut_are_not_told() -> None:
    usual = {
        "weight": 1,
        "tool_calls": None,
        "function_call": None,
        "tool_call_id": None,
        "refusal": None,
        "name": None,
    }
    row = chat({"role": "user", "content": "Hi?", **usual}, {"role": "assistant", "content": "Ho.", **usual})
    assert convert(row, "chat", None).repairs == ()
    row["messages"].append({"role": "user", "content": "And?", "name": "Ada"})
    assert convert(row, "chat", None).repairs == (turns.TAIL_CUT,)
