"""Bytes -> lines: whatever ends them and whatever they are written in."""

from __future__ import annotations

import gzip

import pytest

from runner.data.reading.lines import BOM_REMOVED
from tests.data.reading.files import CSV, PAIR, VALUE, Put, read, reasons


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_rows_are_numbered_by_their_line_whatever_ends_it(
    put: Put, monkeypatch: pytest.MonkeyPatch, end: str, chunk: int
) -> None:
    monkeypatch.setattr("runner.data.reading.lines.CHUNK", chunk)
    path = put(end.join(["", PAIR, "", "  ", "wrong", PAIR]))
    assert [(row, bool(reason)) for row, reason in reasons(path)] == [(2, False), (5, True), (6, False)]
    path = put(end.join(["a,b", "1,2", "", '"x', '",y', "3,4"]), "rows.csv")
    assert [(record.row, record.value["a"]) for record in read(path)[1]] == [(2, "1"), (4, "x\n"), (6, "3")]


@pytest.mark.parametrize("text", [PAIR, f"[{PAIR}]", CSV])
@pytest.mark.parametrize(
    ("encoding", "repair"),
    [("utf-8-sig", BOM_REMOVED), ("utf-16", "UTF-16 was made UTF-8"), ("utf-32", "UTF-32 was made UTF-8")],
)
def test_a_byte_order_mark_is_heeded_and_told_on_the_first_row(put: Put, text: str, encoding: str, repair: str) -> None:
    text = text.replace("Ho.", "Hö – 🦊") + ("\nx,y\n" if text == CSV else "")
    for raw in (text.encode(encoding), gzip.compress(text.encode(encoding))):
        first, *others = read(put(raw, "rows"))[1]
        assert (first.value, first.repairs) == ({**VALUE, "completion": "Hö – 🦊"}, (repair,))
        assert all(record.repairs == () for record in others)


@pytest.mark.parametrize("cut", [b"\x00", b"\xd8", b"\x00\xd8"])
def test_utf_16_that_is_cut_spoils_the_last_row_only(put: Put, cut: bytes) -> None:
    found = reasons(put(f"{PAIR}\n{PAIR}\n{{".encode("utf-16") + cut))
    assert [reason for _, reason in found] == [None, None, "not UTF-8 (byte 2 of the row)"]
