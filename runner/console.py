"""What the person sees: problems with their place, progress, tables, and the next command."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from runner.errors import Interrupted, Problem
from runner.stopping import Stop, StopNow

LINE_SECONDS = 10.0
SNIPPET_WIDTH = 120
COLOURS = {"error": "31;1", "warning": "33", "note": "36", "dim": "2", "bold": "1", "good": "32;1"}


class Console:
    """Writes to a terminal with colour and moving bars, elsewhere in plain lines."""

    def __init__(self, out: TextIO | None = None, environment: Mapping[str, str] | None = None):
        self.out = out or sys.stdout
        environment = os.environ if environment is None else environment
        self.is_terminal = self.out.isatty() and environment.get("TERM") != "dumb"
        self.has_colour = self.is_terminal and not environment.get("NO_COLOR")

    def line(self, text: str = "") -> None:
        """Prints a line at once."""
        print(text, file=self.out, flush=True)

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, where there are colours."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.has_colour else text

    def problems(self, problems: Iterable[Problem], form: str = "text") -> None:
        """Prints problems for people (`text`), programs (`json`) or GitHub's annotations (`github`)."""
        if form == "json":
            self.line(json.dumps([_flat(problem) for problem in problems], ensure_ascii=False, indent=2))
            return
        for problem in problems:
            self.line(_annotation(problem) if form == "github" else self._screen(problem))

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


class LiveWatch:
    """Shows stages and progress, passes curves on, and knows when the run was asked to stop."""

    def __init__(self, console: Console, stop: Stop):
        self.console = console
        self._stop = stop
        self._stage = "start"
        self._sink: Callable[[Mapping[str, float], int], None] | None = None

    def stage(self, name: str) -> None:
        """Announces a stage of the lifecycle."""
        self._stage = name
        self.console.line(self.console.paint(f"== {name}", "bold"))

    def say(self, line: str) -> None:
        """Tells something about the work."""
        self.console.line(f"   {line}")

    def check(self) -> None:
        """Raises Interrupted when the run was asked to stop."""
        if self._stop():
            raise Interrupted(self._stage)

    @contextlib.contextmanager
    def interruptible(self, grace_seconds: float = 0.0) -> Iterator[None]:
        """While open, a request to stop raises Interrupted within the grace, whatever is under way."""
        try:
            with self._stop.interruptible(grace_seconds):
                yield
        except StopNow as asked:
            raise Interrupted(self._stage) from asked

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Passes points of a curve to the tracker."""
        if self._sink:
            self._sink(values, step)

    def send_curves_to(self, sink: Callable[[Mapping[str, float], int], None]) -> None:
        """Names where curves go."""
        self._sink = sink

    def progress(self, label: str, total: int) -> ProgressBar | ProgressLines:
        """A bar on a terminal, else a line now and then."""
        kind = ProgressBar if self.console.is_terminal else ProgressLines
        return kind(self, label, total)


class ProgressBar:
    """A moving bar with facts, speed and the time left."""

    def __init__(self, watch: LiveWatch, label: str, total: int):
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        self._watch = watch
        self._bar = Progress(
            TextColumn("   {task.description:<14}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
            console=RichConsole(file=watch.console.out),
        )
        self._shown = ""
        self._task = self._bar.add_task(label, total=total, facts="")

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        """Moves the bar; raises Interrupted when the run was asked to stop."""
        self._shown = _facts(facts) or self._shown
        self._bar.update(self._task, advance=amount, facts=self._shown)
        self._watch.check()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class ProgressLines:
    """The same as lines, at most one in ten seconds, for logs."""

    def __init__(self, watch: LiveWatch, label: str, total: int):
        self._watch = watch
        self._label = label
        self._total = total
        self._done, self._told = 0, -1
        self._facts = ""
        self._started = self._printed = time.monotonic()

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        """Counts; raises Interrupted when the run was asked to stop."""
        self._done += amount
        self._facts = _facts(facts) or self._facts
        now = time.monotonic()
        if now - self._printed >= LINE_SECONDS:
            self._print(now)
        self._watch.check()

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._told != self._done:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        self._printed, self._told = now, self._done
        passed = now - self._started
        left = passed / self._done * (self._total - self._done) if self._done else 0.0
        tail = f", {left:.0f} s left" if self._done < self._total else ""
        facts = f"  {self._facts}" if self._facts else ""
        self._watch.say(f"{self._label} {self._done}/{self._total}{facts}  {passed:.0f} s{tail}")


def table(rows: Sequence[Sequence[str]], indent: str = "   ", *, words: bool = False) -> str:
    """Rows in columns, the first column to the left and the others, unless they are words, to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        places = enumerate(zip(row, widths, strict=True))
        cells = [cell.ljust(w) if words or i == 0 else cell.rjust(w) for i, (cell, w) in places]
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _facts(facts: Mapping[str, float | str]) -> str:
    names = {"tok_s": "tok/s", "dev_loss": "dev"}
    return "  ".join(
        f"{names.get(k, k)} {v:.4g}" if isinstance(v, float) else f"{names.get(k, k)} {v}" for k, v in facts.items()
    )


def _flat(problem: Problem) -> dict[str, Any]:
    values = asdict(problem)
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
        lines = Path(where.path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
        text = _printable(lines[where.line - 1])
    except (OSError, IndexError):
        return None
    start = max(0, where.column - 1 - SNIPPET_WIDTH // 2) if len(text) > SNIPPET_WIDTH else 0
    return text[start : start + SNIPPET_WIDTH], text[start : where.column - 1]


def _printable(text: str) -> str:
    """Text that cannot move the cursor or colour the terminal; tabs stay."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _width(char: str) -> int:
    """Columns that a character takes on a terminal."""
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
