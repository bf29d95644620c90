"""How varied the rows are, told in one pass and in a few bytes a row; the order of the rows changes nothing."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heappush, heapreplace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.conversation import Example

Rows = NDArray[np.integer[Any]]  # rows by their number in the order of reading, from 0
Shown = Callable[[str], str]

KEPT = 20_000  # texts that a tally remembers the words of; each held by more than 1 row in 10,000 is among them
SAMPLE_ROWS = 2_000
SAMPLE_CHARS = 4_000  # of each text in the sample
NUM_NGRAMS = 200_000  # looked at
MAX_FACTS = 40  # remembered of one answer
MAX_CLASSES, MAX_LABELS = 50, 1_000
CLASS_CHARS, SMALL_CLASS = 60, 10
TINY = 3  # characters
FAR, LEAST_SPREAD = 5.0, 0.25  # robust deviations of the logarithm of the length
DOMINANT = 0.3  # of the rows
MAX_NAME_SHARE = 0.12  # of the words
HASH = 2**64 - 1

SCRIPTS = {
    "Latin": r"A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Cyrillic": r"\u0400-\u052f",
    "Greek": r"\u0370-\u03ff",
    "Arabic": r"\u0600-\u06ff\u0750-\u077f",
    "Hebrew": r"\u0590-\u05ff",
    "Indic": r"\u0900-\u0dff",
    "Thai": r"\u0e00-\u0e7f",
    "Hangul": r"\u1100-\u11ff\uac00-\ud7af",
    "Han or kana": r"\u3040-\u30ff\u3400-\u9fff",  # one, for Japanese mixes them
}
NO_SCRIPT = len(SCRIPTS)
_LETTERS = [re.compile(f"[{letters}]") for letters in SCRIPTS.values()]
_LATIN_SHARE = 0.7
# No digit and no single letter: those answer a choice; and no "no".
_SAYS_NOTHING = re.compile(r"\W{0,9}|(?!no)[a-z]{2}|none|null|nan|n/a|undefined|tbd", re.IGNORECASE)
_LANGUAGE = re.compile(
    r"translat|переве|翻译|译|übersetz|tradu|languages?\b|script|alphabet|"
    r"\b(?:english|french|german|spanish|russian|ukrainian|bulgarian|serbian|greek|chinese|mandarin|cantonese|japanese|"
    r"korean|arabic|persian|farsi|urdu|hebrew|hindi|bengali|tamil|telugu|thai|英|日语|中文)",
    re.IGNORECASE,
)

_URL = r"https?://[^\s)>\]\"']+"
_NUMBER = r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d{3,})(?![\w%])"
_NAME = r"(?<=[a-zà-ÿа-я,;] )[A-ZÀ-ÞА-Я][a-zß-ÿа-яё]{2,}"
_FACT = re.compile(f"{_URL}|{_NUMBER}|{_NAME}")
_COMPUTED = re.compile(r"[=+*/×÷^<]\s*[$€£]?$")
_CALENDAR = re.compile(
    r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May|June|July|August|(?:Septem|Novem|Decem)ber"
    r"|October|English"
)


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


@dataclass(frozen=True, kw_only=True)
class Frequent:
    """A text that many rows share, by the key of its tally."""

    key: int
    text: str
    num_rows: int


@dataclass(frozen=True, order=True)
class Sampled:
    """A row of the sample; `facts` are those that the answer states and the prompt does not hold."""

    rank: int
    source: str
    number: int = field(compare=False)
    question: str = field(compare=False)
    answer: str = field(compare=False)
    facts: tuple[str, ...] = field(compare=False)


class Tally:
    """Counts rows by text: exact in 8 bytes a row, with the words of frequent texts alone."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._counts: dict[int, int] = {}
        self._shown: dict[int, str] = {}

    def add(self, text: str, shown: str) -> None:
        """Counts `text`, to be shown as `shown`."""
        key = hash(text) & HASH
        self._keys.append(key)
        if key in self._counts:
            self._counts[key] += 1
            return
        if len(self._counts) >= KEPT:
            self._forget()
        self._counts[key], self._shown[key] = 1, shown

    def num_distinct(self) -> int:
        return len(np.unique_counts(np.array(self._keys)).values)  # sorts; np.unique alone hashes, 40 times as slow

    def rows_of(self, *keys: int) -> Rows:
        return np.flatnonzero(np.isin(np.array(self._keys), np.array(keys, dtype=np.uint64)))

    def most_common(self, limit: int | None = None) -> tuple[Frequent, ...]:
        """Texts of more than 1 row in 10,000 (all texts, when they are few): most frequent first, then by alphabet."""
        keys, counts = np.unique(np.array(self._keys), return_counts=True)
        floor = 2 * len(self._keys) / KEPT if len(keys) > KEPT else 0
        frequent = zip(keys[counts > floor].tolist(), counts[counts > floor].tolist(), strict=True)
        found = (Frequent(key=key, text=self._shown[key], num_rows=n) for key, n in frequent)
        return tuple(sorted(found, key=lambda f: (-f.num_rows, f.text))[:limit])

    def _forget(self) -> None:
        """Takes the median from every count (Misra and Gries): half of them give it, so that what a text loses in
        all stays under 2 rows in KEPT."""
        cut = sorted(self._counts.values())[len(self._counts) // 2]
        self._counts = {key: n - cut for key, n in self._counts.items() if n > cut}
        self._shown = {key: self._shown[key] for key in self._counts}


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


def opening(text: str) -> str:
    """The first three words, blind to case; of a word that is no word (a URL, Chinese prose) the beginning."""
    words = text[:200].lower().split(None, 3)[:3]
    return " ".join(word if len(word) <= 16 else word[:6] for word in words)


def script_of(text: str) -> int:
    """The script that most letters of the text's beginning are in, by its place in SCRIPTS; NO_SCRIPT without any.

    Latin only where it is nearly alone: names and code stand in Latin letters in every language.
    """
    beginning = text[:400]
    if beginning.isascii():
        return 0 if _LETTERS[0].search(beginning) else NO_SCRIPT
    if len(beginning.encode("ascii", "ignore")) > 0.95 * len(beginning):
        return 0
    counts = [len(letters.findall(beginning)) for letters in _LETTERS]
    if not any(counts):
        return NO_SCRIPT
    return 0 if counts[0] >= _LATIN_SHARE * sum(counts) else 1 + int(np.argmax(counts[1:]))


def unstated_facts(prompt: str, answer: str) -> Iterator[str]:
    """Addresses, numbers of three digits and names in the answer that the prompt does not hold; no results of sums.

    A name is a capitalised word inside a sentence. Where such words are many (German, titles) they are no names.
    """
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


def distinct_ngrams(texts: Sequence[str], length: int) -> float:
    """The share of the first NUM_NGRAMS word n-grams that are distinct; 1 where there are none."""
    grams = list(islice(_ngrams(texts, length), NUM_NGRAMS))
    return len(set(grams)) / len(grams) if grams else 1.0


def _ngrams(texts: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    for text in texts:
        words = text.lower().split()
        yield from zip(*(words[i:] for i in range(length)), strict=False)


@dataclass(frozen=True, kw_only=True)
class Hit:
    """What the rows as a whole show: a finding's code, the rows concerned, and particulars for its sentence."""

    code: str
    rows: Rows
    such: str = ""
    total: int | None = None  # of how many rows, where not of all


class Side:
    """The questions, or the answers: their texts, beginnings and lengths."""

    def __init__(self) -> None:
        self.texts, self.openings = Tally(), Tally()
        self.chars = array("I")

    def add(self, text: str, shown: Shown) -> None:
        begins = opening(text)
        self.texts.add(text, shown(text)[:CLASS_CHARS])
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


class Whole:
    """What the rows are together; in memory about 70 bytes a row and a sample."""

    def __init__(self) -> None:
        self._questions, self._answers, self._classes, self._sample = Side(), Side(), Tally(), Sample()
        self._scripts, self._silent = array("B"), array("I")
        self._labelled = self._class_like = True

    def add(self, example: Example, prompt: str, shown: Shown) -> None:
        """Takes a row in; `shown` says how a text may be printed."""
        question, answer = example.question, example.expected
        number = len(self._scripts)
        self._questions.add(question, shown)
        self._answers.add(answer, shown)
        name = example.label or answer.strip()
        self._labelled &= example.label is not None
        self._class_like &= example.label is not None or (len(name) <= CLASS_CHARS and "\n" not in name)
        if self._class_like:
            self._classes.add(name, shown(name)[:CLASS_CHARS])
        if _SAYS_NOTHING.fullmatch(answer.strip()):
            self._silent.append(number)
        self._scripts.append(_script_pair(question, answer))
        self._sample.add(number, example.source, prompt, question, answer)

    def diversity(self) -> Diversity:
        rows = self._sample.rows()
        questions = self._questions.variety([row.question for row in rows])
        answers = self._answers.variety([row.answer for row in rows])
        return Diversity(num_rows=len(self._scripts), questions=questions, answers=answers)

    def classes(self) -> Mapping[str, int]:
        """Rows of each class, the largest first; empty when the answers are no classes: long, or of too many kinds."""
        num_kinds = self._classes.num_distinct()
        few = num_kinds <= (MAX_LABELS if self._labelled else min(MAX_CLASSES, len(self._scripts) / 10))
        if num_kinds < 2 or not few or not self._class_like:
            return {}
        classes = Counter[str]()
        for found in self._classes.most_common():
            classes[found.text] += found.num_rows
        return dict(classes)

    def hits(self) -> Iterator[Hit]:
        """Everything that the rows as a whole show; the table of findings judges it."""
        if self._scripts:
            yield from self._lengths()
            yield Hit(code="data/script", rows=unexpected_scripts(np.array(self._scripts)))
            yield from self._class_balance() if self.classes() else self._dominant()
            yield from self._monotony()

    def _lengths(self) -> Iterator[Hit]:
        questions, answers = np.array(self._questions.chars), np.array(self._answers.chars)
        median = np.median(answers)
        silent = np.array(self._silent if median >= 10 * TINY else [], dtype=np.int64)
        yield Hit(code="data/short-answer", rows=silent, such=f"; the median answer has {median:,.0f} characters")
        if np.median(questions) >= 10 * TINY:
            yield Hit(code="data/short-prompt", rows=np.flatnonzero(questions < TINY))
        low, high = usual_lengths(answers)
        such = f"; usual are {low:,.0f} to {high:,.0f} characters"
        yield Hit(
            code="data/length", rows=np.setdiff1d(np.flatnonzero((answers < low) | (answers > high)), silent), such=such
        )

    def _class_balance(self) -> Iterator[Hit]:
        classes = self._classes.most_common()
        small = [found for found in classes if found.num_rows < SMALL_CLASS]
        such = ", ".join(f"{found.num_rows} of '{found.text}'" for found in small[:5])
        yield Hit(code="data/small-class", rows=self._classes.rows_of(*(f.key for f in small)), such=f": {such}")
        top = classes[0]
        if top.num_rows > 0.8 * len(self._scripts):
            yield Hit(code="data/imbalance", rows=self._classes.rows_of(top.key), such=f": '{top.text}'")

    def _dominant(self) -> Iterator[Hit]:
        """An answer, or a beginning of answers, that surely more than 30 % of the rows have; JSON begins as it must."""
        for code, tally in (("data/same-answer", self._answers.texts), ("data/same-opening", self._answers.openings)):
            for top in tally.most_common(1):
                if surely_above(top.num_rows, len(self._scripts), DOMINANT) and top.text[:1] not in "{[<`":
                    yield Hit(code=code, rows=tally.rows_of(top.key), such=f": '{top.text}'")
                    return

    def _monotony(self) -> Iterator[Hit]:
        """Few ways to begin, few different words, answers that know what the prompt does not."""
        num_rows, openings = len(self._scripts), self._questions.openings
        if num_rows >= 50 and (ways := openings.num_distinct()) < 0.05 * min(num_rows, 10_000):
            such = f"; number of different beginnings: {ways:,}"
            yield Hit(code="data/few-openings", rows=openings.rows_of(openings.most_common(1)[0].key), such=such)
        sample = self._sample.rows()
        pairs = distinct_ngrams([row.answer for row in sample], 2)
        if num_rows >= 50 and pairs < 0.05 and not self.classes():
            such = f"; {100 * pairs:.1f} % of their word pairs are distinct"
            yield Hit(code="data/few-words", rows=np.arange(num_rows), such=such)
        knowing = np.array([row.number for row in knowing_rows(sample)], dtype=np.int64)
        yield Hit(code="data/knowledge", rows=knowing, total=len(sample))


def unexpected_scripts(pairs: NDArray[np.uint8]) -> Rows:
    """Rows whose answer is in another script than nine in ten answers to questions in the same script."""
    found = np.zeros(len(pairs), bool)
    questions, answers = pairs // 16, pairs % 16
    for script in np.unique(questions):
        counts = np.bincount(answers[questions == script], minlength=NO_SCRIPT + 1)[:NO_SCRIPT]
        if counts.sum() >= 20 and counts.max() >= 0.9 * counts.sum():
            found |= (questions == script) & (answers != counts.argmax()) & (answers != NO_SCRIPT)
    return np.flatnonzero(found)


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


def _script_pair(question: str, answer: str) -> int:
    """Both scripts in a byte; the answer's is unknown where the question asks for another language."""
    asked, given = script_of(question), script_of(answer)
    explained = asked != given and _LANGUAGE.search(question[:2000])
    return 16 * asked + (NO_SCRIPT if explained else given)
