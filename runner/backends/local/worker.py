"""One of several processes that train together. `python -m torch.distributed.run ... -m runner.backends.local.worker`
is what the runner itself starts; ranks that somebody else started come here too."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

from torch.distributed import DistError

from runner.backends.local.ranks import Ranks, joined, placed
from runner.backends.local.ranks.job import RankJob
from runner.backends.local.ranks.launch import PATIENCE_SECONDS, has_torchrun
from runner.backends.local.ranks.meeting import Meeting, arrive
from runner.backends.local.ranks.status import leave_status, lost_another
from runner.backends.local.ranks.watch import RankWatch
from runner.backends.local.session import LocalSession
from runner.errors import Exit, Problem, RunnerError
from runner.masking import MaskedStream, remember
from runner.stopping import die_with_parent


def run_rank(
    path: Path, ranks: Ranks, watch: RankWatch, store: Any = None, is_stopped: Callable[[], bool] | None = None
) -> None:
    """Carries this rank's part of a job out; leaves a status file, and raises what went wrong."""
    told = RankJob.read(path)
    try:
        with joined(ranks, store):
            session = LocalSession(
                model=told.model,
                method=told.method,
                cache=told.cache,
                watch=watch,
                trust_remote_code=told.trust_remote_code,
            )
            session.train_rank(told, watch, ranks, is_stopped or (lambda: watch.asked))
    except BaseException as error:
        leave_status(path.parent, ranks.rank, error)
        raise
    leave_status(path.parent, ranks.rank, None)


def main() -> int:
    """The exit code of a rank that torchrun started."""
    remember(os.environ)
    sys.stderr = cast("TextIO", MaskedStream(sys.stderr))  # which is a file of the run directory
    die_with_parent()
    if not has_torchrun():
        return int(Exit.INTERRUPTED)
    ranks = placed()
    watch = RankWatch(ranks.rank, sys.stdout)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, watch.ask)
    try:
        run_rank(Path(sys.argv[1]), ranks, watch)
    except RunnerError as error:
        return int(error.exit_code)
    return int(Exit.DONE)


def follow(is_stopped: Callable[[], bool]) -> int:
    """A rank that somebody else started, but rank 0: does its part of the training when rank 0 comes to it, and ends
    with rank 0's exit code. Raises RunnerError (74) where rank 0 does not come, or goes without a word."""
    try:
        meet = arrive(is_stopped)
        return int(Exit.INTERRUPTED) if meet is None else _follow(meet, is_stopped)
    except DistError as error:
        problem = Problem(
            code="train/rank-lost",
            what=f"Process 0 of {placed().size} cannot be reached (any more): {str(error).splitlines()[0]}",
            fix="Run the same command again in all processes: it goes on from the last checkpoint.",
        )
        raise RunnerError(problem, Exit.IO) from error


def _follow(meet: Meeting, is_stopped: Callable[[], bool]) -> int:
    """A request to stop is rank 0's to answer, for as long as rank 0 lives."""
    ranks = meet.ranks
    done = False
    give_up = float("inf")
    while (code := meet.end()) is None and time.monotonic() < give_up:
        if not done and (path := meet.job()):
            done = True
            with suppress(RunnerError):  # its status file tells it, and rank 0 what becomes of the run
                try:
                    run_rank(path, ranks, RankWatch(ranks.rank, sys.stdout), meet.room, is_stopped)
                except Exception as error:
                    if not lost_another(error):
                        raise
        if is_stopped():
            give_up = min(give_up, time.monotonic() + PATIENCE_SECONDS)
        time.sleep(0.05)
    return int(Exit.INTERRUPTED) if code is None else code


if __name__ == "__main__":
    sys.exit(main())
