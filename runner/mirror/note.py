"""What of a run directory is in its mirror, noted in the directory itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from runner.files import write_whole
from runner.mirror.tree import State
from runner.rundir import MIRROR_NOTE


class Mirrored:
    """The files that a mirror has, in which state, and the number of the lease under which they were last sent."""

    def __init__(self, url: str, number: int, sent: Mapping[str, State]):
        self.url, self.number, self.sent = url, number, dict(sent)
        self._written: object = None

    def write(self, run: Path) -> None:
        """Keeps it, where it has changed."""
        facts = {"url": self.url, "number": self.number, "sent": {n: [s.size, s.changed] for n, s in self.sent.items()}}
        if facts != self._written:
            write_whole(run / MIRROR_NOTE, json.dumps(facts))
            self._written = facts

    @classmethod
    def read(cls, run: Path) -> Mirrored | None:
        """What was kept; None where there is nothing, or nothing readable."""
        try:
            facts = json.loads((run / MIRROR_NOTE).read_bytes())
            sent = {str(name): State(int(size), int(changed)) for name, (size, changed) in facts["sent"].items()}
            return cls(str(facts["url"]), int(facts["number"]), sent)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
