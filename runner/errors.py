"""One kind of problem, which knows its place and its cure, and the exit codes of the command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

Severity = Literal["error", "warning", "note"]


class Exit(IntEnum):
    """Exit codes, after sysexits.h; `EXIT_CODES` says what each means and whether a retry can help."""

    DONE = 0
    SAID_NO = 3
    USAGE = 64
    DATA_REJECTED = 65
    INPUT_MISSING = 66
    UNAVAILABLE = 69
    BUG = 70
    RUN_DIRECTORY = 73
    IO = 74
    INTERRUPTED = 75
    CREDENTIALS = 77
    MANIFEST = 78


@dataclass(frozen=True, kw_only=True)
class ExitMeaning:
    """What an exit code tells a person and a scheduler."""

    meaning: str
    retry: bool


EXIT_CODES: dict[Exit, ExitMeaning] = {
    Exit.DONE: ExitMeaning(meaning="done, or already done", retry=False),
    Exit.SAID_NO: ExitMeaning(meaning="a gate, budget or verdict said no (a result, not a fault)", retry=False),
    Exit.USAGE: ExitMeaning(meaning="the command line is wrong", retry=False),
    Exit.DATA_REJECTED: ExitMeaning(meaning="the data was rejected", retry=False),
    Exit.INPUT_MISSING: ExitMeaning(meaning="an input file or model is missing", retry=False),
    Exit.UNAVAILABLE: ExitMeaning(meaning="an outside service, or the GPU, is unavailable now", retry=True),
    Exit.BUG: ExitMeaning(meaning="an internal error, with a traceback, or retries that gain nothing", retry=False),
    Exit.RUN_DIRECTORY: ExitMeaning(meaning="the run directory is unusable or locked", retry=False),
    Exit.IO: ExitMeaning(meaning="reading or writing failed, for example a full disk", retry=True),
    Exit.INTERRUPTED: ExitMeaning(meaning="interrupted; run the same command again", retry=True),
    Exit.CREDENTIALS: ExitMeaning(meaning="credentials are missing or refused", retry=False),
    Exit.MANIFEST: ExitMeaning(meaning="the manifest is invalid, or not as it was locked", retry=False),
}


@dataclass(frozen=True, kw_only=True)
class Where:
    """A place: a file, a line and column (both from 1), and the manifest key in dotted form."""

    path: str | None = None
    line: int | None = None
    column: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        parts = [self.path or "", *(str(n) for n in (self.line, self.column) if n is not None)]
        return ":".join(parts) if self.path else (self.key or "")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong or worth knowing: what, where, and how to cure it."""

    code: str
    what: str
    where: Where = Where()
    fix: str = ""
    severity: Severity = "error"

    def at(self, where: Where) -> Problem:
        """The same problem with a more exact place."""
        return replace(self, where=where)


class RunnerError(Exception):
    """The one exception of ours: it carries problems and the exit code they lead to."""

    def __init__(self, problems: Iterable[Problem] | Problem, exit_code: Exit):
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.exit_code = exit_code
        super().__init__("; ".join(problem.what for problem in self.problems))


class Refused(RunnerError):
    """A stage looked at the facts and said no: a result, reported like one."""

    def __init__(self, problems: Iterable[Problem] | Problem):
        super().__init__(problems, Exit.SAID_NO)


class Interrupted(RunnerError):
    """The person or the machine asked us to stop; the same command starts again."""

    def __init__(self, stage: str):
        problem = Problem(
            code="run/interrupted",
            what=f"The run was asked to stop during '{stage}'.",
            fix="Run the same command again.",
            severity="note",
        )
        super().__init__(problem, Exit.INTERRUPTED)
