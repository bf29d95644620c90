"""How varied the questions and the answers are, told in one pass."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from runner.data.review.tally import Tally

Shown = Callable[[str], str]  # how a text may be printed

SHOWN_CHARS = 60
NUM_NGRAMS = 200_000  # looked at


@dataclass(frozen=True, kw_only=True)
class Variety:
    """How varied the questions, or the answers, are: how many there are, in how many ways they begin (three words;
    the five most frequent with their rows); of a sample, which shares of the 1-, 2- and 3-grams are distinct."""

    num_distinct: int
    num_openings: int
    openings: tuple[tuple[str, int], ...]
    distinct_ngrams: tuple[float, float, float]
    median_words: float


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """How varied the rows are."""

    num_rows: int
    questions: Variety
    answers: Variety


class Side:
    """The questions, or the answers: their texts, beginnings and lengths."""

    def __init__(self) -> None:
        self.texts, self.openings = Tally(), Tally()
        self.chars = array("I")

    def add(self, text: str, shown: Shown) -> None:
        begins = opening(text)
        self.texts.add(text, shown(text)[:SHOWN_CHARS])
        self.openings.add(begins, shown(begins))
        self.chars.append(len(text.strip()))

    def variety(self, sample: Sequence[str]) -> Variety:
        return Variety(
            num_distinct=self.texts.num_distinct(),
            num_openings=self.openings.num_distinct(),
            openings=tuple((found.text, found.num_rows) for found in self.openings.most_common(5)),
            distinct_ngrams=(distinct_ngrams(sample, 1), distinct_ngrams(sample, 2), distinct_ngrams(sample, 3)),
            median_words=float(np.median([len(text.split()) for text in sample])) if sample else 0.0,
        )


def opening(text: str) -> str:
    """The first three words, blind to case; of a word that is no word (a URL, Chinese prose) the beginning."""
    words = text[:200].lower().split(None, 3)[:3]
    return " ".join(word if len(word) <= 16 else word[:6] for word in words)


def distinct_ngrams(texts: Sequence[str], length: int) -> float:
    """The share of the first NUM_NGRAMS word n-grams that are distinct; 1 where there are none."""
    grams = list(islice(_ngrams(texts, length), NUM_NGRAMS))
    return len(set(grams)) / len(grams) if grams else 1.0


def _ngrams(texts: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    for text in texts:
        words = text.lower().split()
        yield from zip(*(words[i:] for i in range(length)), strict=False)
