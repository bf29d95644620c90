"""The training rows nearest to a question, by BM25."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.conversation import Example
from runner.metrics.words import split_words


class Retriever:
    """An index over examples' questions."""

    def __init__(self, examples: Sequence[Example]):
        import bm25s  # heavy, and only the gate retrieves

        self._examples = examples
        self._index: Any = bm25s.BM25()
        self._index.index([split_words(example.question) for example in examples], show_progress=False)

    def nearest(self, question: str, count: int) -> list[Example]:
        """The `count` nearest examples, nearest first."""
        words = split_words(question)
        found, _ = self._index.retrieve([words], k=min(count, len(self._examples)), show_progress=False)
        return [self._examples[i] for i in found[0].tolist()]
