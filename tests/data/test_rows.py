"""Lines -> rows: every line that is not blank becomes an example or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.conversation import Message
from runner.data.rows import Row, read_file
from runner.errors import Exit, RunnerError

PAIR = '{"prompt": "Hi?", "completion": "Ho."}'
CHAT = '{"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]}'
TURNS = [Message(role="user", content="Hi?"), Message(role="assistant", content="Ho.")]
BOM = b"\xef\xbb\xbf"


def rows_of(folder: Path, raw: bytes | str, wanted: str = "auto", system: str | None = None) -> list[Row]:
    path = folder / "rows.jsonl"
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return read_file(path, wanted, system)[1]


def reason_of(folder: Path, raw: bytes | str, wanted: str = "chat") -> str:
    (row,) = rows_of(folder, raw, wanted)
    assert row.example is None and row.reason is not None
    return row.reason


def chat(*turns: tuple[Any, Any]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


@pytest.mark.parametrize("line", [PAIR, CHAT])
@pytest.mark.parametrize("wrap", ["{}", "{}\n", "{}\r\n", "\n\r\n{}", "  {} \n\n"])
def test_both_formats_are_read_whatever_stands_around_the_row(tmp_path: Path, line: str, wrap: str) -> None:
    (row,) = rows_of(tmp_path, wrap.format(line))
    assert row.example is not None and list(row.example.messages) == TURNS


@pytest.mark.parametrize("line", [PAIR, CHAT])
@pytest.mark.parametrize("between", [b"", b"\r\n", b"\n  \n"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path, line: str, between: bytes) -> None:
    assert [row.reason for row in rows_of(tmp_path, BOM + between + line.encode())] == [None]


def test_rows_are_numbered_by_their_line_and_named_after_the_file(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, f"\n{PAIR}\r\n\n  \nwrong\n{PAIR}")
    assert [row.row for row in rows] == [2, 5, 6]
    assert [row.example and row.example.source for row in rows] == ["rows.jsonl:2", None, "rows.jsonl:6"]
    assert {row.file for row in rows} == {str(tmp_path / "rows.jsonl")}


@pytest.mark.parametrize(
    ("lines", "detected"),
    [
        ([PAIR, CHAT], "prompt_completion"),
        ([CHAT, PAIR], "chat"),
        (["[" * 100_000, "wrong", "[1]", '{"prompt": "half"}', PAIR], "prompt_completion"),
        (["wrong", '{"a": 1}'], "chat"),
    ],
)
def test_the_first_row_that_has_a_format_decides_it(tmp_path: Path, lines: list[str], detected: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    assert read_file(path, "auto", None)[0].format == detected


def test_a_format_that_is_written_is_not_guessed(tmp_path: Path) -> None:
    assert reason_of(tmp_path, PAIR, "chat") == "no 'messages' (format chat; the row has the keys: prompt, completion)"
    assert reason_of(tmp_path, CHAT, "prompt_completion").startswith("no 'prompt'")


def test_the_source_tells_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{PAIR}\n\nwrong\n")
    source, rows = read_file(path, "auto", None)
    assert (source.path, source.num_rows, source.num_bytes) == (str(path), len(rows), path.stat().st_size)
    path.write_text(f"{PAIR}\n")
    assert read_file(path, "auto", None)[0].sha256 != source.sha256


USER, ANSWER = ("user", "Hi?"), ("assistant", "Ho.")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        (chat(USER, ("assistant", float("nan"))), "not JSON: NaN is no JSON value"),
        ('{"messages": -Infinity}', "not JSON: -Infinity is no JSON value"),
        (b'{"messages": "\xff"}', "not UTF-8 (byte 15 of the row)"),
        (CHAT.encode("utf-16"), "not UTF-8 (byte 1 of the row)"),
        (CHAT.replace("Hi?", "\\ud83d"), "not Unicode text: an escape such as \\ud83d without its other half"),
        ('{"\\ud83d": 1}', "not Unicode text: an escape such as \\ud83d without its other half"),
        ("[[1]]", "the row is not a JSON object"),
        ("{}", "no 'messages' (format chat; the row has the keys: none)"),
        ('{"messages": "Hi?"}', "'messages' is not a list"),
        ('{"messages": [[["user", "Hi?"]]]}', "a message has not the keys role and content (message 1)"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}',
            "a message has not the keys role and content (message 2)",
        ),
        (
            chat(USER, ("asistant", "Ho.")),
            'a role is not one of system, user, assistant, tool (message 2 has "asistant")',
        ),
        (
            chat((["a"], "Hi?"), ANSWER),
            'a role is not one of system, user, assistant, tool (message 1 has ["a"])',
        ),
        (chat(USER, ("assistant", 7)), "a message has no text as content (message 2, assistant)"),
        (chat(("user", None), ANSWER), "a message has no text as content (message 1, user)"),
        (chat(USER, ("assistant", [])), "a message has no text as content (message 2, assistant)"),
        (chat(USER, ("assistant", "")), "a message is empty (message 2, assistant)"),
        (chat(("user", " \n"), ANSWER), "a message is empty (message 1, user)"),
        (chat(("system", "A"), ("system", "B"), USER, ANSWER), "a system message stands after the first"),
        (chat(USER, ("system", "A"), ANSWER), "a system message stands after the first"),
        (chat(USER, ("tool", "42"), ANSWER), "tool messages are not supported yet"),
        (chat(), "the last message is not the assistant's, so there is no answer to learn"),
        (chat(("system", "A")), "the last message is not the assistant's, so there is no answer to learn"),
        (chat(USER, ANSWER, USER), "the last message is not the assistant's, so there is no answer to learn"),
        (chat(ANSWER), "user and assistant do not take turns, beginning with the user"),
        (chat(USER, ANSWER, ANSWER), "user and assistant do not take turns, beginning with the user"),
        (chat(USER, USER, ANSWER), "user and assistant do not take turns, beginning with the user"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(tmp_path: Path, raw: bytes | str, reason: str) -> None:
    assert reason_of(tmp_path, raw) == reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a"}', "no 'completion' (format prompt_completion; the row has the keys: prompt)"),
        ('{"prompt": 1, "completion": "b"}', "a message has no text as content (message 1, user)"),
        ('{"prompt": "a", "completion": " "}', "a message is empty (message 2, assistant)"),
    ],
)
def test_a_pair_that_cannot_be_used_says_why(tmp_path: Path, line: str, reason: str) -> None:
    assert reason_of(tmp_path, line, "prompt_completion") == reason


def test_a_row_of_several_exchanges_is_one_example(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, chat(("system", "S"), USER, ANSWER, ("user", "And?"), ("assistant", "Done.")))
    assert row.example is not None
    assert [m.role for m in row.example.prompt] == ["system", "user", "assistant", "user"]
    assert row.example.expected == "Done."


@pytest.mark.parametrize(
    ("line", "system", "first"),
    [
        (PAIR, "Be brief.", ("system", "Be brief.")),
        (CHAT, "Be brief.", ("system", "Be brief.")),
        (chat(("system", "Own."), USER, ANSWER), "Be brief.", ("system", "Own.")),
        (PAIR, None, ("user", "Hi?")),
    ],
)
def test_the_manifests_system_prompt_goes_only_before_rows_without_one(
    tmp_path: Path, line: str, system: str | None, first: tuple[str, str]
) -> None:
    (row,) = rows_of(tmp_path, line, system=system)
    assert row.example is not None
    assert [(m.role, m.content) for m in row.example.messages if m.role == "system"] == [first] * (first[0] == "system")
    assert (row.example.messages[0].role, row.example.messages[0].content) == first


@pytest.mark.parametrize("name", ["missing.jsonl", "folder", "file.txt/below.jsonl"])
def test_a_file_that_is_not_there_is_a_missing_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(RunnerError) as caught:
        read_file(tmp_path / name, "auto", None)
    assert caught.value.exit_code == Exit.INPUT_MISSING
    assert caught.value.problems[0].where.path == str(tmp_path / name)


@pytest.mark.parametrize("raw", [b"", b"\n\r\n \n", BOM, BOM + b"\r\n"])
def test_a_file_without_rows_is_rejected(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(RunnerError) as caught:
        rows_of(tmp_path, raw)
    assert caught.value.exit_code == Exit.DATA_REJECTED
    assert caught.value.problems[0].code == "data/empty"


PIECES = st.sampled_from(
    [b"\n", b"\r\n", b" ", BOM, b"{", b"}", b"[", b'"', b"\\ud83d", b"NaN", b"9" * 5000, PAIR.encode(), CHAT.encode()]
)
BYTES = st.one_of(st.binary(max_size=60), st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join))


@settings(max_examples=100, deadline=None)
@given(raw=BYTES, wanted=st.sampled_from(["auto", "chat", "prompt_completion"]))
def test_whatever_the_bytes_every_line_that_is_not_blank_becomes_one_row(raw: bytes, wanted: str) -> None:
    lines = [n for n, line in enumerate(raw.removeprefix(BOM).split(b"\n"), 1) if line.strip()]
    with TemporaryDirectory() as folder:
        try:
            rows = rows_of(Path(folder), raw, wanted)
        except RunnerError:
            assert not lines
            return
    assert [row.row for row in rows] == lines
    assert all((row.example is None) != (row.reason is None) for row in rows)
    for row in rows:  # each can be written to the ledger
        assert f"{row.excerpt}{row.reason}{row.example and row.example.messages}".encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["user", "assistant", "system"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "prompt", "completion"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(value=JSON, system=st.none() | st.just("Be brief."))
def test_any_json_value_is_kept_as_turns_or_has_a_reason(value: Any, system: str | None) -> None:
    with TemporaryDirectory() as folder:
        (row,) = rows_of(Path(folder), json.dumps(value), system=system)
    if row.example is None:
        assert row.reason
    else:
        roles = [m.role for m in row.example.messages if m.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(m.content.strip() for m in row.example.messages)
