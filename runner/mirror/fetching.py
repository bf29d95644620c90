"""A run's results, copied from its mirror to any machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked
from runner.mirror.mirror import ANSWERS
from runner.mirror.opening import download
from runner.mirror.tree import restorable
from runner.stores import as_problem, open_store


def fetch(url: str, folder: Path, say: Callable[[str], None]) -> int:
    """Copies a run, or whatever else is below the URL, into a folder that is empty or does not exist yet; the number
    of files. Raises RunnerError (64, 66, 69, 73, 77)."""
    store = open_store(url, "fetch")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problem = Problem(
            code="fetch/not-empty",
            what="There is something already.",
            where=Where(path=str(folder)),
            fix="Name a folder that does not exist yet.",
        )
        raise RunnerError(problem, Exit.RUN_DIRECTORY)
    with as_problem(url, "fetch", uses_disk=True):
        names = store.sizes()
        wanted = [name for name in restorable(names) if "/.lease/" not in name and f"{ANSWERS}/" not in name]
        if not wanted:
            problem = Problem(
                code="fetch/nothing",
                what="There is nothing at this URL.",
                where=Where(path=masked(url)),
                fix="Name the URL that the run was given as --out.",
            )
            raise RunnerError(problem, Exit.INPUT_MISSING)
        say(f"{len(wanted)} files, {sum(names[name] for name in wanted) / 1e6:,.1f} MB")
        download(store, folder, wanted)
    return len(wanted)
