"""A run whose directory has a mirror: `--out s3://bucket/folder`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from runner.backends import Place
from runner.console import Console
from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked
from runner.outcome import Outcome
from runner.progress import LiveWatch
from runner.rundir import RunDirectory
from runner.stopping import Stop

Done = TypeVar("Done")
SWEEP_FILES = ("sweep.html", "sweep.json")


def already_mirrored(
    url: str, path: Path, run_id: str, is_all: Callable[[Mapping[str, Any]], bool]
) -> Mapping[str, Any] | None:
    """The report of this very run, where the mirror has it done and it `is_all` that is to be done; on a machine that
    has nothing of it, report and page are put into the run directory. Raises RunnerError (64, 69, 73, 77)."""
    from runner.mirror import finished_in_mirror

    return finished_in_mirror(url, path, run_id, is_all)


def send_sweep(url: str, folder: Path) -> RunnerError | None:
    """Puts what compares the points of a sweep beside their mirrors; the problem where the store does not take it."""
    from runner.stores import as_problem, open_store

    try:
        store = open_store(url, "--out")
        with as_problem(url, "--out"):
            for name in SWEEP_FILES:
                if (folder / name).is_file():
                    store.upload(folder / name, name)
    except RunnerError as error:
        return error
    return None


def with_mirror(outcome: Outcome, url: str | None, behind: RunnerError | None, console: Console) -> Outcome:
    """The outcome with its mirror; a run that is done but not all there ends with why, so that it is tried again."""
    if behind is None:
        if url:
            console.line(f"mirror  {masked(url)}")
            console.line(f"fetch   runner fetch {shlex.quote(masked(url))}")
        return replace(outcome, url=url)
    console.problems(behind.problems)
    is_good = outcome.exit_code in (Exit.DONE, Exit.SAID_NO)
    exit_code = behind.exit_code if is_good else outcome.exit_code
    return replace(outcome, exit_code=exit_code, url=url, problems=(*outcome.problems, *behind.problems))


def carry_out_mirrored(
    url: str,
    run: RunDirectory,
    run_id: str,
    cache: Path,
    watch: LiveWatch,
    stop: Stop,
    carry_out: Callable[[], Done],
    *,
    fresh: bool,
) -> tuple[Done, RunnerError | None]:
    """What `carry_out` gives, in a run directory that is as the mirror has it, and why the mirror is behind in the end,
    if it is. Raises RunnerError as `open_mirror` does."""
    from runner.mirror import open_mirror

    with contextlib.ExitStack() as stack:
        with watch.interruptible():
            mirror = stack.enter_context(open_mirror(url, run, run_id, cache / "answers", watch.say, fresh=fresh))
        done = carry_out()
        return done, mirror.flush(stop)


def check_one_machine(url: str | None, ranks: Place, num_here: int) -> None:
    """Raises RunnerError (73) where several machines share a run: each would have a directory of its own."""
    if url and ranks.size > num_here:
        problem = Problem(
            code="run/mirror-of-many",
            what="A run over several machines needs a directory that all of them see, which a bucket's mirror is not.",
            where=Where(path="--out"),
            fix="Give a folder on a shared file system (NFS, Lustre, a mounted bucket) as --out.",
        )
        raise RunnerError(problem, Exit.RUN_DIRECTORY)
