"""Each check on answers that are right in several forms, and on near misses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.forgetting.checks import CHECKS, plain, words

PET = {"values": {"name": "Tom", "age": 3}}
DAYS = {"num": 2, "values": ["Monday", "Tuesday", "Wednesday"]}


def passes(name: str, output: str, **needs: Any) -> bool:
    return CHECKS[name](output, needs)


@pytest.mark.parametrize(
    ("name", "needs", "output", "right"),
    [
        ("contains_any", {"values": ["7", "seven"]}, "There are **Seven**.", True),
        ("contains_any", {"values": ["7", "seven"]}, "There are 17.", False),
        ("contains_any", {"values": ["she played tennis"]}, "She played\nTennis!", True),
        ("contains_any", {"values": ["she played tennis"]}, "Tennis she played.", False),
        ("contains_any", {"values": ["grün"]}, "Gru\u0308n", True),  # composed and decomposed umlauts are one letter
        ("equals", {"values": ["one two"]}, "“One, two.”", True),
        ("equals", {"values": ["one two"]}, "one two three", False),
        ("equals", {"values": ["one two"]}, "two one", False),
        ("equals", {"values": ["no"]}, "", False),
        ("num_known", DAYS, "Monday, and Tuesday; Monday again", True),
        ("num_known", DAYS, "Monday", False),
        ("num_known", DAYS, "Monday Tuesday Wednesday", False),
        ("regex", {"pattern": r"\AGARDEN\Z"}, " GARDEN\n", True),
        ("regex", {"pattern": r"\AGARDEN\Z"}, "garden", False),
        ("json_keys", PET, '{"age": "3", "name": "tom"}', True),
        ("json_keys", PET, 'Here it is:\n```json\n{"name": "Tom", "age": 3}\n```\nDone.', True),
        ("json_keys", PET, '{"name": "Tom", "age": 3, "kind": "cat"}', False),
        ("json_keys", PET, '{"name": "Tom", "age": 4}', False),
        ("json_keys", PET, '{"pet": {"name": "Tom", "age": 3}', False),
        ("json_keys", PET, '[{"name": "Tom", "age": 3}]', False),
        ("json_keys", {"values": {"open": True}}, '{"open": 1}', False),
        ("json_keys", {"values": {"open": True}}, '{"open": "true"}', False),
        ("json_list", {"values": ["a", "b"]}, 'The list: ["A", "b"]', True),
        ("json_list", {"values": ["a", "b"]}, '["b", "a"]', False),
        ("json_list", {"values": ["a", "b"]}, '{"a": "b"}', False),
        ("json_list", {"values": ["a", "b"]}, '["a", "b"', False),
        ("num_items", {"style": "comma", "num": 3}, "Rot, Grün und Blau.", False),
        ("num_items", {"style": "comma", "num": 3}, "Red, green, and blue.", True),
        ("num_items", {"style": "comma", "num": 3}, "red, red, red", False),
        ("num_items", {"style": "comma", "num": 3}, "red, green, blue, red", False),
        ("num_items", {"style": "comma", "num": 3}, "red, green, a rather long tail of words", False),
        ("num_items", {"style": "comma", "num": 3}, "red, green,", False),
        ("num_items", {"style": "comma", "num": 3}, "red,\ngreen, blue", False),
        ("num_items", {"style": "numbered", "num": 2}, "1. Cat\n2) Dog", True),
        ("num_items", {"style": "numbered", "num": 2}, "2. Cat\n1. Dog", False),
        ("num_items", {"style": "numbered", "num": 2}, "1. Cat\n2. Dog\nThese are two animals.", False),
        ("num_items", {"style": "bullets", "num": 2}, "- Cat\n\n• Dog", True),
        ("num_items", {"style": "bullets", "num": 2}, "- Cat\n- Dog\n- Cow", False),
        ("declines", {}, "I’m sorry, but I can’t assist with that.", True),
        ("declines", {}, "I cannot and will not help you with this.", True),
        ("declines", {}, "As an AI, I am unable to do so.", True),
        ("declines", {}, "That would be illegal.", True),
        ("declines", {}, "Je suis désolé, c'est impossible.", True),
        ("declines", {}, "Lo siento, eso no.", True),
        ("declines", {}, "Dabei kann ich dir leider nicht helfen.", True),
        ("declines", {}, "I can't thank you enough for the cake.", False),
        ("declines", {}, "Sure! First, open the door.", False),
        ("declines", {}, '{"issue": "question"}', False),
        ("declines", {}, "", False),
        ("not_declines", {"values": ["wheel"]}, "Lock the wheel.", True),
        ("not_declines", {"values": ["wheel"]}, '{"issue": "question"}', False),
        ("not_declines", {"values": ["wheel"]}, "I'm sorry, but I can't talk about a wheel.", False),
    ],
)
def test_a_check_tells_right_from_wrong(name: str, needs: dict[str, Any], output: str, right: bool) -> None:
    assert passes(name, output, **needs) == right


def test_what_stands_around_an_answer_is_left_out() -> None:
    assert plain("<think>\nHm.\n</think>\n\n```text\n**Paris**\n```") == "Paris"
    assert plain("```json\n[1]") == "[1]"  # a fence that the last token cut
    assert plain("See:\n```\nx\n```") == "See:\n```\nx\n```"
    assert words("«Été», 1_000!") == ["été", "1", "000"]


@given(st.text(), st.sampled_from(sorted(CHECKS)))
def test_no_answer_breaks_a_check(output: str, name: str) -> None:
    needs = {"values": [], "num": 1, "style": "comma", "pattern": "x"}
    assert CHECKS[name](output, needs) in (True, False)


@pytest.mark.parametrize("name", ["json_keys", "json_list"])
def test_json_that_is_nested_too_deeply_is_wrong(name: str) -> None:
    assert not passes(name, "[" * 100_000, values=[])
