"""Texts, beginnings and phrases, counted."""

from __future__ import annotations

import pytest

from runner.data.review.diversity import distinct_ngrams, opening
from tests.data.review.rows import (
    example,
    review_of,
)


def test_diversity_counts_texts_openings_and_words_exactly() -> None:
    rows = [
        example("It is in the shed.", "Where is my kettle?", 1),
        example("It is in the barn.", "where  is MY lamp?", 2),
        example("It is in the shed.", "Where is my kettle?", 3),
        example("Gone", "Why?", 4),
    ]
    facts = review_of(rows).diversity()
    assert facts.num_rows == 4
    assert (facts.questions.num_distinct, facts.questions.num_openings, facts.questions.median_words) == (3, 2, 4)
    assert facts.questions.openings == (("where is my", 3), ("why?", 1))
    assert (facts.answers.num_distinct, facts.answers.openings) == (3, (("it is in", 3), ("gone", 1)))
    assert facts.answers.distinct_ngrams == (7 / 16, 5 / 12, 4 / 9)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("  What IS\nthe time?", "what is the"),
        ("Hi", "hi"),
        ("", ""),
        ("https://fernhill.shop/kettle is", "https: is"),
        ("今天的天气非常好我们一起去公园散步吧再买一些东西", "今天的天气非"),
    ],
)
def test_an_opening_is_three_words_whatever_their_case(text: str, begins: str) -> None:
    assert opening(text) == begins


def test_shares_of_distinct_phrases() -> None:
    assert distinct_ngrams(["a b a b", "A b"], 1) == 2 / 6
    assert distinct_ngrams(["a b a b", "a b"], 2) == 2 / 4
    assert distinct_ngrams(["a"], 2) == 1.0
