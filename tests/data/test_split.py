"""Which part a row belongs to, and which rows are withheld because their like is elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.near import clusters
from runner.data.split import DEV, GENERAL, GIVEN, IGNORED, OWN, TEST, TRAIN, divide, draw, split_key, withhold
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


def withheld(parts: list[int], pairs: list[tuple[int, int]], rank: list[int] | None = None) -> dict[int, int]:
    """Row -> the row that it was withheld for."""
    links = np.array(pairs, np.int64).reshape(-1, 2)
    ranks = np.array(rank or [OWN] * len(parts))
    found = withhold(np.array(parts, np.int8), clusters(len(parts), links), links, ranks)
    return dict(zip(found.rows.tolist(), found.partners.tolist(), strict=True))


@pytest.mark.parametrize(
    ("parts", "pairs", "rank", "expected"),
    [
        ([TRAIN, TEST], [], None, {}),
        ([TRAIN, TRAIN], [(0, 1)], None, {}),
        ([TRAIN, TEST], [(0, 1)], None, {0: 1}),
        ([DEV, TRAIN], [(0, 1)], None, {1: 0}),
        ([TEST, DEV], [(0, 1)], None, {1: 0}),
        ([TEST, TRAIN, TRAIN], [(0, 1), (1, 2)], None, {0: 1}),
        ([TRAIN, TRAIN, TEST], [(0, 1), (1, 2)], [OWN, OWN, GIVEN], {0: 2, 1: 2}),
        ([TEST, DEV, DEV], [(0, 1), (0, 2)], [GIVEN] * 3, {1: 0, 2: 0}),
        ([TRAIN, TRAIN, TEST], [(0, 2), (1, 2)], [GENERAL, GENERAL, OWN], {0: 2, 1: 2}),
        ([TRAIN, TRAIN], [(0, 1)], [GENERAL, GENERAL], {}),
        ([TRAIN, TEST], [(0, 1)], [OWN, IGNORED], {}),
    ],
    ids=lambda value: str(value),
)
def test_like_rows_are_left_in_one_part_only(
    parts: list[int], pairs: list[tuple[int, int]], rank: list[int] | None, expected: dict[int, int]
) -> None:
    assert withheld(parts, pairs, rank) == expected


@given(st.data())
def test_no_pair_of_kept_rows_lies_in_two_parts_and_no_row_changes_its_part(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 30))
    parts = data.draw(st.lists(st.sampled_from([TRAIN, DEV, TEST]), min_size=size, max_size=size))
    rank = data.draw(st.lists(st.sampled_from([GIVEN, OWN, GENERAL]), min_size=size, max_size=size))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=40))
    gone = withheld(parts, pairs, rank)
    assert all(parts[i] == parts[j] for i, j in pairs if i not in gone and j not in gone)
    assert all(partner not in gone and parts[partner] != parts[row] for row, partner in gone.items())


@given(st.permutations(range(12)), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12))
def test_the_order_of_rows_changes_nothing_that_is_withheld(order: list[int], pairs: list[tuple[int, int]]) -> None:
    parts = [TRAIN, DEV, TEST] * 4
    place = {old: new for new, old in enumerate(order)}
    moved = withheld([parts[old] for old in order], [(place[i], place[j]) for i, j in pairs])
    assert {order[row] for row in moved} == set(withheld(parts, pairs))
