"""Answers that are JSON."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.metrics import Score
from tests.metrics.scores import DEEP, JSON, SCHEMA, score

NESTED = {"$ref": "#/$defs/x", "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}}}


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ('{"a": 1}', 1),
        (' {"a": 1}\n', 1),
        ('{"a": "1"}', 0),
        ('{"a": 1, "b": 2}', 0),
        ("{}", 0),
        ("[]", 0),
        ("", 0),
        ('```json\n{"a": 1}\n```', 0),
        ('{"a": 1} and more', 0),
        ('{"a": 1', 0),
        ("質問", 0),
        (DEEP, 0),
        ('{"a": ' + "9" * 5000 + "}", 0),
    ],
)
def test_json_is_valid_when_it_is_json_and_fits_the_schema(output: str, value: float) -> None:
    assert score("json_valid", output, schema=SCHEMA) == Score(value=value)


@pytest.mark.parametrize("output", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_what_only_python_takes_for_json_is_not_valid(output: str) -> None:
    assert score("json_valid", output, schema={}) == Score(value=0)
    assert score("json_valid", "null", schema={}) == Score(value=1)


def test_an_answer_too_deep_to_be_held_to_the_schema_is_not_valid() -> None:
    assert score("json_valid", "[" * 900 + "]" * 900, schema=NESTED) == Score(value=0)
    assert score("json_valid", "[[]]", schema=NESTED) == Score(value=1)


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 1),
        ({"a": 1, "b": 3}, {"a": 1, "b": 2}, 0.5),
        ({"a": 1}, {"a": 1, "b": 2}, 2 / 3),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1}, 0.5),
        ({"a": 2}, {"a": 1}, 0),
        ({"a": "1"}, {"a": 1}, 0),
        ({"a": True}, {"a": 1}, 0),
        ({"a": None}, {}, 0),
        ({}, {}, 1),
        ([], {}, 0),
        ([1, 2], [2, 1], 0),
        ([1, 2, 3], [1, 2], 0.8),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, 1),
        ({"a": {"b": 1}}, {"a.b": 1}, 0),
        ({"a": {"b": 1}}, {"ab": 1}, 0),
        ({"a": [1]}, {"a": {"0": 1}}, 0),
        ({"名前": "山田"}, {"名前": "山田"}, 1),
        ("a", "a", 1),
    ],
)
def test_field_f1_counts_the_fields_that_are_right(output: Any, expected: Any, value: float) -> None:
    found = score("field_f1", json.dumps(output, ensure_ascii=False), json.dumps(expected))
    assert found.value == pytest.approx(value)


@pytest.mark.parametrize("output", ["", "{", "a: 1", '{"a": NaN}', DEEP])
def test_an_answer_that_is_no_json_has_no_field_right(output: str) -> None:
    assert score("field_f1", output, '{"a": 1}') == Score(value=0)


@pytest.mark.parametrize("expected", ["", "Dear Ann", "NaN", DEEP])
def test_fields_are_unscored_where_the_expected_answer_has_none(expected: str) -> None:
    assert score("field_f1", "{}", expected) == Score(value=None, reason="the expected answer is not JSON")


@settings(deadline=None, max_examples=60)
@given(JSON, JSON)
def test_field_f1_is_the_same_from_both_sides_and_one_just_for_equals(a: Any, b: Any) -> None:
    one, other = json.dumps(a), json.dumps(b)
    value = score("field_f1", one, other).value
    assert value == score("field_f1", other, one).value
    assert (value == 1) == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.sampled_from("abcde"), JSON, min_size=1), st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_no_field(value: dict[str, Any], random: Random) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert score("field_f1", json.dumps({key: value[key] for key in keys}), json.dumps(value)).value == 1


def test_a_schema_that_refers_to_nothing_leaves_the_row_unscored() -> None:
    found = score("json_valid", "{}", "{}", schema={"$ref": "#/$defs/absent"})
    assert found.value is None
    assert "absent" in (found.reason or "")
