"""Local files -> rows: every record becomes an example or says why it cannot."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from runner.conversation import Example, Message
from runner.data.ledger import kind_of
from runner.data.reading import LocalFile, Row, Source, read_rows
from runner.data.reading.turns import KEYS_LEFT_OUT
from runner.errors import Exit, RunnerError
from runner.plan import SourcePlan, Template

PAIR = {"prompt": "Hi?", "completion": "Ho."}
CHAT = {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]}
TURNS = (Message(role="user", content="Hi?"), Message(role="assistant", content="Ho."))
OWN = {"messages": [{"role": "system", "content": "Own."}, *CHAT["messages"]]}
NO_OWN = {"messages": [{"role": "system", "content": " "}, *CHAT["messages"]]}


def open_source(path: Path, name: str | None = None, **settings: Any) -> Source:
    file = LocalFile(name=name or str(path), path=path, sha256="", num_bytes=0)
    return read_rows(SourcePlan(source=str(path), **settings), file)


def rows_of(folder: Path, *values: Any, **settings: Any) -> list[Row]:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values))
    return list(open_source(path, **settings).rows)


def example_of(folder: Path, value: Any, **settings: Any) -> Example:
    (row,) = rows_of(folder, value, **settings)
    assert row.example is not None, row.reason
    return row.example


def as_csv(value: dict[str, str]) -> bytes:
    return f"{','.join(value)}\n{','.join(value.values())}\n".encode()


@pytest.mark.parametrize(
    ("name", "container", "raw", "number"),
    [
        ("rows.jsonl", "jsonl", b"\n" + json.dumps(PAIR).encode(), 2),
        ("rows.jsonl.gz", "jsonl", gzip.compress(json.dumps(PAIR).encode()), 1),
        ("rows.json", "json", json.dumps([PAIR], indent=2).encode(), 1),
        ("rows.csv", "csv", as_csv(PAIR), 2),
        ("rows.tsv", "tsv", as_csv(PAIR).replace(b",", b"\t"), 2),
        ("rows.parquet", "parquet", b"", 1),
    ],
)
def test_every_container_gives_the_same_example(
    tmp_path: Path, name: str, container: str, raw: bytes, number: int
) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    if container == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([PAIR]), path)
    source = open_source(path)
    assert (source.container, source.format) == (container, "prompt_completion")
    assert source.evidence == "prompt_completion: 1 of 1 rows looked at have prompt and completion"
    (row,) = source.rows
    assert row.example == Example(messages=TURNS, source=f"{name}:{number}")
    assert (row.file, row.row, row.reason, row.repairs) == (str(path), number, None, ())
    assert "Hi?" in row.excerpt and "Ho." in row.excerpt


def test_a_parquet_row_of_turns_is_a_conversation(tmp_path: Path) -> None:
    call = {**CHAT["messages"][1], "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    table = pyarrow.Table.from_pylist([CHAT, {"messages": [CHAT["messages"][0], call]}])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    rows = list(open_source(tmp_path / "rows.parquet").rows)
    assert [row.reason for row in rows] == [None, None]
    assert rows[0].example and rows[0].example.messages == TURNS
    assert rows[1].example and json.loads(rows[1].example.expected)[0]["function"]["name"] == "f"


def test_every_record_is_one_row_in_the_order_of_the_file(tmp_path: Path) -> None:
    values = [PAIR, "wrong", "", {"prompt": "half"}, PAIR] * 150
    rows = rows_of(tmp_path, *values)
    assert [row.row for row in rows] == [i for i, value in enumerate(values, 1) if value]
    assert [row.reason is None for row in rows] == [value is PAIR for value in values if value]
    assert all((row.example is None) != (row.reason is None) for row in rows)
    assert rows[1].reason == "not JSON: Expecting value at column 1"
    assert rows[2].reason == "no 'completion' (format prompt_completion; the row has the keys: prompt)"


def test_rows_of_a_remote_file_carry_the_name_that_people_know(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(json.dumps(PAIR))
    (row,) = open_source(tmp_path / "x", name="https://host/folder/rows.jsonl").rows
    assert row.file == "https://host/folder/rows.jsonl"
    assert row.example is not None and row.example.source == "rows.jsonl:1"


@pytest.mark.parametrize(
    ("value", "system", "first"),
    [
        (PAIR, "Be brief.", ("system", "Be brief.")),
        (CHAT, "Be brief.", ("system", "Be brief.")),
        (OWN, "Be brief.", ("system", "Own.")),
        (NO_OWN, "Be brief.", ("system", "Be brief.")),
        (PAIR, None, ("user", "Hi?")),
        (PAIR, "", ("user", "Hi?")),
    ],
)
def test_the_manifests_system_prompt_goes_only_before_rows_without_one(
    tmp_path: Path, value: Any, system: str | None, first: tuple[str, str]
) -> None:
    messages = example_of(tmp_path, value, system=system).messages
    assert (messages[0].role, messages[0].content) == first
    assert messages[-2:] == TURNS and len(messages) == 2 + (first[0] == "system")


@pytest.mark.parametrize(
    ("customer", "text"), [("Ada", "Ada"), (7, "7"), (True, "true"), ({"id": "x"}, None), ([1], None), (None, None)]
)
@pytest.mark.parametrize(("key", "field"), [("group_by", "group"), ("class_by", "label")])
def test_groups_and_classes_are_single_values_of_the_row(
    tmp_path: Path, customer: Any, text: str | None, key: str, field: str
) -> None:
    (row,) = rows_of(tmp_path, {**PAIR, "meta": {"customer": customer}}, **{key: "meta.customer"})
    if text is None:
        assert (row.example, row.reason) == (None, f"no 'meta.customer' (data.{key})")
    else:
        assert row.example is not None and getattr(row.example, field) == text
        assert {row.example.group, row.example.label} == {text, None}


@pytest.mark.parametrize("value", [PAIR, {**PAIR, "meta": 7}, {**PAIR, "meta": {}}, {**PAIR, "meta.customer": " "}])
def test_a_row_without_its_group_is_rejected(tmp_path: Path, value: Any) -> None:
    row, _ = rows_of(tmp_path, value, {**PAIR, "meta.customer": "Ada"}, group_by="meta.customer")
    assert row.reason == "no 'meta.customer' (data.group_by)"


def test_repairs_of_the_file_and_of_the_row_are_told_with_the_row(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "\ufeff" + json.dumps(NO_OWN), CHAT)
    assert rows[0].repairs == ("a byte-order mark was removed", "an empty system message was removed")
    assert rows[1].repairs == ()


def test_tools_of_a_row_are_kept(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "find"}}]
    assert example_of(tmp_path, {**CHAT, "tools": tools}).tools == json.dumps(tools)


def test_a_template_makes_rows_of_any_columns(tmp_path: Path) -> None:
    template = Template(prompt="{{question}}", completion="{{answer}}")
    rows = rows_of(tmp_path, {"question": "Hi?", "answer": "Ho."}, {"question": "Hi?"}, template=template)
    assert rows[0].example is not None and rows[0].example.messages == TURNS
    assert rows[1].reason == "a column of the template is missing ('answer')"


def test_a_format_that_is_written_is_not_guessed(tmp_path: Path) -> None:
    row, _ = rows_of(tmp_path, PAIR, CHAT, format="chat")
    assert row.reason == "no 'messages' (format chat; the row has the keys: prompt, completion)"
    (row,) = rows_of(tmp_path, "wrong", format="chat")
    assert row.reason == "not JSON: Expecting value at column 1"


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"format": "chat"}, "format"), ({"group_by": "customer"}, "group_by"), ({"class_by": "kind"}, "class_by")],
)
def test_what_the_manifest_names_and_no_row_has_is_told_once(tmp_path: Path, settings: Any, key: str) -> None:
    with pytest.raises(RunnerError) as caught:
        rows_of(tmp_path, *[PAIR] * 300, "wrong", **settings)
    (problem,) = caught.value.problems
    assert (problem.where.key, caught.value.exit_code) == (f"data.{key}", Exit.DATA_REJECTED)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ((PAIR, CHAT), "data/ambiguous-format"),
        (({"a": 1},), "data/unknown-format"),
        (("wrong",), "data/unknown-format"),
        ((), "data/empty"),
    ],
)
def test_a_file_at_fault_is_a_problem_with_its_place(tmp_path: Path, values: tuple[Any, ...], code: str) -> None:
    with pytest.raises(RunnerError) as caught:
        rows_of(tmp_path, *values)
    (problem,) = caught.value.problems
    assert (problem.code, caught.value.exit_code) == (code, Exit.DATA_REJECTED)
    assert problem.where.path == str(tmp_path / "rows.jsonl")


def test_a_file_that_begins_with_thousands_of_faults_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.data.reading.rows.MAX_HELD", 20)
    assert rows_of(tmp_path, *["wrong"] * 19, CHAT)[-1].example is not None
    with pytest.raises(RunnerError, match="No row can be read"):
        rows_of(tmp_path, *["wrong"] * 20, CHAT)


def test_the_kind_of_a_reason_is_the_same_whatever_the_row(tmp_path: Path) -> None:
    """The words before " (" and ": " are counted together, so that no particulars may stand in them."""
    bad = [
        [{"role": "user", "content": " "}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}],
        [{"role": "usr", "content": "a"}],
        [{"role": "qqq", "content": "a"}],
    ]
    rows = rows_of(tmp_path, *[{"messages": [*turns, *CHAT["messages"]]} for turns in bad], "{", "[", format="chat")
    kinds = [kind_of(row.reason or "") for row in rows]
    no_role = "a role is not one of system, user, assistant, tool"
    assert kinds == ["a message is empty"] * 2 + [no_role] * 2 + ["not JSON"] * 2


def test_the_kind_of_a_repair_is_the_same_whatever_the_row(tmp_path: Path) -> None:
    """As the ledger takes repairs apart: "; " stands between them."""
    more = [{"name": "Ada"}, {"a; b": 1}, {"c: d (e": 1, "f": ";"}]
    rows = rows_of(tmp_path, *[{"messages": [{**CHAT["messages"][0], **keys}, CHAT["messages"][1]]} for keys in more])
    told = [repair for row in rows for repair in "; ".join(row.repairs).split("; ")]
    assert list(map(kind_of, told)) == [KEYS_LEFT_OUT] * 3
