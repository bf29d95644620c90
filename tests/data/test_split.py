"""Which part a row belongs to, and which rows are withheld because their like is elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.split import (
    DEV,
    GENERAL,
    GIVEN_DEV,
    GIVEN_TEST,
    IGNORED,
    OWN_DEV,
    OWN_TEST,
    OWN_TRAIN,
    TEST,
    TRAIN,
    divide,
    draw,
    split_key,
    withhold,
)
from tests.fakes import question

PROMPTS = [f"question {i}" for i in range(500)]


def keys_of(prompts: list[str], answer: str = "yes") -> np.ndarray:
    return np.array([split_key(None, question(p, answer).question) for p in prompts], np.uint64)


def parts_of(prompts: list[str], seed: int = 1, dev: float = 0.1, test: float = 0.2) -> list[int]:
    found: list[int] = divide(keys_of(prompts), seed, dev, test).tolist()
    return found


def test_the_part_of_a_question_needs_only_the_question_and_the_seed() -> None:
    forwards = dict(zip(PROMPTS, parts_of(PROMPTS), strict=True))
    others = [*PROMPTS[::-1], "one more", "and more"]
    backwards = dict(zip(others, parts_of(others), strict=True))
    assert {prompt: backwards[prompt] for prompt in PROMPTS} == forwards


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        str.title,
        lambda text: f"  {text}\n",
        lambda text: text.replace(" ", "\t \n"),
        lambda text: f"{text}?!",
        lambda text: " ".join(reversed(text.split())),
    ],
)
def test_a_question_stays_together_with_its_other_cases_spacings_and_orders(change: Callable[[str], str]) -> None:
    assert parts_of([change(p) for p in PROMPTS]) == parts_of(PROMPTS)


@pytest.mark.parametrize("other", ["question 1 2", "question", "questio n1", "Question one"])
def test_other_words_are_another_key(other: str) -> None:
    assert split_key(None, other) != split_key(None, "question 1")


def test_questions_without_words_are_told_apart() -> None:
    assert len({split_key(None, text) for text in ("?", "!", "...", "🙂", "")}) == 5


def test_a_group_decides_whatever_is_asked() -> None:
    assert split_key("customer 7", "a") == split_key("customer 7", "b") != split_key("customer 8", "a")
    assert split_key("a", "b") != split_key(None, "a")


@pytest.mark.parametrize(("dev", "test"), [(0.1, 0.2), (0.07, 0.15), (0.5, 0.3), (0.0, 0.2)])
def test_the_shares_are_about_those_asked_for(dev: float, test: float) -> None:
    counts = Counter(divide(np.arange(20_000, dtype=np.uint64), 42, dev, test).tolist())
    assert counts[DEV] / 20_000 == pytest.approx(dev, abs=0.012)
    assert counts[TEST] / 20_000 == pytest.approx(test, abs=0.012)


def test_another_seed_splits_otherwise() -> None:
    moved = sum(a != b for a, b in zip(parts_of(PROMPTS, seed=1), parts_of(PROMPTS, seed=2), strict=True))
    assert 0.3 < moved / len(PROMPTS) < 0.6


def test_a_larger_test_part_keeps_the_rows_it_had() -> None:
    keys = np.arange(2000, dtype=np.uint64)
    small, large = (set(np.flatnonzero(divide(keys, 42, 0.1, test) == TEST)) for test in (0.1, 0.3))
    assert small < large


def test_draws_for_different_purposes_are_not_the_same() -> None:
    keys = np.arange(2000, dtype=np.uint64)
    assert abs(np.corrcoef(draw(keys, 1, "mix"), draw(keys, 1, "weight"))[0, 1]) < 0.1


# --- withholding ----------------------------------------------------------------------------------------------------

PART = {GIVEN_TEST: TEST, GIVEN_DEV: DEV, OWN_TEST: TEST, OWN_DEV: DEV, OWN_TRAIN: TRAIN, GENERAL: TRAIN, IGNORED: TEST}
RANKS = st.lists(st.sampled_from([*PART]), min_size=12, max_size=12)
PAIRS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20)


def withheld(ranks: list[int], pairs: list[tuple[int, int]], keys: list[int] | None = None) -> dict[int, int]:
    """Row -> the row that it was withheld for."""
    found = withhold(
        np.array([PART[rank] for rank in ranks], np.int8),
        np.array(keys or range(len(ranks)), np.uint64),
        np.array(pairs, np.int64).reshape(-1, 2),
        np.array(ranks),
    )
    return {row: partner for row, partner in enumerate(found.tolist()) if partner >= 0}


@pytest.mark.parametrize(
    ("ranks", "pairs", "keys", "expected"),
    [
        ([OWN_TRAIN, OWN_TEST], [], None, {}),
        ([OWN_TRAIN, OWN_TRAIN], [(0, 1)], None, {}),
        ([OWN_TRAIN, OWN_TEST], [(0, 1)], None, {0: 1}),
        ([OWN_DEV, OWN_TRAIN], [(0, 1)], None, {1: 0}),
        ([OWN_TEST, OWN_DEV], [(0, 1)], None, {1: 0}),
        ([OWN_TEST, OWN_TRAIN, OWN_TRAIN, OWN_TRAIN], [(0, 1), (0, 2), (0, 3)], None, {1: 0, 2: 0, 3: 0}),
        ([OWN_TEST, OWN_TRAIN, OWN_TRAIN], [(0, 1), (1, 2)], None, {1: 0}),
        ([OWN_TEST, OWN_DEV, OWN_TRAIN], [(0, 1), (1, 2)], None, {1: 0}),
        ([OWN_TEST, GIVEN_DEV, OWN_TRAIN], [(0, 1), (1, 2)], None, {0: 1, 2: 1}),
        ([GIVEN_DEV, GIVEN_TEST], [(0, 1)], None, {0: 1}),
        ([GENERAL, OWN_TEST], [(0, 1)], None, {0: 1}),
        ([GENERAL, OWN_TRAIN], [(0, 1)], None, {}),
        ([OWN_TRAIN, IGNORED], [(0, 1)], None, {}),
        ([OWN_TRAIN, GIVEN_TEST, OWN_TRAIN], [], [7, 7, 8], {0: 1}),
        ([OWN_TRAIN, OWN_TRAIN, OWN_TEST], [(0, 2)], [7, 7, 8], {0: 2, 1: 2}),
    ],
    ids=str,
)
def test_a_row_yields_to_a_like_row_that_stands_higher(
    ranks: list[int], pairs: list[tuple[int, int]], keys: list[int] | None, expected: dict[int, int]
) -> None:
    assert withheld(ranks, pairs, keys) == expected


@given(RANKS, PAIRS)
def test_no_pair_of_kept_rows_lies_in_two_parts_and_who_yields_yields_to_a_kept_row(
    ranks: list[int], pairs: list[tuple[int, int]]
) -> None:
    gone = withheld(ranks, pairs)
    stays = [row for row in range(12) if row not in gone and ranks[row] != IGNORED]
    assert all(PART[ranks[i]] == PART[ranks[j]] for i, j in pairs if i in stays and j in stays)
    linked = {*pairs, *((j, i) for i, j in pairs)}
    for row, partner in gone.items():
        assert partner in stays and (row, partner) in linked
        assert ranks[partner] < ranks[row] and PART[ranks[partner]] != PART[ranks[row]]


@given(RANKS, PAIRS, st.permutations(range(12)))
def test_the_order_of_rows_changes_nothing_that_is_withheld(
    ranks: list[int], pairs: list[tuple[int, int]], order: list[int]
) -> None:
    place = {old: new for new, old in enumerate(order)}
    moved = withheld([ranks[old] for old in order], [(place[i], place[j]) for i, j in pairs])
    assert {order[row] for row in moved} == set(withheld(ranks, pairs))


@given(RANKS, PAIRS)
def test_a_row_of_the_highest_rank_is_never_withheld_and_added_rows_take_no_test_row_away(
    ranks: list[int], pairs: list[tuple[int, int]]
) -> None:
    own = [rank if rank in (OWN_TEST, OWN_DEV, OWN_TRAIN, GENERAL) else OWN_TRAIN for rank in ranks]
    assert not [row for row in withheld(own, pairs) if own[row] == OWN_TEST]
