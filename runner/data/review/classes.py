"""Answers that are classes: how many rows each has, and whether it has one spelling."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from runner.data.review.diversity import SHOWN_CHARS, Shown
from runner.data.review.findings import Hit
from runner.data.review.private import hide
from runner.data.review.tally import Frequent, Tally

MAX_CLASSES, MAX_LABELS = 50, 1_000
SMALL_CLASS = 10  # rows
MOST = 0.8  # of the rows
LISTED_CLASSES = 5  # in a sentence
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])")
_OPENING, _CLOSING = " \"'`“‘([", " \"'`”’)].,;:!?。！？"  # no signs: A+ and A-, <1 and >1 are not the same


class Classes:
    """Counts rows by label, or by answer where the answers are short, few and often given."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._labelled = self._class_like = True
        self._total = 0

    def add(self, label: str | None, answer: str, shown: Shown) -> str:
        """Takes a row in; gives the name of its class as it may be printed."""
        name = label or answer.strip()
        printed = (hide if label else shown)(name)[:SHOWN_CHARS]
        self._total += 1
        self._labelled &= label is not None
        self._class_like &= label is not None or (len(name) <= SHOWN_CHARS and "\n" not in name)
        if self._class_like:
            self._tally.add(name, printed)
        return printed

    def num_rows(self) -> Mapping[str, int]:
        """Rows of each class, the largest first; empty when the answers are no classes: long, or of too many kinds."""
        num_kinds = self._tally.num_distinct() if self._class_like else 0
        if not 2 <= num_kinds <= (MAX_LABELS if self._labelled else min(MAX_CLASSES, self._total / 10)):
            return {}
        classes = Counter[str]()
        for found in self._tally.most_common():
            classes[found.text] += found.num_rows
        return dict(classes)

    def hits(self) -> Iterator[Hit]:
        """Second spellings of a class, classes with few rows, and one with most of the rows."""
        found = self._tally.most_common()
        usual = {spelling_key(each.text): each.text for each in reversed(found)}  # of a key the most frequent stays
        other = [each for each in found if each.text != usual[spelling_key(each.text)]]
        such = [f"{each.num_rows} of '{each.text}' for '{usual[spelling_key(each.text)]}'" for each in other]
        yield self._hit("data/class-spelling", other, such)
        small = [each for each in found if each.num_rows < SMALL_CLASS and each not in other]
        yield self._hit("data/small-class", small, [f"{each.num_rows} of '{each.text}'" for each in small])
        if found[0].num_rows > MOST * self._total:
            yield self._hit("data/imbalance", found[:1], [f"'{found[0].text}'"])

    def _hit(self, code: str, found: Sequence[Frequent], such: Sequence[str]) -> Hit:
        rows = self._tally.rows_of(*(each.key for each in found))
        return Hit(code=code, rows=rows, such=f": {', '.join(such[:LISTED_CLASSES])}")


def spelling_key(name: str) -> str:
    """What a class's name says, blind to case, to quotes and full stops around it, and to how its words are joined."""
    folded = _BETWEEN_WORDS.sub(" ", name.casefold())
    return folded.lstrip(_OPENING).rstrip(_CLOSING) or folded
