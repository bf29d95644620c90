"""Standard output and error of a process that goes on when nobody reads them any more."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO, cast

from runner.masking import MaskedStream


def keep_streams() -> None:
    """Makes the process independent of its standard streams: one that is closed becomes the null device (else the next
    file that is opened takes its number, and gets what is printed), and one whose reader goes away is no fault."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not UTF-8 shows escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    errors = cast("TextIO", MaskedStream(sys.stderr))  # where libraries warn and log
    sys.stdout, sys.stderr = LastingStream(sys.stdout), LastingStream(errors, lasts_always=True)


class LastingStream(io.TextIOBase):
    """A text stream that takes everything and drops it once its reader has gone.

    Other faults, such as a full disk, are raised unless it `lasts_always`. Raises OSError then.
    """

    def __init__(self, stream: TextIO, *, lasts_always: bool = False):
        self.stream = stream
        self.lasts_always = lasts_always
        self.fault: OSError | None = None  # what the last thing written was lost to

    def write(self, text: str) -> int:
        """Writes, or drops, all of the text."""
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes, where there is still somebody who reads."""
        self._try(self.stream.flush)

    def _try(self, act: Any) -> None:
        if self.fault is not None:
            return
        try:
            act()
        except (BrokenPipeError, ConnectionResetError) as error:
            self._give_up(error)
        except OSError as error:
            if not self.lasts_always:
                raise
            self._give_up(error)
            print(f"What is printed is lost from here on: {error.strerror}. The work goes on.", file=sys.stderr)

    def _give_up(self, error: OSError) -> None:
        self.fault = error
        with contextlib.suppress(OSError, ValueError):  # what is still in a buffer must not fail at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """The stream's descriptor."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """How the stream writes what its encoding lacks."""
        return self.stream.errors
