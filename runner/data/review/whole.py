"""What the rows are as a whole, told in one pass and in a few bytes a row; their order changes nothing."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from runner.conversation import Example
from runner.data.review.classes import Classes
from runner.data.review.diversity import Diversity, Shown, Side, distinct_ngrams
from runner.data.review.findings import Hit
from runner.data.review.sample import Sample, knowing_rows
from runner.data.review.scripts import script_pair, unexpected_scripts

TINY = 3  # characters
FAR, LEAST_SPREAD = 5.0, 0.25  # robust deviations of the logarithm of the length
DOMINANT = 0.3  # of the rows
LEAST_ROWS = 50  # that can be said not to vary
FEW = 0.05  # of the rows, of the pairs of words
# No digit and no single letter: those answer a choice; and no "no".
_SAYS_NOTHING = re.compile(r"\W{0,9}|(?!no)[a-z]{2}|none|null|nan|n/a|undefined|tbd", re.IGNORECASE)


class Whole:
    """What the rows are together; in memory about 70 bytes a row and a sample."""

    def __init__(self) -> None:
        self.classes = Classes()
        self._questions, self._answers, self._sample = Side(), Side(), Sample()
        self._scripts, self._silent = array("B"), array("I")

    def add(self, example: Example, prompt: str, shown: Shown) -> str:
        """Takes a row in and gives the name of its class; `shown` says how a text may be printed."""
        question, answer = example.question, example.expected
        number = len(self._scripts)
        self._questions.add(question, shown)
        self._answers.add(answer, shown)
        if _SAYS_NOTHING.fullmatch(answer.strip()):
            self._silent.append(number)
        self._scripts.append(script_pair(question, answer))
        self._sample.add(number, example.source, prompt, question, answer)
        return self.classes.add(example.label, answer, shown)

    def diversity(self) -> Diversity:
        rows = self._sample.rows()
        questions = self._questions.variety([row.question for row in rows])
        answers = self._answers.variety([row.answer for row in rows])
        return Diversity(num_rows=len(self._scripts), questions=questions, answers=answers)

    def hits(self) -> Iterator[Hit]:
        """Everything that the rows as a whole show; the table of checks judges it."""
        if not self._scripts:
            return
        sample, are_classes = self._sample.rows(), bool(self.classes.num_rows())
        yield from self._lengths()
        yield Hit(code="data/script", rows=unexpected_scripts(np.array(self._scripts)))
        yield from self.classes.hits() if are_classes else self._dominant()
        if len(self._scripts) >= LEAST_ROWS:
            yield from self._few_openings()
            if not are_classes:
                yield from self._few_words([row.answer for row in sample])
        knowing = np.array([row.number for row in knowing_rows(sample)], dtype=np.int64)
        yield Hit(code="data/knowledge", rows=knowing, total=len(sample))

    def _lengths(self) -> Iterator[Hit]:
        questions, answers = np.array(self._questions.chars), np.array(self._answers.chars)
        median = np.median(answers)
        silent = np.array(self._silent if median >= 10 * TINY else [], dtype=np.int64)
        yield Hit(code="data/short-answer", rows=silent, such=f"; the median answer has {median:,.0f} characters")
        if np.median(questions) >= 10 * TINY:
            yield Hit(code="data/short-prompt", rows=np.flatnonzero(questions < TINY))
        low, high = usual_lengths(answers)
        unusual = np.setdiff1d(np.flatnonzero((answers < low) | (answers > high)), silent)
        yield Hit(code="data/length", rows=unusual, such=f"; usual are {low:,.0f} to {high:,.0f} characters")

    def _dominant(self) -> Iterator[Hit]:
        """An answer, or a beginning of answers, that surely more than 30 % of the rows have; JSON begins as it must."""
        for code, tally in (("data/same-answer", self._answers.texts), ("data/same-opening", self._answers.openings)):
            for top in tally.most_common(1):
                if surely_above(top.num_rows, len(self._scripts), DOMINANT) and top.text[:1] not in "{[<`":
                    yield Hit(code=code, rows=tally.rows_of(top.key), such=f": '{top.text}'")
                    return

    def _few_openings(self) -> Iterator[Hit]:
        openings = self._questions.openings
        ways = openings.num_distinct()
        if ways < FEW * min(len(self._scripts), 10_000):
            rows = openings.rows_of(openings.most_common(1)[0].key)
            yield Hit(code="data/few-openings", rows=rows, such=f"; number of different beginnings: {ways:,}")

    def _few_words(self, answers: Sequence[str]) -> Iterator[Hit]:
        pairs = distinct_ngrams(answers, 2)
        if pairs < FEW:
            such = f"; {100 * pairs:.1f} % of their word pairs are distinct"
            yield Hit(code="data/few-words", rows=np.arange(len(self._scripts)), such=such)


def usual_lengths(chars: NDArray[np.uint32]) -> tuple[float, float]:
    """Median and robust spread of the lengths' logarithms: what lies beyond is unlike the rest, in 20 rows or more."""
    if len(chars) < 20:
        return 0.0, math.inf
    logs = np.log(np.maximum(chars, 1))
    middle = np.median(logs)
    spread = max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(logs - middle))))
    return float(np.exp(middle - FAR * spread)), float(np.exp(middle + FAR * spread))


def surely_above(count: int, total: int, share: float) -> bool:
    """Whether the lower end of Wilson's 95 % interval of count / total lies above `share`."""
    z, p = 1.96, count / total
    centre, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return (centre - half) / (1 + z * z / total) > share
