"""What a place for delivered weights can do, whatever it is, and what lies there to tell whose they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked

KEY = "delivery.to"
RECORD, CARD = "delivery.json", "README.md"  # the card goes up last of all: where it is, everything is


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A file to be sent, under its name there."""

    name: str
    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """Which run's files lie at a place, by their hashes; it is a file beside them."""

    run_id: str
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, content: bytes | None) -> Record | None:
        """The record that a file holds; None where there is none, or somebody else's file."""
        try:
            held = json.loads(content or b"")
            return cls(run_id=str(held["run_id"]), files={str(k): str(v) for k, v in held["files"].items()})
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    def text(self) -> bytes:
        """The file's content."""
        return (json.dumps({"run_id": self.run_id, "files": dict(self.files)}, indent=2) + "\n").encode()


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a push came to: the commit on the hub (None in a bucket), and how many files had to be sent."""

    commit: str | None
    num_sent: int


class Place(Protocol):
    """A bucket's folder or a repository of the hub.

    `check` looks whether weights can be sent there, and leaves nothing behind. `push` sends what is not there yet, the
    card last, and calls `moved` with each file that is there. Both raise RunnerError: 64 and 77 where something is
    missing or refused, 73 where somebody else's files are in the way, 69 where the place does not answer.
    """

    url: str

    def check(self) -> None: ...
    def push(self, files: Sequence[Outgoing], run_id: str, moved: Callable[[Outgoing, bool], None]) -> Sent: ...


def foreign(url: str, names: Sequence[str]) -> RunnerError:
    """Files that are somebody else's lie where ours would."""
    problem = Problem(
        code="delivery/foreign-files",
        what=f"There are files already that no run of ours delivered: {', '.join(names[:3])}.",
        where=Where(path=masked(url), key=KEY),
        fix="Name an empty place in delivery.to, or remove them.",
    )
    return RunnerError(problem, Exit.RUN_DIRECTORY)
