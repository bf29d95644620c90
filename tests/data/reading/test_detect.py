"""Which format? The only one that fits, never a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.data.reading import FORMATS, fetch, read_rows
from runner.data.reading.detect import check_columns, detect
from runner.data.reading.records import Record
from runner.errors import Exit, Problem, RunnerError
from runner.plan import SourcePlan, Template
from tests.data.reading.talks import ANSWER, SHAREGPT, TEMPLATE, USER, chat

# Which format?

ROWS: dict[str, dict[str, Any]] = {
    "chat": chat(USER, ANSWER),
    "sharegpt": {"conversations": SHAREGPT},
    "alpaca": {"instruction": "a", "output": "b"},
    "prompt_completion": {"prompt": "a", "completion": "b"},
}


def records(*rows: Any) -> list[Record]:
    return [Record(row=i, value=row) for i, row in enumerate(rows, 1)]


def undetected(rows: list[Any], wanted: str = "auto", template: Template | None = None) -> Problem:
    with pytest.raises(RunnerError) as caught:
        detect(records(*rows), wanted, template, "rows.jsonl")
    assert caught.value.exit_code == Exit.DATA_REJECTED
    assert caught.value.problems[0].where.path == "rows.jsonl"
    return caught.value.problems[0]


@pytest.mark.parametrize("name", ROWS)
def test_a_format_is_known_by_its_keys(name: str) -> None:
    found = detect(records(*[ROWS[name]] * 91), "auto", None, "rows.jsonl")
    assert found.format == name
    assert found.evidence == f"{name}: 91 of 91 rows looked at have {FORMATS[name].known_by}"


def test_only_the_first_readable_rows_are_looked_at() -> None:
    bad = [Record(row=i, reason="not JSON") for i in range(50)]
    rows = [*bad, *records(*[ROWS["chat"]] * 200), *records(*[ROWS["alpaca"]] * 200)]
    assert detect(rows, "auto", None, "x").evidence == "chat: 200 of 200 rows looked at have messages"


def test_a_stray_row_is_told_and_does_not_make_a_second_format() -> None:
    rows = [ROWS["chat"]] * 95 + [ROWS["alpaca"]] * 5
    found = detect(records(*rows), "auto", None, "x")
    assert found.format == "chat"
    assert found.evidence.endswith("; alpaca: 5 of 100 rows looked at have instruction and output")
    undetected(rows[1:])


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([ROWS["chat"]] * 2 + [ROWS["alpaca"]], ["chat: 2 of 3", "alpaca: 1 of 3"]),
        ([{**ROWS["chat"], **ROWS["alpaca"]}] * 3, ["alpaca and chat: 3 of 3"]),
    ],
)
def test_two_formats_are_a_problem_and_never_a_guess(rows: list[Any], counts: list[str]) -> None:
    found = undetected(rows)
    assert (found.code, found.where.key) == ("data/ambiguous-format", "data.format")
    assert all(count in found.what for count in counts) and "alpaca or chat" in found.fix


def test_a_key_without_a_value_is_no_sign_of_a_format() -> None:
    row = {**ROWS["chat"], "instruction": None, "output": "x"}
    assert detect(records(row), "auto", None, "x").format == "chat"


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        (
            {"question": 1, "id": 2, "answer": 3},
            "columns are: question, id, answer",
            '{prompt: "{{question}}", completion: "{{answer}}"}',
        ),
        ({"x": 1, "y": 2}, "columns are: x, y", '{prompt: "{{x}}", completion: "{{y}}"}'),
        ({"mesages": []}, "columns are: mesages", "Did you mean 'messages' where 'mesages' stands?"),
        ([1], "none is an object", '{"messages": '),
        ({}, "none is an object", '{"messages": '),
    ],
)
def test_rows_of_no_known_format_name_their_columns_and_a_template(row: Any, what: str, fix: str) -> None:
    found = undetected([row] * 3)
    assert (found.code, found.where.key) == ("data/unknown-format", "data.format")
    assert what in found.what and fix in found.fix


def test_a_file_of_which_no_row_can_be_read_has_no_format() -> None:
    with pytest.raises(RunnerError, match="No row can be read"):
        detect([Record(row=1, reason="not JSON")], "auto", None, "x")


def test_a_format_that_is_named_is_taken_at_its_word() -> None:
    found = detect(records(*[ROWS["alpaca"]] * 5, ROWS["chat"]), "chat", None, "x")
    assert (found.format, found.evidence) == ("chat", "chat: named by data.format")


@pytest.mark.parametrize("wanted", ["auto", "columns"])
def test_a_template_names_columns_that_some_row_must_have(wanted: str) -> None:
    rows: list[Any] = [{"city": "x"}, {"n": None, "answer": {"text": 1}}]
    found = detect(records(*rows), wanted, TEMPLATE, "x")
    assert (found.format, found.evidence) == ("columns", "columns: data.template names n, city, answer.text")
    missing = undetected([{"citi": "x", "n": 1, "answer": {"text": 1}}] * 2, wanted, TEMPLATE)
    assert (missing.code, missing.where.key) == ("data/unknown-column", "data.template")
    assert "'city'" in missing.what and missing.fix == "Did you mean 'citi'? The columns are: citi, n, answer."


def test_columns_without_a_template_are_a_problem() -> None:
    assert undetected([{"a": 1}], "columns").code == "data/no-template"


PAIRED = 'data.template: {prompt: "{{prompt}}", completion: "{{chosen}}"}'


@pytest.mark.parametrize(
    ("row", "fix"),
    [
        (
            {"Prompt": "a", "Completion": "b"},
            "Did you mean 'prompt' where 'Prompt' stands and 'completion' where 'Completion' stands? "
            "Else write data.template.",
        ),
        ({"prompt": "a", "completions": "b"}, "Did you mean 'completion' where 'completions' stands? "),
        ({"prompt": "a", "response": "b"}, '{prompt: "{{prompt}}", completion: "{{response}}"}'),
        ({"Prompt": "a", "answer": "b"}, '{prompt: "{{Prompt}}", completion: "{{answer}}"}'),
        ({"prompt": None, "completion": "a"}, "continued pre-training on plain text is not supported"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, PAIRED),
        ({"chosen": "b", "rejected": "c"}, FORMATS["prompt_completion"].shape),
        ({"prompt": "a", "chosen": [], "rejected": []}, FORMATS["prompt_completion"].shape),
    ],
)
def test_the_hint_quotes_the_column_as_it_is_written(row: dict[str, Any], fix: str) -> None:
    found = undetected([row] * 3).fix
    assert fix in found
    assert not any(f"'{key}' where '{key}'" in found for key in row)
    assert ("Preference data (chosen and rejected) is not supported yet" in found) == ("rejected" in row)


@pytest.mark.parametrize(
    "row",
    [{"text": "a"}, {"text": "a", "id": 7}, {"text": "a", "url": "b", "n": 1.5}, {"text": "a", "answer": ""}, {"a": 1}],
)
def test_one_text_is_no_question_and_answer(row: dict[str, Any]) -> None:
    found = undetected([row] * 3).fix
    assert "{{" not in found and "a question and an answer" in found and "plain text is not supported" in found


@pytest.mark.parametrize(
    ("row", "template"),
    [
        ({"text": "a", "label": 1}, '{prompt: "{{text}}", completion: "{{label}}"}'),
        ({"id": "7", "answer": "b", "response": "c"}, '{prompt: "{{response}}", completion: "{{answer}}"}'),
        ({"title": "a", "question": "b"}, '{prompt: "{{question}}", completion: "{{title}}"}'),
    ],
)
def test_a_proposed_template_names_two_columns(row: dict[str, Any], template: str) -> None:
    assert undetected([row]).fix == f"Write data.template, for example {template}"


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        (ROWS["alpaca"], "has messages (looked at: 3).", "Write data.format: alpaca (alpaca: 3 of 3 rows"),
        ({**ROWS["alpaca"], **ROWS["sharegpt"]}, "has messages", "Write data.format: alpaca or sharegpt ("),
        ({"mesages": []}, "columns are: mesages.", "Else write data.template; a template needs data.format: columns."),
        (
            {"question": "a", "answer": "b"},
            "question, answer.",
            '"{{answer}}"}; a template needs data.format: columns.',
        ),
        ({"text": "a"}, "columns are: text.", "a question and an answer"),
        ([1], "none is an object with keys.", "Write rows such as "),
    ],
)
def test_a_named_format_that_fits_no_row_is_one_problem(row: Any, what: str, fix: str) -> None:
    found = undetected([row] * 3, "chat")
    assert (found.code, found.where.key) == ("data/wrong-format", "data.format")
    assert found.what.startswith("The format 'chat' is named, but none of the first rows has messages")
    assert what in found.what and fix in found.fix


@pytest.mark.parametrize("key", ["group_by", "class_by"])
@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("Custmer", "Did you mean 'customer'? The columns are: customer, meta."),
        ("meta.kinds", "Did you mean 'meta.kind'? The columns are: customer, meta."),
        ("xyz", "The columns are: customer, meta."),
    ],
)
def test_a_column_of_groups_or_classes_that_no_row_has_is_one_problem(key: str, path: str, fix: str) -> None:
    rows = records(*[{"customer": "a", "meta": {"kind": 1}}] * 3)
    named: dict[str, Any] = {key: path}
    with pytest.raises(RunnerError) as caught:
        check_columns(rows, SourcePlan(source="x", **named), "rows.jsonl")
    (found,) = caught.value.problems
    assert (caught.value.exit_code, found.code) == (Exit.DATA_REJECTED, "data/unknown-column")
    assert (found.where.path, found.where.key) == ("rows.jsonl", f"data.{key}")
    assert (found.what, found.fix) == (f"None of the first rows has the column '{path}' (looked at: 3).", fix)


def test_a_column_of_groups_that_one_row_has_is_a_matter_of_rows() -> None:
    rows = records({"a": 1}, {"customer": None}, 7)
    check_columns(rows, SourcePlan(source="x", group_by="customer"), "x")
    check_columns(records(7), SourcePlan(source="x", group_by="customer"), "x")


def test_a_file_of_many_thousand_columns_is_refused_soon(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(200_000))
    values = ",".join("x" for _ in range(200_000))
    (path := tmp_path / "rows.csv").write_text(f"{names}\n{values}\n")
    with pytest.raises(RunnerError) as refused:
        read_rows(SourcePlan(source=str(path)), fetch(str(path), tmp_path, print))
    (found,) = refused.value.problems
    assert found.code == "data/unknown-format" and "c0, c1" in found.what and "data.template" in found.fix
