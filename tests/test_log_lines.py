"""The log for machines: a JSON object a line, never longer than container engines take."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import Any

import pytest

from runner.errors import Problem, Where
from runner.log_lines import LogConsole
from runner.progress import LiveWatch
from runner.stopping import Stop


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().rstrip("\n").split("\n")]


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def test_stages_messages_and_progress_are_events(out: io.StringIO) -> None:
    watch = LiveWatch(LogConsole(out), Stop())
    watch.stage("train")
    watch.say("Loading ...")
    with watch.progress("train", 2) as progress:
        progress.advance(2, loss=0.5)
    stage, message, moved = lines(out)
    assert (stage["event"], stage["stage"]) == ("stage", "train")
    assert (message["event"], message["message"], message["level"]) == ("message", "Loading ...", "info")
    assert (moved["event"], moved["label"], moved["done"], moved["total"], moved["loss"]) == (
        "progress",
        "train",
        2,
        2,
        0.5,
    )
    assert datetime.fromisoformat(stage["time"]).utcoffset() is not None


def test_a_problem_is_an_event_with_its_place(out: io.StringIO) -> None:
    console = LogConsole(out)
    console.problems([Problem(code="a/b", what="Wrong.", where=Where(path="m.yaml", line=2), fix="Fix it.")])
    console.problems([Problem(code="a/c", what="Seen.", severity="note")], "github")
    first, second = lines(out)
    assert {k: first[k] for k in ("level", "message", "code", "path", "line", "fix")} == {
        "level": "error",
        "message": "Wrong.",
        "code": "a/b",
        "path": "m.yaml",
        "line": 2,
        "fix": "Fix it.",
    }
    assert (second["level"], "column" in second) == ("info", False)


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\ud83d", "\u2028", "\0"])
def test_whatever_a_text_holds_the_line_stays_one_line_of_json(text: str, out: io.StringIO) -> None:
    LogConsole(out).line(f"say {text}!")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()
    out.getvalue().encode()
    assert lines(out)[0]["message"].startswith("say ")


def test_a_line_that_is_too_long_is_cut_and_says_so(out: io.StringIO) -> None:
    LogConsole(out).event("message", "\N{SNOWMAN}" * 50_000, rows=list(range(9000)))
    assert len(out.getvalue().encode()) < 16_000
    assert lines(out)[0]["cut"] is True


def test_an_empty_line_says_nothing(out: io.StringIO) -> None:
    LogConsole(out).line()
    assert out.getvalue() == ""
