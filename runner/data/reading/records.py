"""A row as it stands in its file, and what can be wrong with the file as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from runner.errors import Exit, Problem, RunnerError, Where

LIMIT = 10 * 1024 * 1024  # bytes of one row; a longer one is a fault of the file, and no model reads it
EXCERPT = 120

TOO_LONG = f"the row is too long (more than {LIMIT >> 20} MB)"
HALF = "not Unicode text: an escape such as \\ud83d without its other half"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row: its value, or the reason why it cannot be read.

    `row` is the line (from 1) where it begins in JSONL, CSV and TSV, and its number (from 1) in JSON and Parquet.
    """

    row: int
    value: Any = None
    excerpt: str = ""
    reason: str | None = None
    repairs: tuple[str, ...] = ()


def one_line(text: str) -> str:
    """The first characters of a text, on one line."""
    line = text[:EXCERPT]
    return (line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)).strip()


def listed(names: Iterable[Any], most: int) -> str:
    """The first of some names out of the data, each short and without characters that nobody sees."""
    return ", ".join(map(_plain, islice(names, most)))


def _plain(name: Any) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name)[:40])


def rejected(
    code: str, name: str, what: str, fix: str, line: int | None = None, column: int | None = None
) -> RunnerError:
    """The file cannot be used (65)."""
    problem = Problem(code=code, what=what, where=Where(path=name, line=line, column=column), fix=fix)
    return RunnerError(problem, Exit.DATA_REJECTED)


def damaged(name: str, last: int | None, container: str, error: BaseException) -> RunnerError:
    """The file's packing is broken after its row `last`, None where that is not known (65)."""
    good = f" after row {last}, the last that could be read" if last else ""
    detail = one_line(str(error)) or type(error).__name__
    what = f"The {container} file is damaged or cut{good}: {detail.rstrip('.')}."
    return rejected("data/corrupt", name, what, "Copy or download the file again.", last)
