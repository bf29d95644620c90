"""A fair draw of rows, with the facts that their answers state on their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heappush, heapreplace
from itertools import islice

SAMPLE_ROWS = 2_000
SAMPLE_CHARS = 4_000  # of each text in the sample
MAX_FACTS = 40  # remembered of one answer
MAX_NAME_SHARE = 0.12  # of the words

_URL = r"https?://[^\s)>\]\"']+"
_NUMBER = r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d{3,})(?![\w%])"
_NAME = r"(?<=[a-zà-ÿа-я,;] )[A-ZÀ-ÞА-Я][a-zß-ÿа-яё]{2,}"
_FACT = re.compile(f"{_URL}|{_NUMBER}|{_NAME}")
_COMPUTED = re.compile(r"[=+*/×÷^<]\s*[$€£]?$")
_CALENDAR = re.compile(
    r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May|June|July|August|(?:Septem|Novem|Decem)ber"
    r"|October|English"
)


@dataclass(frozen=True, order=True)
class Sampled:
    """A row of the sample; `facts` are those that the answer states and the prompt does not hold."""

    rank: int
    source: str
    number: int = field(compare=False)
    question: str = field(compare=False)
    answer: str = field(compare=False)
    facts: tuple[str, ...] = field(compare=False)


class Sample:
    """The rows whose words have the greatest digests: a fair draw, and the same in whatever order they come."""

    def __init__(self) -> None:
        self._heap: list[Sampled] = []

    def add(self, number: int, source: str, prompt: str, question: str, answer: str) -> None:
        words = f"{prompt}\0{answer}".encode("utf-8", "surrogatepass")
        rank = int.from_bytes(blake2b(words, digest_size=8).digest())
        full = len(self._heap) == SAMPLE_ROWS
        if full and (rank, source) < (self._heap[0].rank, self._heap[0].source):
            return
        facts = tuple(islice(unstated_facts(prompt, answer), MAX_FACTS))
        row = Sampled(rank, source, number, question[:SAMPLE_CHARS], answer[:SAMPLE_CHARS], facts)
        if full:
            heapreplace(self._heap, row)
        else:
            heappush(self._heap, row)

    def rows(self) -> list[Sampled]:
        return sorted(self._heap)


def unstated_facts(prompt: str, answer: str) -> Iterator[str]:
    """Addresses, numbers of three digits and names in the answer that the prompt does not hold; no results of sums.

    An answer without letters, such as a result or an id, states none. A name is a capitalised word inside a sentence.
    Where such words are many (German, titles) they are no names.
    """
    if not any(map(str.isalpha, answer)):
        return
    found = list(_FACT.finditer(answer))
    num_names = sum(match[0][0].isupper() for match in found)
    named = num_names <= max(3, MAX_NAME_SHARE * answer.count(" "))
    known = prompt.lower().replace(",", "")
    for match in found:
        fact = match[0]
        if fact.lower().replace(",", "") in known or _CALENDAR.fullmatch(fact):
            continue
        if named if fact[0].isupper() else not _COMPUTED.search(answer, max(0, match.start() - 6), match.start()):
            yield fact


def knowing_rows(sample: Sequence[Sampled]) -> list[Sampled]:
    """Rows that state facts of their own: neither in their prompt nor in more than one answer in fifty."""
    rows_with = Counter(fact for row in sample for fact in set(row.facts))
    shared = max(1, len(sample) // 50)
    return [row for row in sample if any(rows_with[fact] <= shared for fact in row.facts)]
