"""A tally counts as a plain counter does, in bounded memory."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.review import tally as module
from runner.data.review.tally import Tally


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_a_tally_is_a_counter(texts: list[str]) -> None:
    tally = Tally()
    for text in texts:
        tally.add(text, text.upper())
    known = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))
    assert [(found.text, found.num_rows) for found in tally.most_common()] == [(t.upper(), n) for t, n in known]
    assert tally.num_distinct() == len(known)
    assert all(
        tally.rows_of(f.key).tolist() == [i for i, t in enumerate(texts) if t.upper() == f.text]
        for f in tally.most_common()
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_tally_of_very_many_texts_still_counts_the_frequent_exactly(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 100)
    texts = ["often"] * 400 + ["seldom"] * 250 + [str(i) for i in range(4000)]
    random.Random(seed).shuffle(texts)
    tally = Tally()
    for text in texts:
        tally.add(text, text)
        assert len(tally._shown) <= 100
    assert [(found.text, found.num_rows) for found in tally.most_common()] == [("often", 400), ("seldom", 250)]
    assert tally.num_distinct() == 4002
