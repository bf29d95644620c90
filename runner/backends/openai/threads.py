"""Many requests at once, in threads that nobody has to wait for."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
POLL_SECONDS = 0.1


def in_threads(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    num_threads: int,
    came: Callable[[Job, Result], None],
    check: Callable[[], None],
) -> None:
    """Works on the jobs, at most `num_threads` at a time, and tells each result as it comes, in the caller's thread.

    When `work` raises, no further job begins; those under way are waited for, as they are paid for, and then it is
    raised. `check` is called ten times a second and oftener; what it or `came` raises ends all at once, and what is
    under way is abandoned: the threads do not outlive the process.
    """
    waiting, stopped = deque(jobs), threading.Event()
    ended: queue.SimpleQueue[tuple[Job, Result] | BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        while not stopped.is_set():
            try:
                job = waiting.popleft()
            except IndexError:
                break
            try:
                ended.put((job, work(job)))
            except BaseException as error:  # raised where the results are awaited
                stopped.set()
                ended.put(error)
        ended.put(None)

    num_running = min(num_threads, len(jobs))
    for _ in range(num_running):
        threading.Thread(target=run, daemon=True).start()
    try:
        _tell(ended, num_running, came, check)
    finally:
        stopped.set()


def _tell(
    ended: queue.SimpleQueue[tuple[Job, Result] | BaseException | None],
    num_running: int,
    came: Callable[[Job, Result], None],
    check: Callable[[], None],
) -> None:
    """Passes results on until every thread has said that it is done (None); raises the first failure at the end."""
    failures: list[BaseException] = []
    while num_running:
        check()
        try:
            found = ended.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if found is None:
            num_running -= 1
        elif isinstance(found, BaseException):
            failures.append(found)
        else:
            came(*found)
    if failures:
        raise failures[0]
