"""Processes that train one job together: started here by torchrun, or already started by whoever started us."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from runner.backends.base import Watch
from runner.backends.local.ranks import Ranks, joined
from runner.backends.local.ranks.meeting import meeting
from runner.backends.local.ranks.status import forget, leave_status, lost_another, raise_outcome
from runner.backends.local.ranks.watch import AgreedWatch, Shown
from runner.errors import Interrupted
from runner.machine.threads import settled
from runner.stopping import die_with_parent

WORD_SECONDS = 2.0  # for a rank that failed to leave word
PATIENCE_SECONDS = 60.0  # from the request to stop until processes that do not end are ended
T = TypeVar("T")


def spawn(path: Path, num_processes: int, watch: Watch) -> None:
    """Trains the job of a file in processes of its own, by torchrun; they end with this one, whatever ends it.

    Raises Interrupted when asked to stop (checkpoint saved), and what the ranks say went wrong.
    """
    folder = path.parent
    forget(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(settled().of_each(num_processes)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(round(PATIENCE_SECONDS)),  # else ranks are killed amid a long save
    }
    with (folder / "ranks.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-m", "runner.backends.local.worker", str(path)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # a Ctrl-C comes to us alone, and goes to them once
            preexec_fn=die_with_parent,
        )
        interrupted = _follow_lines(process, watch)
    raise_outcome(folder, num_processes, process.returncode, interrupted)


def has_torchrun() -> bool:
    """Whether torchrun is still above us: it may have ended before the kernel knew that we are to end with it."""
    with suppress(OSError):
        return b"torch.distributed.run" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    return False


def _follow_lines(process: subprocess.Popen[str], watch: Watch) -> Interrupted | None:
    """Shows what rank 0 tells until the processes have ended; passes a request to stop on to them."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    shown = Shown(AgreedWatch(watch))
    interrupted: Interrupted | None = None
    give_up = float("inf")
    try:
        while True:
            with suppress(queue.Empty):
                line = lines.get(timeout=0.1)
                if line is None:
                    break
                shown.tell(line)
            if interrupted is None:
                try:
                    watch.check()
                except Interrupted as error:
                    interrupted, give_up = error, time.monotonic() + PATIENCE_SECONDS + 10
                    process.terminate()
            if time.monotonic() > give_up:
                process.kill()
        process.wait()
    finally:
        shown.close()
        if process.poll() is None:
            process.kill()
            process.wait()
    return interrupted


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def lead(path: Path, ranks: Ranks, watch: Watch, work: Callable[[Watch, Callable[[], bool]], T]) -> T:
    """Rank 0 of processes that somebody else started: hands the job out and takes part in it."""
    agreed = AgreedWatch(watch)
    meet = meeting()
    forget(path.parent)
    meet.hand_out(path)
    try:
        with joined(ranks, meet.room):
            return work(agreed, agreed.is_stopped)
    except Exception as error:
        if not lost_another(error):
            raise
        leave_status(path.parent, ranks.rank, error)
        time.sleep(WORD_SECONDS)  # what the other one died of is worth more than that it did
        raise_outcome(path.parent, ranks.size, 1, None)
        raise
