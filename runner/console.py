"""What the person sees: problems with their place, tables, and what a stage says of its work."""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from runner.errors import Problem
from runner.files import read_small
from runner.masking import masked, masked_source, masked_value, printable

SNIPPET_WIDTH = 120
SNIPPET_BYTES = 1 << 20  # of larger files, which hold rows, no line is shown
MOST_SHOWN = 100  # problems on a screen; as JSON there are all
COLOURS = {"error": "31;1", "warning": "33", "note": "36", "dim": "2", "bold": "1", "good": "32;1"}


@dataclass(frozen=True, kw_only=True)
class ProgressAt:
    """How far a piece of work is; `left_seconds` None: done."""

    label: str
    done: int
    total: int
    seconds: float
    left_seconds: float | None
    facts: Mapping[str, float | str]


class Console:
    """Writes to a terminal with colour and moving bars, elsewhere in plain lines."""

    def __init__(self, out: TextIO | None = None, environment: Mapping[str, str] | None = None):
        self.out = out or sys.stdout
        environment = os.environ if environment is None else environment
        self.is_terminal = self.out.isatty() and environment.get("TERM") != "dumb"
        self.has_colour = self.is_terminal and not environment.get("NO_COLOR")
        self._brush = secrets.token_hex(8)  # so that no text from outside can name a colour

    def line(self, text: str = "") -> None:
        """Prints a line at once, without secrets and without what would steer the terminal."""
        shown = printable(masked(text))
        shown = re.sub(rf"<{self._brush}:([\d;]+)>", "\x1b[\\1m", shown)
        print(shown, file=self.out, flush=True)

    def stage(self, name: str) -> None:
        """Announces a stage of the lifecycle."""
        self.line(self.paint(f"== {name}", "bold"))

    def say(self, text: str) -> None:
        """Tells something about the work of a stage."""
        self.line(f"   {text}")

    def moved(self, at: ProgressAt) -> None:
        """Tells how far a piece of work is, where no bar can show it."""
        left = "" if at.left_seconds is None else f", {at.left_seconds:.0f} s left"
        facts = f"  {facts_text(at.facts)}" if at.facts else ""
        self.say(f"{at.label} {at.done}/{at.total}{facts}  {at.seconds:.0f} s{left}")

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, where there are colours; `line` puts it on."""
        return f"<{self._brush}:{COLOURS[colour]}>{text}<{self._brush}:0>" if self.has_colour else text

    def problems(self, problems: Iterable[Problem], form: str = "text") -> None:
        """Prints problems for people (`text`), programs (`json`) or GitHub's annotations (`github`)."""
        if form == "json":
            self.line(json.dumps([flat(problem) for problem in problems], ensure_ascii=False, indent=2))
            return
        problems = list(problems)
        for problem in problems[:MOST_SHOWN]:
            self.line(_annotation(problem) if form == "github" else self._screen(problem))
        if len(problems) > MOST_SHOWN:
            self.line(f"... and {len(problems) - MOST_SHOWN:,} more problems.")

    def _screen(self, problem: Problem) -> str:
        place = f"{problem.where}: " if str(problem.where) else ""
        head = f"{place}{self.paint(problem.severity, problem.severity)}: {_printable(problem.what)} "
        lines = [head + self.paint(f"[{problem.code}]", "dim")]
        snippet = _snippet(problem)
        if snippet:
            text, before = snippet
            margin = f"  {problem.where.line:>4} | "
            pointer = "".join("\t" if c == "\t" else " " * _width(c) for c in before) + "^"
            lines += [margin + text, " " * (len(margin) - 2) + "| " + self.paint(pointer, problem.severity)]
        if problem.fix:
            lines.append(f"  fix: {_printable(problem.fix)}")
        return "\n".join(lines)


def table(rows: Sequence[Sequence[str]], indent: str = "   ", *, words: bool = False) -> str:
    """Rows in columns, the first column to the left and the others, unless they are words, to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        places = enumerate(zip(row, widths, strict=True))
        cells = [cell.ljust(w) if words or i == 0 else cell.rjust(w) for i, (cell, w) in places]
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def facts_text(facts: Mapping[str, float | str]) -> str:
    """What a progress display shows beside how far it is."""
    names = {"tok_s": "tok/s", "dev_loss": "dev"}
    return "  ".join(
        f"{names.get(k, k)} {v:.4g}" if isinstance(v, float) else f"{names.get(k, k)} {v}" for k, v in facts.items()
    )


def flat(problem: Problem) -> dict[str, Any]:
    """The problem with its place, as one level of plain data."""
    values = masked_value(asdict(problem))
    return {**values.pop("where"), **values}


def _annotation(problem: Problem) -> str:
    level = {"error": "error", "warning": "warning", "note": "notice"}[problem.severity]
    place = {"file": problem.where.path, "line": problem.where.line, "col": problem.where.column}
    given = [f"{key}={_escape(str(value), ',:')}" for key, value in place.items() if value is not None]
    message = _escape(f"{problem.what} {problem.fix}".strip())
    return f"::{level} {','.join([*given, f'title={problem.code}'])}::{message}"


def _escape(text: str, more: str = "") -> str:
    for char in "%\r\n" + more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def _snippet(problem: Problem) -> tuple[str, str] | None:
    """The line of a problem, of a long one the part around its place, and what of it stands before the place."""
    where = problem.where
    if not where.path or where.line is None or where.column is None:
        return None
    try:
        source = read_small(Path(where.path), SNIPPET_BYTES).decode("utf-8-sig", "replace")
        written, text = (_printable(lines[where.line - 1]) for lines in _lines(source))
    except (OSError, IndexError):
        return None
    if text != written:  # what is masked may be shorter, and the caret stands on what is left
        pairs = zip(text, written[: where.column - 1], strict=False)
        column = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), where.column - 1))
        return text[:SNIPPET_WIDTH], text[:column]
    start = max(0, where.column - 1 - SNIPPET_WIDTH // 2) if len(text) > SNIPPET_WIDTH else 0
    return text[start : start + SNIPPET_WIDTH], text[start : where.column - 1]


@functools.lru_cache(maxsize=1)  # a file has many problems
def _lines(source: str) -> tuple[Sequence[str], Sequence[str]]:
    """A manifest's lines, and the same without secrets; a secret's own lines are known by the lines above them."""
    lines = source.splitlines()
    return lines, masked_source("\n".join(lines)).split("\n")


def _printable(text: str) -> str:
    """Text that cannot move the cursor or colour the terminal; tabs stay."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _width(char: str) -> int:
    """Columns that a character takes on a terminal."""
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
