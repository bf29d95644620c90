"""Short words for the tests of scores."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from runner.metrics import METRICS, Answer, Score

SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
DEEP = "[" * 100_000 + "]" * 100_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from("xyz"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.text(max_size=20) | JSON.map(json.dumps) | st.text("ab 荷物。", max_size=12)


def score(name: str, output: str, expected: str = "", **given: Any) -> Score:
    return METRICS[name].score(Answer(output=output, expected=expected, **given))
