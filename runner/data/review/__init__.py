"""What is worth knowing about the rows before training on them, found while every row is read once."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from runner.conversation import Example
from runner.data.review.checks import CHECKS, SECRETS
from runner.data.review.diversity import Diversity
from runner.data.review.findings import LISTED, Finding, Hit, Places, repeats, tell
from runner.data.review.private import Turns, hide
from runner.data.review.tally import Tally
from runner.data.review.whole import Whole

__all__ = ["LISTED", "Diversity", "Finding", "Review", "repeats"]

FINDERS = tuple((code, check.find) for code, check in CHECKS.items() if check.find)
EXAMPLES = 3  # of what a check found, in a sentence


class Review:
    """Reads rows one by one, in any order, and keeps numbers instead of rows."""

    def __init__(self) -> None:
        self._whole, self._places = Whole(), Places()
        self._rows = {code: array("I") for code, _ in FINDERS}
        self._names = {code: Tally() for code, _ in FINDERS}

    def add(self, example: Example) -> str:
        """Takes one row in; gives the name of its class as it may be printed, which `classes` has if there are any."""
        number = self._places.add(example.source)
        prompt = "\n".join(message.text for message in example.prompt)
        question = example.messages[-2].text if len(example.messages) > 1 else ""
        turns = Turns.of(prompt=prompt, question=question, answer=example.expected)
        found = {code: name for code, find in FINDERS if (name := find(turns))}
        for code, name in found.items():
            self._rows[code].append(number)
            self._names[code].add(name, name)
        return self._whole.add(example, prompt, hide if SECRETS & found.keys() else str)

    def findings(self) -> tuple[Finding, ...]:
        """What was found: most severe first, then most frequent."""
        single = (Hit(code=code, rows=np.array(rows), such=self._such(code)) for code, rows in self._rows.items())
        return tell([*single, *self._whole.hits()], self._places.num_rows(), self._places.first)

    def diversity(self) -> Diversity:
        """How varied the rows are."""
        return self._whole.diversity()

    def classes(self) -> Mapping[str, int]:
        """Rows of each class, the largest first; empty when the answers are no classes."""
        return self._whole.classes.num_rows()

    def _such(self, code: str) -> str:
        *names, last = [found.text for found in self._names[code].most_common(EXAMPLES)] or [""]
        return f", such as {', '.join(names)}{' and ' if names else ''}{last}" if last else ""
