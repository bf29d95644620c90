"""Values of a row: found by their path, and as text."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from runner.data.reading.columns import look_up
from runner.data.reading.contents import scalar_text


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
