"""The last line of a log and a container's termination message: whole JSON in a bounded number of bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.errors import EXIT_CODES, Exit, Problem, Where
from runner.outcome import MAX_BYTES, Outcome, as_line, describe, leave_message

ROOT = Path(__file__).parents[1]
BROKEN = str(ROOT / "tests" / "errors" / "five-faults.yaml")


def problem(what: str = "It is wrong.", **values: object) -> Problem:
    return Problem(code="data/wrong", what=what, where=Where(path="rows.jsonl", line=3), fix="Fix it.", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_says_what_it_means_and_whether_to_retry(code: Exit) -> None:
    told = describe(Outcome(exit_code=code))
    assert (told["exit_code"], told["meaning"], told["retry"]) == (
        code,
        EXIT_CODES[code].meaning,
        EXIT_CODES[code].retry,
    )


def test_a_problem_keeps_its_place_and_its_fix() -> None:
    told = describe(Outcome(exit_code=Exit.DATA_REJECTED, problems=(problem(),)))
    assert told["problems"] == [
        {
            "code": "data/wrong",
            "severity": "error",
            "what": "It is wrong.",
            "fix": "Fix it.",
            "path": "rows.jsonl",
            "line": 3,
        }
    ]


@pytest.mark.parametrize("text", ["x", "é", "\N{SNOWMAN}", '"\\\n', "\ud800"])
def test_however_much_there_is_to_tell_it_fits(text: str, tmp_path: Path) -> None:
    problems = (problem(severity="warning"), *(problem(text * 3000) for _ in range(50)))
    outcome = Outcome(exit_code=Exit.DATA_REJECTED, problems=problems)
    (tmp_path / "log").touch()
    leave_message(outcome, tmp_path / "log")
    raw = (tmp_path / "log").read_bytes()
    assert len(raw) <= MAX_BYTES
    told = json.loads(raw)
    assert (told["exit_code"], told["num_problems"]) == (Exit.DATA_REJECTED, 51)
    assert told["problems"][0]["severity"] == "error"


def test_no_file_is_made_where_no_cluster_made_one(tmp_path: Path) -> None:
    leave_message(Outcome(exit_code=Exit.DONE), tmp_path / "log")
    leave_message(Outcome(exit_code=Exit.DONE), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_line_is_one_line() -> None:
    assert "\n" not in as_line(describe(Outcome(exit_code=Exit.BUG, problems=(problem("a\nb"),))))


@pytest.mark.parametrize(
    ("arguments", "code", "problems"),
    [((BROKEN,), Exit.MANIFEST, 5), (("run", "missing.yaml"), Exit.INPUT_MISSING, 1), (("--nonsense",), Exit.USAGE, 0)],
)
def test_however_the_command_ends_it_leaves_both(
    arguments: tuple[str, ...], code: Exit, problems: int, tmp_path: Path
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    done = subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        cwd=ROOT,
        env={**os.environ, "RUNNER_LOG": "auto", "RUNNER_TERMINATION_LOG": str(log)},
        capture_output=True,
        text=True,
    )
    told = json.loads(log.read_text())
    assert done.returncode == code == told["exit_code"]
    assert told["num_problems"] == problems
    if code != Exit.USAGE:  # argparse knows no log yet
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert (lines[-1]["event"], lines[-1]["exit_code"], lines[-1]["level"]) == ("end", code, "error")
        assert [line["event"] for line in lines[:-1]] == ["problem"] * problems
