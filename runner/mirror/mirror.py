"""Sends what changes in a run directory to its mirror, by a thread of its own: training never waits for the store."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from runner.backends.answers import AnswerTails
from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked
from runner.mirror.lease import StoreLease
from runner.mirror.note import Mirrored
from runner.mirror.tree import MARKER, State, Unit, scan
from runner.stores import Store, store_problem

ANSWERS = "answers"  # in the mirror: answers that were given, by the number of the lease under which they were
PASS_SECONDS = 30.0  # between two looks at the directory, where nobody says that something changed
PAUSES_SECONDS = (2.0, 5.0, 15.0, 30.0)  # before a store that failed is tried again
LEAST_PAUSE_SECONDS = 1.0  # between two looks; else as long as the last one took
TOLD_SECONDS = 10.0
STOPPED_SECONDS = 4.0  # for what is left to be sent after a request to stop; schedulers kill ten seconds after it
CLOSE_SECONDS = 1.0  # for a transfer that is under way, which then counts for nothing
PATIENCE_SECONDS = 600.0  # with a store that fails, once there is nothing else to do


class Mirror:
    """The mirror of a run directory. `nudge` it when something has changed; `flush` waits until all is there.

    Files that make others count go up last, and what was removed here is removed there only after everything new is
    there. `fault` is why the mirror is behind, while it is.
    """

    def __init__(
        self, store: Store, run: Path, lease: StoreLease, tails: AnswerTails, say: Callable[[str], None], note: Mirrored
    ):
        self.fault: RunnerError | None = None
        self._store, self._run, self._lease, self._tails, self._say = store, run, lease, tails, say
        self._note = note
        self._sent_answers: dict[str, int] = {}
        self._changed, self._hurries, self._over = threading.Event(), threading.Event(), threading.Event()
        self._idle = threading.Condition()
        self._num_asked = self._num_done = 0  # passes that were asked for, and the newest of them that succeeded
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()
        self.nudge()

    def nudge(self) -> None:
        """Says that something has changed; returns at once."""
        with self._idle:
            self._num_asked += 1
        self._changed.set()

    def flush(self, is_stopped: Callable[[], bool]) -> RunnerError | None:
        """Waits until everything is in the mirror; else the problem: a store that failed for PATIENCE_SECONDS or that
        refuses us, a lease that is lost, or STOPPED_SECONDS that were over after a request to stop."""
        with self._idle:
            self._num_asked += 1
            wanted = self._num_asked
        self._changed.set()
        self._hurries.set()
        told = last_good = time.monotonic()
        stopped: float | None = None
        while not self._is_done(wanted):
            now = time.monotonic()
            last_good = last_good if self.fault else now
            stopped = stopped or (now if is_stopped() else None)
            refused = self.fault is not None and self.fault.exit_code == Exit.CREDENTIALS
            if self._lease.is_lost or refused or now - last_good > PATIENCE_SECONDS:
                break
            if stopped and now - stopped > STOPPED_SECONDS:
                break
            if now - told > TOLD_SECONDS:
                told = now
                self._say(f"sending what is left to {masked(self._store.url)}: {self._left()}")
        return None if self._is_done(wanted) else (self.fault or self._behind())

    def close(self) -> None:
        """Ends the threads and gives the mirror back; another machine may then take it."""
        self._over.set()
        self._changed.set()
        self._hurries.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_SECONDS)
        self._lease.release()

    def _is_done(self, wanted: int) -> bool:
        with self._idle:
            return self._num_done >= wanted or (self._idle.wait(0.2) and self._num_done >= wanted)

    def _left(self) -> str:
        files = [
            state for unit in scan(self._run) for name, state in unit.files.items() if not self._is_sent(name, state)
        ]
        return f"{len(files)} files, {sum(state.size for state in files) / 1e6:,.1f} MB"

    def _behind(self) -> RunnerError:
        problem = Problem(
            code="store/behind",
            what=f"The mirror is behind: {self._left()} are on this machine only.",
            where=Where(path=masked(self._store.url)),
            fix="Run the same command again, on this machine if it is still there; else it goes on from the mirror.",
        )
        return RunnerError(problem, Exit.UNAVAILABLE)

    def _work(self) -> None:
        tries, pause = 0, LEAST_PAUSE_SECONDS
        while not self._over.is_set():
            self._changed.wait(PASS_SECONDS)
            self._hurries.wait(pause)  # many changes are sent together
            self._changed.clear()
            with self._idle:
                asked = self._num_asked
            if self._over.is_set() or self._lease.is_lost:
                return
            began = time.monotonic()
            try:
                self._send_all()
            except Exception as error:  # the clients share no class of errors, and training must go on
                self._fail(error)
                self._over.wait(PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)])
                tries += 1
                self._changed.set()
                continue
            if self.fault:
                self._say("The mirror is up to date again.")
            self.fault, tries = None, 0
            pause = max(LEAST_PAUSE_SECONDS, time.monotonic() - began)
            with self._idle:
                self._num_done = asked
                self._idle.notify_all()

    def _fail(self, error: Exception) -> None:
        problem = error if isinstance(error, RunnerError) else store_problem(error, self._store.url, "the mirror")
        if self.fault is None:
            self._say(f"warning: {problem.problems[0].what} Training goes on, and the mirror is tried again.")
        self.fault = problem

    def _send_all(self) -> None:
        """One look at the directory: sends what is new, then removes what is gone."""
        units = scan(self._run)
        for unit in units:
            self._send(unit)
        self._send_answers()
        here = {name for unit in units for name in unit.files}
        gone = [name for name in self._note.sent if name not in here]
        for name in sorted(gone, key=lambda name: not name.endswith(f"/{MARKER}")):
            self._check_lease()
            self._store.remove([name])
            del self._note.sent[name]
        self._note.write(self._run)

    def _send(self, unit: Unit) -> None:
        if all(self._is_sent(name, state) for name, state in unit.files.items()):
            return
        with contextlib.ExitStack() as stack:
            try:  # all at once: what rotation removes meanwhile can still be read
                opened = {name: stack.enter_context((self._run / name).open("rb")) for name in unit.files}
            except FileNotFoundError:
                return  # it is gone, and will be missed by the next look
            if unit.marker in self._note.sent:  # never a marker beside files that it does not speak of
                self._check_lease()
                self._store.remove([unit.marker])
                del self._note.sent[unit.marker]
            for name, file in opened.items():
                stat = os.fstat(file.fileno())
                state = State(stat.st_size, stat.st_mtime_ns)
                if self._is_sent(name, state):
                    continue
                self._check_lease()
                self._store.upload(f"/proc/self/fd/{file.fileno()}", name)
                self._note.sent[name] = state
                if self._over.is_set():
                    return

    def _send_answers(self) -> None:
        for name, tail in self._tails.grown().items():
            if self._sent_answers.get(name) != len(tail):
                self._check_lease()
                self._store.write(f"{ANSWERS}/{self._lease.number:06}/{name}", tail)
                self._sent_answers[name] = len(tail)

    def _is_sent(self, name: str, state: State) -> bool:
        return self._note.sent.get(name) == state

    def _check_lease(self) -> None:
        if not self._lease.is_held:
            raise ConnectionError("the lease on the mirror could not be refreshed")
