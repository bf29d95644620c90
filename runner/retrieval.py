"""The training rows nearest to a question, by BM25."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.conversation import Example
from runner.metrics.words import split_words


class Retriever:
    """An index over the questions of at least one example."""

    def __init__(self, examples: Sequence[Example]):
        import bm25s  # heavy, and only the gate retrieves

        self._examples = examples
        words = [split_words(example.question) for example in examples]
        self._index: Any = bm25s.BM25() if any(words) else None  # without a word there is nothing to index
        if self._index:
            self._index.index(words, show_progress=False)

    def nearest(self, question: str, count: int) -> list[Example]:
        """The `count` nearest examples, nearest first."""
        if self._index is None:
            return list(self._examples[:count])
        words, most = split_words(question), min(count, len(self._examples))
        found, _ = self._index.retrieve([words], k=most, show_progress=False)
        return [self._examples[i] for i in found[0].tolist()]
