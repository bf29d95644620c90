"""A request to stop: SIGTERM, Ctrl-C or a terminal that is gone; remembered, and raised at once where work may be cut
short."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from runner.errors import Exit

AGAIN_SECONDS = 1.0
SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG
REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LIBC = ctypes.CDLL(None)  # loaded before anything forks


def die_with_parent() -> None:
    """Makes the kernel end this process with the one that started it."""
    _LIBC.prctl(SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)


class StopNow(BaseException):
    """Cuts work short. Not an Exception, since libraries swallow those or make others of them."""


class Stop:
    """Whether a signal asked us to stop. The second time, or after `decide`, it ends the process at once.

    Where a request comes from several sides, as to the ranks of torchrun, it is `patient` with a second one.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.asked = False
        self._patient = patient
        self._graces_seconds: tuple[float, ...] = ()  # of the contexts that are open, the innermost last
        self._is_decided = False
        self._earlier: dict[signal.Signals, Any] = {}  # their handlers, while we listen

    def __call__(self) -> bool:
        return self.asked

    def listen(self) -> None:
        """Takes over the signals, SIGALRM included; only the main thread may."""
        self._earlier[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._again)
        for number in REQUESTS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: the terminal may go
            self._earlier[number] = signal.signal(number, self._ask)

    def restore(self) -> None:
        """Gives the signals back, in a process that goes on."""
        self._set_alarm(0.0)
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}

    def decide(self) -> bool:
        """Whether a request has come, for the last time: one that comes later ends the process at once."""
        self._is_decided = True
        return self.asked

    @contextlib.contextmanager
    def interruptible(self, grace_seconds: float = 0.0) -> Iterator[None]:
        """While open, a request raises StopNow in the main thread, after a grace; so does one that came before.

        It is raised again every second, should it get lost where Python passes no exception on (`__del__`).
        """
        before = self._graces_seconds
        try:
            try:
                self._graces_seconds = (*before, grace_seconds)
                if self.asked:
                    self._raise_after(grace_seconds)
                yield
            finally:
                self._graces_seconds = before
        finally:  # the request may come in the line above, too
            self._graces_seconds = before
            if self.asked:
                self._set_alarm(AGAIN_SECONDS if before else 0.0)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and self._patient and not self._is_decided:
            return
        if self.asked or self._is_decided:
            os._exit(Exit.INTERRUPTED)
        self.asked = True
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopping; once more to stop at once.\n")
        if self._graces_seconds:
            self._raise_after(self._graces_seconds[-1])

    def _again(self, number: int, frame: FrameType | None) -> None:
        if self._is_decided:
            os._exit(Exit.INTERRUPTED)
        if self.asked and self._graces_seconds:
            raise StopNow

    def _raise_after(self, grace_seconds: float) -> None:
        self._set_alarm(grace_seconds or AGAIN_SECONDS)
        if not grace_seconds:
            raise StopNow

    def _set_alarm(self, seconds: float) -> None:
        if self._earlier:  # without a handler, an alarm ends the process
            signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS if seconds else 0.0)
