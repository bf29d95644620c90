"""Faulty manifests on the screen, scalars, places, and text that nobody would write.

After a deliberate change of a message: `UPDATE_GOLDEN=1 pytest tests/test_document.py`, then read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.document import Place, parse_document
from runner.errors import Exit, Problem, RunnerError
from runner.schema import check_schema, read_schema
from tests.errors import call

ROOT = Path(__file__).parents[1]
ERRORS = ROOT / "tests" / "errors"
WRITTEN = sorted(path.stem for path in ERRORS.glob("*.yaml"))
MADE = {  # what does not belong in a repository
    "not-utf8": "name: tickets\ndescription: Für Fernhill\n".encode().replace(b"Fern", b"Fern\xe9"),
    "utf-16": "name: tickets\n".encode("utf-16-le").join([b"\xff\xfe", b""]),
    "control-character": b"name: tickets\ndescription: \x1b[31mred\n",
    "too-large": b"# " + b"x" * 256 * 1024,
    "too-many-values": b"name: tickets\ntags: [" + b"1, " * 6000 + b"1]\n",
}


def check_screen(slug: str, screen: str) -> None:
    golden = ERRORS / f"{slug}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(screen, encoding="utf-8")
    assert screen == golden.read_text(encoding="utf-8")


def problems_of(text: str | bytes) -> tuple[Problem, ...]:
    try:
        return tuple(parse_document(text if isinstance(text, bytes) else text.encode(), "m.yaml").problems)
    except RunnerError as error:
        return error.problems


# --- screens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", WRITTEN)
def test_a_faulty_manifest_shows_this_screen(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, screen = call("validate", f"tests/errors/{slug}.yaml")
    assert code == Exit.MANIFEST
    check_screen(slug, screen)


@pytest.mark.parametrize("slug", MADE)
def test_bytes_that_are_no_manifest_show_this_screen(
    slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{slug}.yaml").write_bytes(MADE[slug])
    code, screen = call("validate", f"{slug}.yaml")
    assert code == Exit.MANIFEST
    check_screen(slug, screen)


def test_a_missing_file_shows_this_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, screen = call("validate", "missing-file.yaml")
    assert code == Exit.INPUT_MISSING
    check_screen("missing-file", screen)


def test_every_screen_belongs_to_a_case_and_every_code_has_a_screen() -> None:
    screens = {path.stem: path.read_text(encoding="utf-8") for path in ERRORS.glob("*.txt")}
    assert set(screens) == {*WRITTEN, *MADE, "missing-file"}
    shown = set(re.findall(r"\[([a-z]+/[a-z0-9-]+)\]", "".join(screens.values())))
    source = "".join(
        (ROOT / "runner" / f"{name}.py").read_text(encoding="utf-8")
        for name in ("document", "schema", "manifest", "rules", "variants/faults")
    )
    raised = set(re.findall(r'code="([a-z]+/[a-z0-9-]+)"', source))
    raised |= {f"manifest/{slug}" for slug in re.findall(r'\badd\("([a-z0-9-]+)"', source)}
    assert (
        raised - {"usage/set", "credentials/missing", "sweep/set-key"} == shown
    )  # of the command line, of the environment


def test_five_faults_are_shown_in_one_go_each_at_its_own_place() -> None:
    screen = (ERRORS / "five-faults.txt").read_text(encoding="utf-8")
    places = re.findall(r"^\S+?:(\d+):(\d+): error: .*\[(.+)\]$", screen, re.MULTILINE)
    assert places == [
        ("6", "9", "approach/not-built"),
        ("9", "3", "manifest/unknown-key"),
        ("10", "15", "manifest/wrong-type"),
        ("11", "9", "manifest/out-of-range"),
        ("14", "11", "manifest/missing-key"),
    ]


# --- scalars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12),
        ("+12", 12),
        ("-0", 0),
        ("0x10", 16),
        ("0xFf", 255),
        ("0o17", 15),
        ("2e-4", 2e-4),
        ("1e-4", 1e-4),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-5.", -5.0),
        ("+1.5E+3", 1500.0),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        *((text, text) for text in ("yes", "No", "on", "off", "y", "nULL", "tRUE")),
        *((text, text) for text in ("017", "012", "-01", "00", "08.5")),
        *((text, text) for text in ("1_000", "1,000", "0b11", "-0x10", "0x", "1:30", "1.2.3", "e5", "--1", "1e", ".")),
        *((text, text) for text in ("2024-01-31", "2001-12-14 21:59:43", "<<", "=")),
        ('"12"', "12"),
        ("'true'", "true"),
        ('"~"', "~"),
        ("''", ""),
        ("|-\n  2e-4", "2e-4"),
        (">-\n  null", "null"),
    ],
)
def test_a_scalar_is_read_by_the_yaml_1_2_core_schema(written: str, value: Any) -> None:
    read = parse_document(f"key: {written}\n".encode(), "m.yaml").value["key"]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("text", ["-.inf", ".NaN", "1e400", "9" * 5000, "0x" + "f" * 5000])
def test_a_number_without_end_is_refused_in_its_place(text: str) -> None:
    (problem,) = problems_of(f"seed: {text}")
    assert (problem.code, problem.where.column, problem.where.key) == ("manifest/not-finite", 7, "seed")


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_places_hold_with_every_line_end_and_byte_order_mark(newline: str, mark: str) -> None:
    text = newline.join([mark + "name: x", "data:", "  train: [a, bc]", ""])
    document = parse_document(text.encode(), "m.yaml")
    assert document.value == {"name": "x", "data": {"train": ["a", "bc"]}}
    assert document.places == {
        (): Place(line=1, column=1, value_line=1, value_column=1),
        ("name",): Place(line=1, column=1, value_line=1, value_column=7),
        ("data",): Place(line=2, column=1, value_line=3, value_column=3),
        ("data", "train"): Place(line=3, column=3, value_line=3, value_column=10),
        ("data", "train", 0): Place(line=3, column=11, value_line=3, value_column=11),
        ("data", "train", 1): Place(line=3, column=14, value_line=3, value_column=14),
    }


def test_a_key_that_is_not_written_has_the_place_of_its_nearest_parent() -> None:
    document = parse_document(b"# first\ndata:\n  train: x\n", "m.yaml")
    places = [document.where(path) for path in ((), ("gate",), ("data", "split", "dev"))]
    assert [(where.line, where.column, where.key) for where in places] == [
        (2, 1, ""),
        (2, 1, "gate"),
        (2, 1, "data.split.dev"),
    ]


def test_faults_before_a_syntax_fault_are_shown_too() -> None:
    assert [problem.code for problem in problems_of("a: &x 1\nb: *x\nc: [")] == [
        "manifest/alias",
        "manifest/alias",
        "manifest/syntax",
    ]


# --- the schema -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("max length: 512", "Did you mean 'max_length'?"),
        ("MAX_LENGTH: 512", "Did you mean 'max_length'?"),
        ("max_len: 512", "Did you mean 'max_length'?"),
        ("usd-per-hour: 1", "'usd_per_hour' belongs in 'budget'."),
        ("similarity: 0.5", "'similarity' belongs in 'data.split'."),
        ("dev: 0.1", "'dev' belongs in 'data' or in 'data.split'."),
        ("name: x", "'name' belongs at the top level."),
    ],
)
def test_an_unknown_key_is_told_where_it_belongs(key: str, fix: str) -> None:
    document = parse_document(f"hyperparameters:\n  {key}\n".encode(), "m.yaml")
    assert fix in [problem.fix for problem in check_schema(document, read_schema("manifest"))]


@pytest.mark.parametrize(
    ("kind", "written", "fix"),
    [
        ("number", '"0,125"', "Write 0.125;"),
        ("number", "12,500,000.5", "Write 12500000.5;"),
        ("number", '" 007 "', "Write 7;"),
        ("number", '"1e400"', "For example  key: 1"),  # a number that is none helps nobody
        ("number", '"true"', "For example  key: 1"),
        ("integer", '"1.5"', "For example  key: 1"),
        ("integer", "1e4", "Write 10."),  # the nearest that the schema allows
        ("integer", "-0.6", "Write 0."),
        ("string", "2024", "Put it in quotes."),
        ("array", "chrf", 'Write ["chrf"].'),
        ("object", "train:x", "Write a space after 'train:'."),
        ("object", "http", "For example  key: 1"),
    ],
)
def test_a_wrong_type_is_told_what_to_write(kind: str, written: str, fix: str) -> None:
    schema = {"properties": {"key": {"type": kind, "minimum": 0, "maximum": 10, "examples": [1]}}}
    (problem,) = check_schema(parse_document(f"key: {written}".encode(), "m.yaml"), schema)
    assert problem.fix.startswith(fix)


# --- anything -------------------------------------------------------------------------------------------------------

YAML_LIKE = st.text(alphabet=" \n\r\t:-[]{}&*!|>'\"%@`#,?~.\\/Uxu\x00\x1b\x85\u2028\ufeff\U0001f600aé019e", max_size=60)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text().map(str.encode), YAML_LIKE.map(str.encode), st.binary()))
def test_any_bytes_are_a_document_or_problems_with_a_place(raw: bytes) -> None:
    try:
        document = parse_document(raw, "m.yaml")
        assert isinstance(document.value, dict)
        assert all(problem.where.line for problem in document.problems)
        return
    except RunnerError as error:
        refused = error
    assert refused.exit_code == Exit.MANIFEST
    assert refused.problems
    lines = raw.decode(errors="replace").splitlines()
    for problem in refused.problems:
        assert problem.where.path == "m.yaml"
        assert problem.where.line is not None and 1 <= problem.where.line <= len(lines) + 1
        assert problem.where.column is not None and problem.where.column >= 1
