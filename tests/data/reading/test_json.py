"""JSON Lines and JSON -> records: a value that is wrong is one row with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.data.reading.records import HALF
from tests.data.reading.files import PAIR, VALUE, Put, problem, reasons, values


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"a": ' * 100_000, "not JSON: nested too deeply"),
        (b'{"a": NaN}', "not JSON: NaN is no JSON value"),
        (b'{"a": [-Infinity]}', "not JSON: -Infinity is no JSON value"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: a number of too many digits"),
        (b'{"messages": "\xff"}', "not UTF-8 (byte 15 of the row)"),
        (b'{"a": "\\ud83d"}', HALF),
        (b'{"\\uDC00": 1}', HALF),
        (b'{"a": 1, "b": 2, "a": 3}', "a key is written twice in one object ('a')"),
        (b'{"a": [{"b": 1, "b": 1}]}', "a key is written twice in one object ('b')"),
        (b'{"a": "\0"}', "not JSON: Invalid control character at at column 8"),
        (b'{"a": 1} x', "not JSON: Extra data at column 10"),
    ],
)
def test_a_line_or_an_element_that_cannot_be_read_says_why(put: Put, line: bytes, reason: str) -> None:
    path = put(PAIR.encode() + b"\n" + line + b"\n" + PAIR.encode())
    assert reasons(path) == [(1, None), (2, reason), (3, None)]
    closed = line not in (b"{", b'{"a": ' * 100_000, b'{"a": 1} x')
    listed = put(b"[" + PAIR.encode() + b",\n" + line + b",\n" + PAIR.encode() + b"]", "rows.json")
    if closed:
        kind = reason.partition(" at ")[0]
        assert [(row, (said or "").partition(" at ")[0]) for row, said in reasons(listed)] == [
            (1, ""),
            (2, kind),
            (3, ""),
        ]
    else:
        assert problem(listed, "data/corrupt").where.line in (2, 3)


def test_whole_characters_written_as_escapes_are_fine(put: Put) -> None:
    assert values(put('{"a": "\\ud83e\\udd8a"}')) == [{"a": "🦊"}]


def test_a_deep_element_of_a_list_is_one_row_that_is_lost(put: Put) -> None:
    deep = "[" * 50_000 + "]" * 50_000
    path = put(f"[{PAIR}, {deep}, {PAIR}]", "rows.json")
    assert reasons(path) == [(1, None), (2, "not JSON: nested too deeply"), (3, None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{{"version": 1, "data": [{PAIR}, {PAIR}], "tags": ["a"]}}', [VALUE, VALUE]),
        ('{"messages": [{"role": "user"}], "tools": [{"name": "x"}]}', None),
        ('{"conversations": [{"value": "x", "from": "human"}]}', None),
        ('{"a": {"b": [{"c": 1}]}}', None),
        ("[]]", []),
        ("[1, null, true]", [1, None, True]),
    ],
)
def test_an_object_with_one_list_of_objects_is_that_list(put: Put, text: str, expected: list[Any] | None) -> None:
    if text == "[]]":
        problem(put(text, "rows.json"), "data/corrupt")
    else:
        assert values(put(text, "rows.json")) == ([json.loads(text)] if expected is None else expected)


def test_an_object_with_several_lists_of_objects_is_ambiguous(put: Put) -> None:
    path = put(f'{{"train": [{PAIR}],\n "test": [{PAIR}]}}', "rows.json")
    assert "train, test" in problem(path, "data/several-lists").what
    path = put(f'{{"rows": [{PAIR}],\n "rows": [{PAIR}]}}', "rows.json")
    assert "rows, rows" in problem(path, "data/several-lists").what


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (f"[{PAIR},\n{PAIR},\n{PAIR[:20]}", 3, "row 2 is the last"),
        (f"[{PAIR}\n{PAIR}]", 2, "A comma or the end of the list is missing; row 1"),
        (f"[{PAIR}] x", 1, "Something follows"),
        (f"[{PAIR},]", 1, "row 1 is the last"),
        (f'{{"data": [{PAIR}]\n, "more": ', 2, "does not come to its end"),
        (f'{{"data": [{PAIR}]\n', 2, "does not end with the file"),
        (f'{{"data":\n[{PAIR}]}}\n{{', 2, "does not end with the file"),
    ],
)
def test_a_list_that_breaks_off_names_the_place_and_the_last_good_row(
    put: Put, text: str, line: int, told: str
) -> None:
    found = problem(put(text, "rows.json"), "data/corrupt")
    assert found.where.line == line and told in found.what
