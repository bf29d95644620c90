"""Marks from the judge's reply, or what is wrong with it."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.conversation import Completion
from runner.judge.reply import MAX_REASON, Marks, read_reply

GOOD = '{"reason": "kind", "a": 4, "b": 2}'


def read(text: str, finish: Literal["stop", "length"] = "stop") -> Marks | str:
    return read_reply(Completion(text=text, prompt_tokens=1, output_tokens=1, seconds=0.1, finish=finish), 5)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```\n",
        f"```JSON\n{GOOD}```",
        f'<think>A quotes {{"a": 1}} </think>\n{GOOD}',
        f"<think>\n</think>```json\n{GOOD}\n```",
        '{"b": 2.0, "a": 4, "reason": "kind", "more": 1}',
    ],
)
def test_marks_are_read_bare_or_in_a_code_fence(text: str) -> None:
    assert read(text) == Marks(a=4, b=2, reason="kind")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("A is better.", "no JSON"),
        (f"Here it is: {GOOD}", "no JSON"),
        (f"{GOOD} {GOOD}", "no JSON"),
        (f"```json\n{GOOD}\n```\n```json\n{GOOD}\n```", "no JSON"),
        ('{"a": 4, "b": 2, "a": 1}', "no JSON"),
        ('{"a": NaN, "b": 2}', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"a": ' + "9" * 5000 + ', "b": 1}', "no JSON"),
        ("[4, 2]", "no JSON object"),
        ("4", "no JSON object"),
        ('{"reason": "x", "b": 2}', '"a" was missing'),
        ('{"a": 4}', '"b" was missing'),
        ('{"a": 0, "b": 2}', '"a" was no whole number from 1 to 5'),
        ('{"a": 4, "b": 6}', '"b" was no whole number from 1 to 5'),
        ('{"a": 3.5, "b": 2}', '"a" was no whole'),
        ('{"a": 1e999, "b": 2}', '"a" was no whole'),
        ('{"a": "4", "b": 2}', '"a" was no whole'),
        ('{"a": true, "b": 2}', '"a" was no whole'),
        ('{"a": null, "b": 2}', '"a" was no whole'),
    ],
)
def test_anything_else_is_a_fault_and_never_a_mark(text: str, fault: str) -> None:
    found = read(text)
    assert isinstance(found, str) and fault in found


def test_a_reply_that_was_cut_off_is_told_so() -> None:
    found = read('{"reason": "it goes on and', "length")
    assert isinstance(found, str) and "cut off" in found
    assert read(GOOD, "length") == Marks(a=4, b=2, reason="kind")


def test_a_reason_is_optional_and_bounded() -> None:
    assert read('{"a": 1, "b": 1}') == read('{"a": 1, "b": 1, "reason": 7}') == Marks(a=1, b=1, reason="")
    found = read(json.dumps({"reason": "x" * 5000, "a": 1, "b": 1}))
    assert isinstance(found, Marks) and len(found.reason) == MAX_REASON


@given(st.text() | st.recursive(st.none() | st.integers() | st.floats(), st.lists, max_leaves=5).map(json.dumps))
def test_no_reply_raises(text: str) -> None:
    read(text)


def test_a_fault_never_repeats_what_the_judge_said() -> None:
    for text in ("SECRET", '{"SECRET": 1, "a": "SECRET", "b": 1}'):
        assert "SECRET" not in str(read(text))
