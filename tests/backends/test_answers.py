"""Answers on disk: nothing that was kept is lost, whoever is killed and whatever is damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.backends.answers import KeptAnswers, key_of
from runner.backends.base import Reply
from runner.conversation import Completion

HALF = "half of a pair \ud83d, a line\nand another , and \x00"


def reply(text: str = "yes", model: str | None = "m-2026") -> Reply:
    answer = Completion(text=text, prompt_tokens=3, output_tokens=None, seconds=0.25, finish="stop")
    return Reply(completion=answer, model=model)


def cached(one: Reply) -> Reply:
    return replace(one, cached=True)


def test_what_was_kept_is_found_again_by_another_process_and_is_marked(tmp_path: Path) -> None:
    refused = Reply(completion=None, reason="filtered")
    KeptAnswers(tmp_path / "new", "a").put({"1": reply(HALF), "2": refused})
    again = KeptAnswers(tmp_path / "new", "a")
    assert (again.get("1"), again.get("2")) == (cached(reply(HALF)), cached(refused))
    assert again.get("3") is None and KeptAnswers(tmp_path / "new", "b").get("1") is None


def test_the_writer_finds_its_own_answers_and_others_later_ones(tmp_path: Path) -> None:
    one, other = KeptAnswers(tmp_path, "a"), KeptAnswers(tmp_path, "a")
    one.put({"1": reply()})
    assert one.get("1") == other.get("1") == cached(reply())
    other.put({"2": reply("no")})
    assert one.get("2") == cached(reply("no"))


def test_a_batch_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: sizes.append(len(data)) or write(file, data))
    kept = KeptAnswers(tmp_path, "a")
    kept.put({str(i): reply() for i in range(50)})
    assert sizes == [kept.path.stat().st_size]


def test_a_torn_last_line_is_ignored_and_closed_off_by_the_next_writer(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path, "a")
    kept.put({"1": reply()})
    whole = kept.path.read_bytes()
    kept.put({"2": reply()})
    with kept.path.open("r+b") as file:
        file.truncate(len(whole) + 30)
    waiting = KeptAnswers(tmp_path, "a")
    assert (waiting.get("1"), waiting.get("2")) == (cached(reply()), None)
    KeptAnswers(tmp_path, "a").put({"3": reply("three"), "2": reply("asked again")})
    for reader in (waiting, KeptAnswers(tmp_path, "a")):
        assert reader.get("1") == cached(reply())
        assert reader.get("2") == cached(reply("asked again"))
        assert reader.get("3") == cached(reply("three"))


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path, "a")
    kept.put({"1": reply(), "2": reply("two")})
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole[:-20])
    reader = KeptAnswers(tmp_path, "a")
    assert (reader.get("1"), reader.get("2")) == (cached(reply()), None)
    kept.path.write_bytes(whole)
    assert reader.get("2") == cached(reply("two"))


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[: len(line) // 2],
        lambda line: b"\xff" + line[1:],
        lambda line: b"null",
        lambda line: b"[1]",
        lambda line: line.replace(b'"key"', b'"yek"'),
        lambda line: line.replace(b'"text"', b'"txet"'),
        lambda line: line.replace(b'"yes"', b"5"),
        lambda line: line.replace(b'"stop"', b'"whatever"'),
        lambda line: line.replace(b"0.25", b'"0.25"'),
        lambda line: line.replace(b"null", b'"many"'),
        lambda line: line.replace(b'"m-2026"', b"7"),
        lambda line: json.dumps({"key": "2", "completion": None}).encode(),
    ],
)
def test_a_damaged_line_costs_its_own_answer_alone(tmp_path: Path, change: object) -> None:
    kept = KeptAnswers(tmp_path, "a")
    kept.put({"1": reply(), "2": reply(), "3": reply()})
    lines = kept.path.read_bytes().splitlines()
    (place,) = (i for i, line in enumerate(lines) if b'"key": "2"' in line)
    assert callable(change)
    lines[place] = change(lines[place])
    kept.path.write_bytes(b"\n".join(lines) + b"\n")
    reader = KeptAnswers(tmp_path, "a")
    assert [reader.get(key) is not None for key in "123"] == [True, False, True]
    reader.put({"2": reply("again")})
    assert KeptAnswers(tmp_path, "a").get("2") == cached(reply("again"))


def _write_many(folder: Path, name: str) -> None:
    kept = KeptAnswers(folder, "a")
    for i in range(200):
        kept.put({f"{name}{i}": reply(f"{name}{i} " * 500)})


def test_processes_may_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, name)) for name in "pq"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    kept = KeptAnswers(tmp_path, "a")
    assert all(kept.get(f"{name}{i}") == cached(reply(f"{name}{i} " * 500)) for name in "pq" for i in range(200))


def _write_and_die(folder: Path) -> None:
    kept = KeptAnswers(folder, "a")
    kept.put({"1": reply(), "2": reply()})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writer_loses_nothing_that_it_kept(tmp_path: Path) -> None:
    writer = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path,))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert KeptAnswers(tmp_path, "a").get("2") == cached(reply())


def test_a_full_disk_is_said_and_nothing_is_taken_for_kept() -> None:
    kept = KeptAnswers(Path("/dev"), "a")
    kept.path = Path("/dev/full")
    with pytest.raises(OSError, match="No space"):
        kept.put({"1": reply()})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=8
)


@given(JSON, JSON)
def test_a_key_tells_contents_apart_and_not_their_order(one: object, other: object) -> None:
    assert (key_of(one) == key_of(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
    assert key_of({"a": one, "b": other}) == key_of({"b": other, "a": one})
    assert key_of(one, other) != key_of([one, other]) != key_of(one)
    assert len(key_of(one)) == 64
