"""Attempts that save nothing are not repeated without end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.attempts import NO_PROGRESS, PastAttempt, check_progress, idle_streak, read_attempts
from runner.cli import main
from runner.errors import Exit, RunnerError


def killed(**values: Any) -> PastAttempt:
    return PastAttempt(stage="train", stages=frozenset({"plan", "train"}), **values)


def write_events(folder: Path, *events: dict[str, Any]) -> Path:
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def test_attempts_are_read_from_the_events(tmp_path: Path) -> None:
    path = write_events(
        tmp_path,
        {"event": "attempt", "number": 1},
        {"event": "stage", "stage": "plan"},
        {"event": "saved", "what": "answers", "amount": 3},
        {"event": "saved", "what": "answers", "amount": 4},
        {"event": "attempt", "number": 2},
        {"event": "stage", "stage": "train"},
        {"event": "saved", "what": "step", "amount": 9},
        {"event": "end", "exit_code": 75},
    )
    assert read_attempts(path) == [
        PastAttempt(stage="plan", stages=frozenset({"plan"}), num_answers=7),
        PastAttempt(stage="train", stages=frozenset({"train"}), step=9, exit_code=75),
    ]


def test_lines_that_a_kill_tore_and_a_missing_file_say_nothing(tmp_path: Path) -> None:
    path = write_events(tmp_path, {"event": "attempt", "number": 1})
    with path.open("ab") as file:
        file.write(b'{"event": "sta\n[1]\n\xff\n')
    assert read_attempts(path) == [PastAttempt()]
    assert read_attempts(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("attempts", "length"),
    [
        ([], 0),
        ([killed()], 1),
        ([killed(), killed(exit_code=74), killed(exit_code=69)], 3),
        ([killed(), killed(exit_code=75), killed(step=1)], 0),
        ([killed(step=5), killed(step=5), killed(step=4)], 2),
        ([killed(), killed(num_answers=1), killed()], 1),
        ([killed(), killed(), killed(exit_code=70)], 0),
        ([killed(), killed(exit_code=0), killed()], 1),
        ([PastAttempt(stages=frozenset({"plan"})), killed(), killed()], 1),
    ],
)
def test_only_what_is_saved_or_reached_anew_counts_as_progress(attempts: list[PastAttempt], length: int) -> None:
    assert len(idle_streak(attempts)) == length


def test_the_third_idle_attempt_is_the_last_unless_there_is_no_limit() -> None:
    check_progress([killed(), killed()], 3)
    check_progress([killed()] * 9, None)
    with pytest.raises(RunnerError, match="killed in stage 'train'; exit code 75 in stage 'train'") as caught:
        check_progress([killed(), killed(), killed(exit_code=75)], 3)
    assert (caught.value.exit_code, caught.value.problems[0].code) == (Exit.BUG, NO_PROGRESS)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_is_told_so_once_and_can_go_on(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [str(write_experiment()), "--out", str(out), "--set", "budget.max_hours=0.0000001"]
    assert main(command) == Exit.SAID_NO
    dead = [{"event": "attempt"}, {"event": "stage", "stage": "plan"}]
    with (out / "events.jsonl").open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in dead * 3) + '{"event": "torn')
    assert main(command) == Exit.BUG
    report = json.loads((out / "report.json").read_text())
    assert (report["status"], report["problems"][-1]["code"]) == ("failed", NO_PROGRESS)
    assert main(command) == Exit.SAID_NO
