"""Takes a mirror for a run: whose it is, which side is further, and what the run goes on from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from runner.backends.answers import AnswerTails, take_in
from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked
from runner.mirror.lease import FOLDER as LEASES
from runner.mirror.lease import StoreLease, take_lease
from runner.mirror.mirror import ANSWERS, Mirror
from runner.mirror.note import Mirrored
from runner.mirror.tree import WHOSE, State, restorable
from runner.rundir import RunDirectory
from runner.stores import Store, as_problem, open_store

ASKED_BY = "--out"
BEHIND = 0  # the number of no lease: what is here is less than what the mirror has
DOWNLOADS = 8  # at a time


def finished_in_mirror(
    url: str, path: Path, run_id: str, is_all: Callable[[Mapping[str, Any]], bool] = lambda report: True
) -> Mapping[str, Any] | None:
    """The report of this very run, where it is done in the mirror and it `is_all` that is to be done. Where `path` does
    not exist, the report and its page are put there; else nothing is taken or written. Raises RunnerError (64, 69, 73,
    77)."""
    store = open_store(url, ASKED_BY)
    with as_problem(url, ASKED_BY, uses_disk=True):
        store.sizes(LEASES)  # a list says why it is refused, which a look at one file does not
        whose = _object(store.read(WHOSE))
        report = _object(store.read("report.json")) if whose and whose.get("run_id") == run_id else None
        if report is None or report.get("status") != "done" or not is_all(report):
            return None
        if not path.exists():
            for name in ("report.html", "report.json", WHOSE):
                store.download(name, path / name)
    return report


def look_at_mirror(url: str, run_id: str | None) -> None:
    """Looks whether a run could have its mirror there, leaving nothing behind; raises RunnerError (64, 69, 73, 77)."""
    store = open_store(url, ASKED_BY)
    with as_problem(url, ASKED_BY):
        names = store.sizes()
        if run_id is not None:
            _check_owner(store, names, run_id, fresh=False)
        store.probe()


@contextlib.contextmanager
def open_mirror(
    url: str, run: RunDirectory, run_id: str, answers: Path, say: Callable[[str], None], *, fresh: bool
) -> Iterator[Mirror]:
    """The mirror, taken for this run until the end; the run directory and the kept answers are as it has them, where it
    is further than this machine. `fresh` removes what it holds.

    Raises RunnerError: 73 where another machine works on it, it holds another run or somebody's files, or the bucket is
    missing; 64, 69 and 77 as stores have it, 74 where this machine's disk has no room.
    """
    store = open_store(url, ASKED_BY)
    with as_problem(url, ASKED_BY):
        names = store.sizes()
        _check_owner(store, names, run_id, fresh=fresh)
        lease = take_lease(store, say, run.lose)
    with contextlib.ExitStack() as stack:
        stack.callback(lease.release)
        with as_problem(url, ASKED_BY, uses_disk=True):
            note = _meet(store, run, run_id, lease, answers, say, fresh=fresh)
        mirror = Mirror(store, run.path, lease, AnswerTails(answers), say, note)
        stack.pop_all()
    with contextlib.closing(mirror):
        mirror.start()
        run.tell_changes(mirror.nudge)
        yield mirror


def _check_owner(store: Store, names: Mapping[str, int], run_id: str, *, fresh: bool) -> None:
    """Raises RunnerError (73) where the mirror is that of another run, or holds what no run of ours wrote."""
    where = Where(path=masked(store.url))
    if WHOSE not in names:
        if strangers := [name for name in names if not name.startswith(".")]:
            what = f"The folder holds files that no run of ours wrote: {', '.join(strangers[:3])}."
            fix = "Give another --out, or an empty folder of the bucket."
            raise RunnerError(Problem(code="run/foreign-files", what=what, where=where, fix=fix), Exit.RUN_DIRECTORY)
        return
    held = (_object(store.read(WHOSE)) or {}).get("run_id", "its run.lock.json is unreadable")
    if held != run_id and not fresh:
        what = f"The mirror is that of another run ({held}); this one is {run_id}."
        fix = "Give another --out, or --fresh to remove what the earlier run left there."
        raise RunnerError(Problem(code="run/other-run", what=what, where=where, fix=fix), Exit.RUN_DIRECTORY)


def _meet(
    store: Store,
    run: RunDirectory,
    run_id: str,
    lease: StoreLease,
    answers: Path,
    say: Callable[[str], None],
    *,
    fresh: bool,
) -> Mirrored:
    """Brings the run directory to where the mirror is, unless it was this directory that was sent last; what of it is
    in the mirror."""
    names, known = store.sizes(), Mirrored.read(run.path)
    if fresh:
        store.remove([WHOSE, *(name for name in names if not name.startswith(".") and name != WHOSE)])
        names = {}
    if known is not None and known.url == store.url and known.number == lease.number - 1:
        sent = {name: state for name, state in known.sent.items() if names.get(name) == state.size}
    elif WHOSE in names:
        _check_directory(store, run, known)
        sent = _restore(store, run, names, answers, say)
    else:
        sent = {}
    elsewhere = {name: State(size, 0) for name, size in names.items() if _is_of_run(name) and name not in sent}
    note = Mirrored(store.url, lease.number, {**elsewhere, **sent})
    note.write(run.path)
    return note


def _is_of_run(name: str) -> bool:
    """Whether a file of the mirror has a counterpart in the run directory, which may be gone."""
    return not name.startswith(".") and not name.startswith(f"{ANSWERS}/")


def _check_directory(store: Store, run: RunDirectory, known: Mirrored | None) -> None:
    """Raises RunnerError (73) where the directory holds a run that was never sent to this mirror: one of the two would
    be lost."""
    if (run.path / WHOSE).exists() and (known is None or known.url != store.url):
        problem = Problem(
            code="run/not-mirrored",
            what=f"The directory holds a run that did not go to this mirror, and {masked(store.url)} holds one too.",
            where=Where(path=str(run.path)),
            fix="Move the directory away to go on from the mirror, or give another --out.",
        )
        raise RunnerError(problem, Exit.RUN_DIRECTORY)


def _restore(
    store: Store, run: RunDirectory, names: Mapping[str, int], answers: Path, say: Callable[[str], None]
) -> dict[str, State]:
    """The run as the mirror has it; whose it is comes last, so that half of it is never taken for all."""
    Mirrored(store.url, BEHIND, {}).write(run.path)
    run.clear()
    wanted = [name for name in restorable(names) if _is_of_run(name)]
    size = sum(names[name] for name in wanted) / 1e6
    say(f"going on from {masked(store.url)}: {len(wanted)} files, {size:,.1f} MB")
    num_answers = 0
    for name in names:
        if name.startswith(f"{ANSWERS}/") and (lines := store.read(name)):
            num_answers += take_in(answers, name.rpartition("/")[2], lines)
    if num_answers:
        say(f"{num_answers} answers that were given elsewhere need not be asked for again")
    download(store, run.path, [name for name in wanted if name != WHOSE])
    store.download(WHOSE, run.path / WHOSE)
    return {name: _state(run.path / name) for name in wanted}


def download(store: Store, folder: Path, names: Sequence[str]) -> None:
    """Copies files, several at a time. Raises what the store's client raises, and OSError."""
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        for done in as_completed([pool.submit(store.download, name, folder / name) for name in names]):
            done.result()


def _state(path: Path) -> State:
    stat = path.stat()
    return State(stat.st_size, stat.st_mtime_ns)


def _object(content: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(content or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
