"""How far long work is: stages, moving bars or lines now and then, and whether the run was asked to stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from runner.backends.base import Saved
from runner.console import Console, ProgressAt, facts_text
from runner.errors import Interrupted
from runner.masking import masked, printable
from runner.stopping import Stop, StopNow

LINE_SECONDS = 10.0


class LiveWatch:
    """Shows stages and progress, passes curves on, and knows when the run was asked to stop."""

    def __init__(self, console: Console, stop: Stop):
        self.console = console
        self._stop = stop
        self._stage = "start"
        self._sink: Callable[[Mapping[str, float], int], None] | None = None
        self._note: Callable[[Saved, int], None] | None = None

    def stage(self, name: str) -> None:
        """Announces a stage of the lifecycle."""
        self._stage = name
        self.console.stage(name)

    def say(self, line: str) -> None:
        """Tells something about the work."""
        self.console.say(line)

    def check(self) -> None:
        """Raises Interrupted when the run was asked to stop."""
        if self._stop():
            raise Interrupted(self._stage)

    @contextlib.contextmanager
    def interruptible(self, grace_seconds: float = 0.0) -> Iterator[None]:
        """While open, a request to stop raises Interrupted within the grace, whatever is under way."""
        try:
            with self._stop.interruptible(grace_seconds):
                yield
        except StopNow as asked:
            raise Interrupted(self._stage) from asked

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Passes points of a curve to the tracker."""
        if self._sink:
            self._sink(values, step)

    def send_curves_to(self, sink: Callable[[Mapping[str, float], int], None]) -> None:
        """Names where curves go."""
        self._sink = sink

    def saved(self, what: Saved, amount: int) -> None:
        """Notes that work is on disk, where a run is under way."""
        if self._note:
            self._note(what, amount)

    def note_saved_with(self, note: Callable[[Saved, int], None]) -> None:
        """Names who notes it."""
        self._note = note

    def progress(self, label: str, total: int) -> ProgressBar | ProgressLines:
        """A bar on a terminal, else a line now and then."""
        kind = ProgressBar if self.console.is_terminal else ProgressLines
        return kind(self, label, total)


class ProgressBar:
    """A moving bar with facts, speed and the time left."""

    def __init__(self, watch: LiveWatch, label: str, total: int):
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        self._watch = watch
        self._bar = Progress(
            TextColumn("   {task.description:<14}", markup=False),  # an arm is called what a person calls it
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
            console=RichConsole(file=watch.console.out),
        )
        self._shown = ""
        self._task = self._bar.add_task(printable(masked(label)), total=total, facts="")

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        """Moves the bar; raises Interrupted when the run was asked to stop."""
        self._shown = printable(masked(facts_text(facts))) or self._shown
        self._bar.update(self._task, advance=amount, facts=self._shown)
        self._watch.check()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class ProgressLines:
    """The same as lines, at most one in ten seconds, for logs."""

    def __init__(self, watch: LiveWatch, label: str, total: int):
        self._watch = watch
        self._label = label
        self._total = total
        self._done, self._told = 0, -1
        self._facts: Mapping[str, float | str] = {}
        self._started = self._printed = time.monotonic()

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        """Counts; raises Interrupted when the run was asked to stop."""
        self._done += amount
        self._facts = facts or self._facts
        now = time.monotonic()
        if now - self._printed >= LINE_SECONDS:
            self._print(now)
        self._watch.check()

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._told != self._done:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        self._printed, self._told = now, self._done
        passed = now - self._started
        left = passed / self._done * (self._total - self._done) if self._done else 0.0
        self._watch.console.moved(
            ProgressAt(
                label=self._label,
                done=self._done,
                total=self._total,
                seconds=passed,
                left_seconds=left if self._done < self._total else None,
                facts=self._facts,
            )
        )
