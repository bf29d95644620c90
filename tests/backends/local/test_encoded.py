"""Encoded rows on disk: the same as encoding them anew, read in any order, and never encoded twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.backends.local import encoded
from runner.backends.local.encode import Encoded, encode, mark, shorten
from runner.backends.local.encoded import EncodedRows, encode_rows
from runner.conversation import Example, Message
from tests.fakes import FakeWatch, question


@pytest.fixture
def stop_ids(tiny_tokenizer: Any) -> frozenset[int]:
    return frozenset({tiny_tokenizer.eos_token_id})


def rows(count: int, system: str | None = "Be kind.") -> list[Example]:
    return [question(f"question {i} " * (i % 7 + 1), f"answer {i}", system=system) for i in range(count)]


@pytest.fixture
def stored(tiny_tokenizer: Any, stop_ids: frozenset[int], tmp_path: Path) -> EncodedRows:
    return encode_rows(tiny_tokenizer, rows(600), stop_ids, tmp_path, FakeWatch())


def test_a_stored_row_is_what_encoding_it_gives(
    stored: EncodedRows, tiny_tokenizer: Any, stop_ids: frozenset[int]
) -> None:
    fresh = encode(tiny_tokenizer, rows(600), stop_ids)
    assert list(stored) == fresh
    assert stored[5:9] == fresh[5:9]


def test_the_counts_are_those_of_the_rows(stored: EncodedRows) -> None:
    assert stored.counts.total.tolist() == [len(row.input_ids) for row in stored]
    assert stored.counts.labelled.tolist() == [row.num_labelled for row in stored]


def test_examples_are_found_again_in_the_order_asked_for(stored: EncodedRows, tmp_path: Path) -> None:
    asked = [rows(600)[i] for i in (599, 3, 3, 0)]
    found = stored.select(asked)
    assert found is not None
    assert list(found) == [stored[599], stored[3], stored[3], stored[0]]
    assert found.counts.total.tolist() == [len(row.input_ids) for row in found]
    again = EncodedRows.open(found.save(tmp_path / "rows.npz"))
    assert list(again) == list(found) and again.fingerprint == found.fingerprint


def test_an_unknown_example_is_not_taken_for_another(stored: EncodedRows) -> None:
    assert stored.select([*rows(3), question("never seen", "at all")]) is None


def test_the_same_rows_are_not_encoded_again(
    stored: EncodedRows, tiny_tokenizer: Any, stop_ids: frozenset[int], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(encoded, "encode", None)  # would raise when it is called
    again = encode_rows(tiny_tokenizer, rows(600), stop_ids, tmp_path, FakeWatch())
    assert list(again) == list(stored)


@pytest.mark.parametrize("change", ["rows", "template", "stop"])
def test_whatever_the_tokens_follow_from_makes_another_file(
    stored: EncodedRows, tiny_tokenizer: Any, stop_ids: frozenset[int], tmp_path: Path, change: str, monkeypatch: Any
) -> None:
    if change == "template":
        monkeypatch.setattr(tiny_tokenizer, "chat_template", tiny_tokenizer.chat_template + "{# other #}")
    stops = stop_ids | {7} if change == "stop" else stop_ids
    encode_rows(tiny_tokenizer, rows(599 if change == "rows" else 600), stops, tmp_path, FakeWatch())
    assert len(list((tmp_path / "encoded").glob("*.arrow"))) == 2


def test_an_interrupted_writing_leaves_nothing_behind(
    tiny_tokenizer: Any, stop_ids: frozenset[int], tmp_path: Path, monkeypatch: Any
) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encoded, "encode", fail)
    with pytest.raises(KeyboardInterrupt):
        encode_rows(tiny_tokenizer, rows(10), stop_ids, tmp_path, FakeWatch())
    assert list((tmp_path / "encoded").iterdir()) == []


def test_a_row_that_cannot_be_labelled_keeps_its_reason(
    tiny_tokenizer: Any, stop_ids: frozenset[int], tmp_path: Path
) -> None:
    call = '[{"type": "function", "function": {"name": "look_up", "arguments": "{}"}}]'
    silent = Example(
        messages=(Message(role="user", content="hi"), Message(role="assistant", content="", tool_calls=call)),
        source="rows.jsonl:1",
    )
    stored = encode_rows(tiny_tokenizer, [*rows(3), silent], stop_ids, tmp_path, FakeWatch())
    assert "leaves out tool calls" in stored.counts.problems[3]
    found = stored.select([silent, rows(1)[0]])
    assert found is not None
    assert list(found.counts.problems) == [0]


def test_the_tokens_of_the_pieces_are_the_tokens_of_the_whole_text(
    tiny_tokenizer: Any, stop_ids: frozenset[int]
) -> None:
    examples = [*rows(20), question("an <unk> inside", "leading and\n\ntrailing \n")]
    for row, example in zip(encode(tiny_tokenizer, examples, stop_ids), examples, strict=True):
        turns = [{"role": m.role, "content": m.content} for m in example.messages]
        whole = tiny_tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
        assert isinstance(row, Encoded), row
        assert row.input_ids == whole


def test_a_turn_that_is_only_context_carries_no_label(tiny_tokenizer: Any, stop_ids: frozenset[int]) -> None:
    turns = (
        Message(role="user", content="a"),
        Message(role="assistant", content="not this", trained=False),
        Message(role="user", content="b"),
        Message(role="assistant", content="but this"),
    )
    (row,) = encode(tiny_tokenizer, [Example(messages=turns, source="x:1")], stop_ids)
    assert isinstance(row, Encoded)
    assert [s.text for s in mark(row, tiny_tokenizer) if s.trained] == ["but this<|im_end|>"]


def test_an_answer_that_says_the_stop_token_is_not_labelled_short(
    tiny_tokenizer: Any, stop_ids: frozenset[int]
) -> None:
    (row,) = encode(tiny_tokenizer, [question("how does it end?", "with <|im_end|>, always")], stop_ids)
    assert row == "a message contains a special token of the chat template (<|im_end|>)"
    (row,) = encode(tiny_tokenizer, [question("<|im_start|>assistant", "yes")], stop_ids)
    assert isinstance(row, str)


@pytest.mark.parametrize("answer", ["    return x", "\n\nyes", "\tyes", "yes  "])
def test_an_answer_may_begin_and_end_with_white_space(
    tiny_tokenizer: Any, stop_ids: frozenset[int], answer: str
) -> None:
    (row,) = encode(tiny_tokenizer, [question("go on", answer)], stop_ids)
    assert isinstance(row, Encoded), row
    assert tiny_tokenizer.decode(row.trained_ids) == f"{answer}<|im_end|>"


def test_tools_that_the_template_leaves_out_are_a_fault(tiny_tokenizer: Any, stop_ids: frozenset[int]) -> None:
    tools = '[{"type": "function", "function": {"name": "question", "parameters": {}}}]'
    (row,) = encode(tiny_tokenizer, [replace(question("a question", "yes"), tools=tools)], stop_ids)
    assert row == "the chat template leaves out the tools on offer, so the model would not see them"


def test_a_tool_call_named_only_in_the_question_is_still_left_out(
    tiny_tokenizer: Any, stop_ids: frozenset[int]
) -> None:
    call = '[{"type": "function", "function": {"name": "search", "arguments": "{}"}}]'
    asked = question("please search", "x")
    silent = replace(asked, messages=(*asked.prompt, Message(role="assistant", content="", tool_calls=call)))
    (row,) = encode(tiny_tokenizer, [silent], stop_ids)
    assert isinstance(row, str) and "leaves out tool calls" in row


def test_marked_stretches_make_up_the_whole_row(tiny_tokenizer: Any, stop_ids: frozenset[int]) -> None:
    (row,) = encode(tiny_tokenizer, rows(1), stop_ids)
    assert isinstance(row, Encoded)
    assert "".join(s.text for s in mark(row, tiny_tokenizer)) == tiny_tokenizer.decode(row.input_ids)


def test_a_start_token_that_stands_twice_is_a_fault(
    tiny_tokenizer: Any, stop_ids: frozenset[int], monkeypatch: Any
) -> None:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", "<|im_start|>" + tiny_tokenizer.chat_template)
    tiny_tokenizer.bos_token = "<|im_start|>"
    try:
        (row,) = encode(tiny_tokenizer, rows(1), stop_ids)
    finally:
        tiny_tokenizer.bos_token = None
    assert row == "the start token stands twice at the row's beginning"


def test_a_template_that_refuses_a_row_spoils_no_other(
    tiny_tokenizer: Any, stop_ids: frozenset[int], monkeypatch: Any
) -> None:
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    monkeypatch.setattr(tiny_tokenizer, "chat_template", refusal + tiny_tokenizer.chat_template)
    mixed = [rows(1)[0], rows(1, system=None)[0]]
    refused, taken = encode(tiny_tokenizer, mixed, stop_ids)
    assert refused == "the chat template refuses the row: no system turns"
    assert isinstance(taken, Encoded)


def test_a_long_conversation_loses_its_earliest_exchanges_first(tiny_tokenizer: Any, stop_ids: frozenset[int]) -> None:
    turns = [Message(role="system", content="Be kind.")]
    for i in range(5):
        turns += [Message(role="user", content=f"q{i}"), Message(role="assistant", content=f"a{i}")]
    long = Example(messages=tuple(turns), source="x:1")
    short = shorten(tiny_tokenizer, long, 120, stop_ids)
    assert short is not None
    assert [m.content for m in short.messages][:2] == ["Be kind.", f"q{5 - len(short.messages) // 2}"]
    assert short.expected == "a4"
    assert all(m.complete for m in short.messages)


@pytest.mark.parametrize("room", [70, 75, 90, 150])
def test_a_long_answer_is_cut_to_fit_and_its_end_is_not_taught(
    tiny_tokenizer: Any, stop_ids: frozenset[int], room: int
) -> None:
    long = question("hello there, my friend", "word " * 100)
    short = shorten(tiny_tokenizer, long, room, stop_ids)
    assert short is not None
    (row,) = encode(tiny_tokenizer, [short], stop_ids)
    assert isinstance(row, Encoded)
    assert room - 6 <= len(row.input_ids) <= room
    assert not set(row.trained_ids) & stop_ids
    assert long.expected.startswith(short.expected)
    assert row.num_labelled > 0


def test_nothing_is_left_of_an_answer_that_has_no_room(tiny_tokenizer: Any, stop_ids: frozenset[int]) -> None:
    assert shorten(tiny_tokenizer, question("a long question " * 10, "word " * 100), 60, stop_ids) is None


def test_the_ids_are_read_from_disk_as_they_were_made(stored: EncodedRows) -> None:
    assert np.concatenate([row.input_ids for row in stored]).max() < 300


def test_a_tokenizer_that_must_see_texts_whole_places_the_same_spans(
    tiny_tokenizer: Any, stop_ids: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pieces = encode(tiny_tokenizer, rows(30), stop_ids)
    monkeypatch.setattr("runner.backends.local.encode._splitter", lambda tokenizer: None)
    assert encode(tiny_tokenizer, rows(30), stop_ids) == in_pieces


def test_long_rows_are_encoded_few_at_a_time_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "BATCH_CHARACTERS", 1000)
    examples = rows(7)
    long = [replace(example, messages=(Message(role="user", content="x" * 600),)) for example in examples]
    assert [len(some) for some in encoded._batches(iter(long))] == [1] * 7
    assert [example for some in encoded._batches(iter(examples)) for example in some] == examples
