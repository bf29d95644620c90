"""Preferences of people: read strictly, and compared with the judge's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit, RunnerError
from runner.judge import agreement, read_human
from tests.fakes import write_rows
from tests.judge.scripted import good, judged, marks, never_sure

ROW = {"prompt": "what is 1", "a": "2", "b": "3", "preferred": "a"}


def test_rows_are_read_with_text_or_turns_as_prompt(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is 2"}]
    path = write_rows(tmp_path / "h.jsonl", [ROW, {**ROW, "prompt": turns, "preferred": "tie", "reference": "2"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n\n")
    first, second = read_human(path)
    assert (first.pair.first, first.pair.second, first.preferred, first.pair.id) == ("2", "3", "a", "h.jsonl:1")
    assert [t.role for t in second.pair.prompt] == ["system", "user"] and second.pair.reference == "2"
    assert first.pair.reference is None and first.pair.prompt[0].content == "what is 1"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "not JSON"),
        ("\ud800", "not UTF-8"),
        ({**ROW, "a": 1}, "'a' must be a text"),
        ({"prompt": "p", "a": "x", "preferred": "a"}, "'b' must be a text"),
        ({**ROW, "preferred": "A"}, "'preferred' must be a, b or tie"),
        ({**ROW, "preferred": ["a"]}, "'preferred' must be"),
        ({**ROW, "prompt": []}, "'prompt' must be"),
        ({**ROW, "prompt": [{"role": "boss", "content": "x"}]}, "'prompt' must be"),
        ({**ROW, "prompt": None}, "'prompt' must be"),
        ({**ROW, "reference": 3}, "'reference' must be"),
    ],
)
def test_every_faulty_line_is_named(tmp_path: Path, row: Any, said: str) -> None:
    line = row if isinstance(row, str) else json.dumps(row)
    path = tmp_path / "h.jsonl"
    path.write_bytes("\n".join([json.dumps(ROW), line, line]).encode("utf-8", "surrogatepass"))
    with pytest.raises(RunnerError) as caught:
        read_human(path)
    assert caught.value.exit_code == Exit.DATA_REJECTED
    assert [(p.code, p.where.line, p.where.key) for p in caught.value.problems] == [
        ("judge/human-row", n, "eval.judge.human") for n in (2, 3)
    ]
    assert said in caught.value.problems[0].what and '"preferred"' in caught.value.problems[0].fix


def test_a_missing_and_an_empty_file_are_problems(tmp_path: Path) -> None:
    with pytest.raises(RunnerError) as caught:
        read_human(tmp_path / "none.jsonl")
    assert caught.value.exit_code == Exit.INPUT_MISSING and caught.value.problems[0].code == "judge/human-missing"
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(RunnerError, match="no rows"):
        read_human(tmp_path / "empty.jsonl")


def test_agreement_counts_rows_with_an_outcome_alone(tmp_path: Path) -> None:
    rows = read_human(
        write_rows(
            tmp_path / "h.jsonl",
            [
                {"prompt": f"what is {i}", "a": str(i + 1), "b": str(i + 5), "preferred": preferred}
                for i, preferred in enumerate(["a", "a", "b", "tie"])
            ],
        )
    )
    pairs = [row.pair for row in rows]
    assert agreement(judged(good, pairs).judgements, rows)[:2] == (2, 4)
    assert agreement(judged(never_sure, pairs).judgements, rows)[:2] == (1, 4)
    assert agreement(judged(lambda shown: "rubbish", pairs).judgements, rows) == (0, 0, None)


def test_an_inconsistent_judgement_agrees_with_nobody(tmp_path: Path) -> None:
    rows = read_human(write_rows(tmp_path / "h.jsonl", [{**ROW, "preferred": p} for p in ("a", "b", "tie")]))
    found = judged(lambda shown: marks(5, 1), [row.pair for row in rows])
    assert agreement(found.judgements, rows)[:2] == (0, 3)
