"""Scores of single answers."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.metrics import METRICS, Answer, Score

SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
NESTED = {"$ref": "#/$defs/x", "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}}}
DEEP = "[" * 100_000 + "]" * 100_000
SHARES = [name for name, metric in METRICS.items() if metric.unit == "share"]


def score(name: str, output: str, expected: str = "", **given: Any) -> Score:
    return METRICS[name].score(Answer(output=output, expected=expected, **given))


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("yes", "yes", 1),
        (" yes\n", "yes", 1),
        ("yes", "\tyes ", 1),
        ("Yes", "yes", 0),
        ("y es", "yes", 0),
        ("", "yes", 0),
        ("", "", 1),
        ("はい。", "はい。", 1),
        ("はい", "はい。", 0),
        ("é", "e\u0301", 0),
    ],
)
def test_exact_match_forgives_only_white_space_at_the_ends(output: str, expected: str, value: float) -> None:
    assert score("exact_match", output, expected) == Score(value=value)


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from("xyz"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


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


@pytest.mark.parametrize(
    ("output", "expected", "low", "high"),
    [
        ("", "The parcel is late.", 0, 0),
        ("xyz", "abc", 0, 0),
        ("The parcel is late.", "The parcel is late.", 1, 1),
        ("The parcel is later.", "The parcel is late.", 0.7, 0.99),
        ("The parcel was late.", "The parcel is late.", 0.5, 0.9),
        ("荷物は明日届きます。", "荷物は明日届きます。", 1, 1),
        ("荷物は今日届きます。", "荷物は明日届きます。", 0.1, 0.9),
        ("الطرد متأخر", "الطرد متأخر", 1, 1),
    ],
)
def test_chrf_measures_how_much_text_is_shared(output: str, expected: str, low: float, high: float) -> None:
    value = score("chrf", output, expected).value
    assert value is not None and low <= value <= high


@pytest.mark.parametrize("expected", ["", " \n"])
def test_chrf_is_unscored_where_nothing_is_expected(expected: str) -> None:
    assert score("chrf", "text", expected) == Score(value=None, reason="the expected answer is empty")


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=30).filter(str.strip))
def test_a_text_has_the_full_chrf_against_itself(text: str) -> None:
    assert score("chrf", text, text).value == pytest.approx(1)


def test_loss_is_passed_on() -> None:
    assert score("loss", "", loss=1.5) == Score(value=1.5)
    assert score("loss", "", loss=0.0) == Score(value=0)


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("json_valid", {}, "no eval.json_schema given"),
        ("loss", {}, "this model gives no token probabilities"),
        ("loss", {"loss": math.nan}, "the loss is not a finite number"),
        ("loss", {"loss": math.inf}, "the loss is not a finite number"),
    ],
)
def test_a_score_that_cannot_be_taken_says_why(name: str, given: dict[str, Any], reason: str) -> None:
    assert score(name, "{}", "{}", **given) == Score(value=None, reason=reason)


@pytest.mark.parametrize("name", SHARES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_every_share_lies_between_nothing_and_all_or_has_a_reason(name: str, data: st.DataObject) -> None:
    texts = st.text(max_size=20) | JSON.map(json.dumps)
    found = score(name, data.draw(texts), data.draw(texts), schema=SCHEMA)
    assert found.reason if found.value is None else 0 <= found.value <= 1


def test_only_loss_is_better_when_it_is_lower() -> None:
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["loss"]


def test_a_schema_that_refers_to_nothing_leaves_the_row_unscored() -> None:
    score = METRICS["json_valid"].score(Answer(output="{}", expected="{}", schema={"$ref": "#/$defs/absent"}))
    assert score.value is None
    assert "absent" in (score.reason or "")
