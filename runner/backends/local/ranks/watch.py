"""What people see of processes that train together, and how these hear that they are to stop: all at one step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import IO, Any

from runner.backends.base import Progress, Saved, Watch
from runner.errors import Interrupted

MARK = '{"runner":'


class RankWatch:
    """How a rank tells what it does: rank 0 writes lines that the process which shows them reads; a request to stop is
    only noted, since all ranks must agree on the step at which they do."""

    def __init__(self, rank: int, out: IO[str]):
        self.asked = False
        self._out = out if rank == 0 else None

    def ask(self, *_: object) -> None:
        """Notes a request to stop."""
        self.asked = True

    def tell(self, event: str, **facts: Any) -> None:
        """One line for the process that shows it."""
        if self._out is not None:
            with suppress(BrokenPipeError):
                self._out.write(json.dumps({"runner": event, **facts}) + "\n")
                self._out.flush()

    def stage(self, name: str) -> None:
        """Not told: a rank knows one stage only."""

    def say(self, line: str) -> None:
        """Tells something about the work."""
        self.tell("say", line=line)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Passes points of a curve on."""
        self.tell("log", values=dict(values), step=step)

    def send_curves_to(self, sink: Callable[[Mapping[str, float], int], None]) -> None:
        """Curves go to the process that reads the lines."""

    def saved(self, what: Saved, amount: int) -> None:
        """Passes on what is on disk."""
        self.tell("saved", what=what, amount=amount)

    def note_saved_with(self, note: Callable[[Saved, int], None]) -> None:
        """What is saved is noted by the process that reads the lines."""

    def check(self) -> None:
        """Never raises; see above."""

    def interruptible(self, grace_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Nothing is."""
        return nullcontext()

    def progress(self, label: str, total: int) -> Progress:
        """Told as it moves."""
        return _ToldProgress(self, label, total)


class _ToldProgress:
    def __init__(self, watch: RankWatch, label: str, total: int):
        self._watch, self._label, self._total = watch, label, total

    def __enter__(self) -> Progress:
        self._watch.tell("begin", label=self._label, total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.tell("end", label=self._label)

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        self._watch.tell("advance", label=self._label, amount=amount, facts=facts)


class Shown:
    """Turns the lines of rank 0 back into progress."""

    def __init__(self, watch: Watch):
        self._watch = watch
        self._bars: dict[str, Any] = {}

    def tell(self, line: str) -> None:
        """Shows a line; what is not one of ours is left out."""
        if not line.startswith(MARK):
            return
        event = json.loads(line)
        kind = event["runner"]
        if kind == "say":
            self._watch.say(event["line"])
        elif kind == "log":
            self._watch.log(event["values"], event["step"])
        elif kind == "saved":
            self._watch.saved(event["what"], event["amount"])
        elif kind == "begin":
            self._bars[event["label"]] = self._watch.progress(event["label"], event["total"]).__enter__()
        elif kind == "advance":
            self._bars[event["label"]].advance(event["amount"], **event["facts"])
        elif kind == "end":
            self._bars.pop(event["label"]).__exit__(None, None, None)

    def close(self) -> None:
        """Ends the bars of ranks that did not."""
        for bar in self._bars.values():
            bar.__exit__(None, None, None)


class AgreedWatch:
    """Rank 0's own watch, but for requests to stop, which the ranks follow together."""

    def __init__(self, watch: Watch):
        self._watch = watch

    def is_stopped(self) -> bool:
        """Whether this rank was asked to stop."""
        try:
            self._watch.check()
        except Interrupted:
            return True
        return False

    def check(self) -> None:
        """Never raises; see above."""

    def progress(self, label: str, total: int) -> Progress:
        """Shown as it moves."""
        return _Heedless(self._watch.progress(label, total))

    def interruptible(self, grace_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Nothing is."""
        return nullcontext()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watch, name)


class _Heedless:
    """A bar that only shows."""

    def __init__(self, shown: Progress):
        self._shown = shown

    def __enter__(self) -> Progress:
        self._shown.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.__exit__(*error)

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        with suppress(Interrupted):
            self._shown.advance(amount, **facts)
