"""What is printed for people, for programs and for GitHub; progress where there is no terminal."""

from __future__ import annotations

import io
import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from runner.console import Console, table
from runner.errors import Exit, Interrupted, Problem, Where
from runner.progress import LiveWatch, ProgressBar, ProgressLines
from runner.stopping import Stop
from tests.errors import call

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(problem: Problem, out: io.StringIO | None = None, environment: dict[str, str] | None = None) -> str:
    out = out or io.StringIO()
    Console(out, environment or {}).problems([problem])
    return out.getvalue()


def read_annotations(text: str) -> list[dict[str, Any]]:
    """GitHub's workflow commands, read as GitHub reads them."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"::(error|warning|notice) (.*?)::(.*)", line)
        assert match, line
        given = dict(pair.split("=", 1) for pair in match[2].split(","))
        found.append({k: urllib.parse.unquote(v) for k, v in {**given, "level": match[1], "message": match[3]}.items()})
    return found


# --- forms ----------------------------------------------------------------------------------------------------------


def test_json_and_github_show_every_problem_at_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = ["tests/errors/five-faults.yaml", "tests/errors/missing.yaml", "tests/errors/number-as-text.yaml"]
    code, text = call("validate", *files, "--format", "json")
    problems = json.loads(text)
    assert code == Exit.MANIFEST
    assert [(p["path"], p["line"], p["column"], p["key"], p["code"]) for p in problems[:6]] == [
        (files[0], 6, 9, "approach.kind", "approach/not-built"),
        (files[0], 9, 3, "hyperparameters.learning-rate", "manifest/unknown-key"),
        (files[0], 10, 15, "hyperparameters.batch_size", "manifest/wrong-type"),
        (files[0], 11, 9, "hyperparameters.rank", "manifest/out-of-range"),
        (files[0], 14, 11, "gate.policy", "manifest/missing-key"),
        (files[1], None, None, None, "manifest/unreadable"),
    ]
    assert len(problems) == 16
    assert all(set(p) == {"path", "line", "column", "key", "code", "what", "fix", "severity"} for p in problems)

    code, text = call("validate", *files, "--format", "github")
    assert code == Exit.MANIFEST
    assert read_annotations(text) == [
        {
            "level": "error",
            "file": p["path"],
            **({"line": str(p["line"]), "col": str(p["column"])} if p["line"] else {}),
            "title": p["code"],
            "message": f"{p['what']} {p['fix']}",
        }
        for p in problems
    ]


@pytest.mark.parametrize(("form", "text"), [("json", "[]\n"), ("github", ""), ("text", "1 manifest: no problems\n")])
def test_a_valid_manifest_leaves_programs_nothing_to_read(form: str, text: str) -> None:
    assert call("validate", str(ROOT / "manifests" / "quickstart.yaml"), "--format", form) == (Exit.DONE, text)


@pytest.mark.parametrize("form", ["json", "github"])
def test_special_characters_come_back_as_they_were(form: str) -> None:
    problem = Problem(
        code="manifest/x",
        what='50 % off,\r\nnext:: "line" %0A – ☃',
        fix="Write, 100%: all.",
        where=Where(path="a,b:c=%2C.yaml", line=3, column=4),
        severity="note",
    )
    out = io.StringIO()
    Console(out).problems([problem, problem], form)
    if form == "json":
        found = json.loads(out.getvalue())
        assert {**found[1], "key": None} == found[0]
        assert (found[0]["what"], found[0]["path"]) == (problem.what, problem.where.path)
    else:
        first, second = read_annotations(out.getvalue())
        assert first == second
        assert first["message"] == f"{problem.what} {problem.fix}"
        assert (first["file"], first["level"]) == (problem.where.path, "notice")


# --- the screen -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "column", "shown", "pointer"),
    [
        ("name: x", 7, "name: x", "      ^"),
        ("a:\tb: c", 4, "a:\tb: c", "  \t^"),
        ("学習: x", 5, "学習: x", "      ^"),  # two columns each
        ("e\u0301: x", 5, "e\u0301: x", "   ^"),  # an accent that takes none
        ("a: \x1b[31mx", 9, "a: \ufffd[31mx", "        ^"),
        ("a: b", 5, "a: b", "    ^"),  # after the end
        ("k" * 300, 201, "k" * 120, " " * 60 + "^"),
        ("k" * 300, 21, "k" * 120, " " * 20 + "^"),
        ("k" * 300, 300, "k" * 61, " " * 60 + "^"),
    ],
)
def test_the_caret_stands_under_the_place(tmp_path: Path, line: str, column: int, shown: str, pointer: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"\ufeff# first\n{line}\n", encoding="utf-8")
    where = Where(path=str(path), line=2, column=column)
    lines = screen(Problem(code="manifest/x", what="What.", where=where, fix="Fix.")).splitlines()
    assert lines == [
        f"{path}:2:{column}: error: What. [manifest/x]",
        f"     2 | {shown}",
        f"       | {pointer}",
        "  fix: Fix.",
    ]


def test_the_caret_keeps_its_place_under_a_long_line_number(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("\n" * 123_455 + "a: b", encoding="utf-8")
    lines = screen(
        Problem(code="manifest/x", what="", where=Where(path=str(path), line=123_456, column=4))
    ).splitlines()
    assert lines[1].index("b") == lines[2].index("^")


def test_a_problem_without_a_file_has_no_snippet(tmp_path: Path) -> None:
    gone = Where(path=str(tmp_path / "gone.yaml"), line=1, column=1)
    assert screen(Problem(code="run/x", what="What.", where=gone)) == f"{gone}: error: What. [run/x]\n"
    assert screen(Problem(code="run/x", what="What.", severity="note")) == "note: What. [run/x]\n"


def test_a_problem_cannot_write_to_the_terminal() -> None:
    text = screen(Problem(code="run/x", what="Key '\x1b[2J\n'.", fix="Not\x07 this."))
    assert text == "error: Key '\ufffd[2J\ufffd'. [run/x]\n  fix: Not\ufffd this.\n"


def test_no_line_can_steer_the_terminal_or_name_a_colour() -> None:
    out = Terminal()
    console = Console(out, {"TERM": "xterm"})
    console.line(console.paint("\x1b[2Jred\x1b]0;title\x07 <0:31>", "good"))
    assert out.getvalue() == "\x1b[32;1m\ufffd[2Jred\ufffd]0;title\ufffd <0:31>\x1b[0m\n"


def test_a_secret_is_masked_on_every_screen(tmp_path: Path) -> None:
    key = "hf_" + "aBcDeFgHiJ" * 3 + "kLmN"
    path = tmp_path / "m.yaml"
    path.write_text(f"a: {key}, b: c\n", encoding="utf-8")
    problem = Problem(code="run/x", what=f"{key}.", where=Where(path=str(path), line=1, column=len(key) + 6), fix=key)
    for form in ("text", "json", "github"):
        out = io.StringIO()
        Console(out).problems([problem], form)
        assert key not in out.getvalue() and "***" in out.getvalue()
    lines = screen(problem).splitlines()
    assert lines[1:3] == ["     1 | a: ***, b: c", "       |    ^"]


@pytest.mark.parametrize(
    ("out", "environment", "colour"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),  # no-color.org: only when it is not empty
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(out: io.StringIO, environment: dict[str, str], colour: bool) -> None:
    assert ("\x1b[" in screen(Problem(code="run/x", what="What."), out, environment)) is colour


def test_a_table_has_names_to_the_left_and_numbers_to_the_right() -> None:
    assert table([("metric", "base"), ("chrf", "0.125"), ("loss", "2")], indent="") == (
        "metric   base\nchrf    0.125\nloss        2"
    )


# --- progress -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "kind"), [(Terminal(), ProgressBar), (io.StringIO(), ProgressLines)])
def test_progress_moves_on_a_terminal_and_is_told_elsewhere(out: io.StringIO, kind: type) -> None:
    watch = LiveWatch(Console(out, {"TERM": "xterm"}), Stop())
    bar = watch.progress("train", 40)
    assert isinstance(bar, kind)
    with bar:
        bar.advance(40, loss=0.123456, tok_s=1500.0)
    told = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "train" in told
    assert "40/40" in told
    assert "loss 0.1235  tok/s 1500" in told


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()])
def test_the_name_of_an_arm_is_no_markup_and_cannot_steer_the_terminal(out: io.StringIO) -> None:
    watch = LiveWatch(Console(out, {"TERM": "xterm"}), Stop())
    with watch.progress("[/red] \x1b[8mlarge answers", 1) as bar:
        bar.advance(1, note="[/x]\x1b[8m")
    assert "[/red] \ufffd[8mlarge" in out.getvalue() and "\x1b[8m" not in out.getvalue()


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()])
def test_work_that_was_asked_to_stop_says_in_which_stage(out: io.StringIO) -> None:
    stop = Stop()
    watch = LiveWatch(Console(out, {"TERM": "xterm"}), stop)
    watch.stage("train")
    bar = watch.progress("train", 2)
    bar.advance()
    stop.asked = True
    with pytest.raises(Interrupted, match="'train'") as caught:
        bar.advance()
    assert caught.value.exit_code == Exit.INTERRUPTED


def test_work_that_may_be_cut_short_says_in_which_stage_and_may_have_a_grace() -> None:
    stop = Stop()
    watch = LiveWatch(Console(io.StringIO()), stop)
    watch.stage("evaluate")
    stop.asked = True
    with pytest.raises(Interrupted, match="'evaluate'"), watch.interruptible():
        raise AssertionError("this must not be reached")
    with watch.interruptible(grace_seconds=1):
        pass


def test_curves_go_where_they_are_sent() -> None:
    watch = LiveWatch(Console(io.StringIO()), Stop())
    points: list[tuple[dict[str, float], int]] = []
    watch.log({"loss": 3.0}, 1)
    watch.send_curves_to(lambda values, step: points.append((dict(values), step)))
    watch.log({"loss": 2.0}, 2)
    assert points == [({"loss": 2.0}, 2)]


def test_of_thousands_of_problems_the_first_hundred_are_shown_and_the_others_counted() -> None:
    problems = [Problem(code="a/b", what=f"Fault {i}.", fix="Mend it.") for i in range(2_500)]
    out = io.StringIO()
    Console(out).problems(problems)
    assert out.getvalue().count("[a/b]") == 100
    assert out.getvalue().endswith("... and 2,400 more problems.\n")
    everything = io.StringIO()
    Console(everything).problems(problems, "json")
    assert len(json.loads(everything.getvalue())) == 2_500
