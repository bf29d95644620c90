"""Which texts are near-duplicates, and that neither their order, their number nor their oddity matters."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.near import NUM_PASSES, clusters, near_duplicates

Words = list[str]
Edit = Callable[[Words, random.Random], Words]

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
VOCABULARY = sorted({"".join(random.Random(i).choices(SYLLABLES, k=2 + i % 3)) for i in range(2000)})
PRODUCTS, FAULTS, WISHES = VOCABULARY[:60], VOCABULARY[100:130], VOCABULARY[200:212]
INSTRUCTION = (
    "Classify the following customer ticket into one of the categories billing, delivery, damaged, return or "
    "question, and answer with the name of the category only. Ticket:"
)


def pairs_of(texts: list[str], num_batches: int = 1) -> list[tuple[int, int]]:
    size = -(-len(texts) // num_batches)
    batches = [pa.array(texts[i : i + size], pa.string()) for i in range(0, len(texts), max(size, 1))]
    return [(i, j) for i, j in near_duplicates(batches).tolist()]


def sentence(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=rng.randint(low, high))).capitalize() + "."


def order(rng: random.Random) -> str:
    slots = f"my {rng.choice(PRODUCTS)} arrived {rng.choice(FAULTS)}, please {rng.choice(WISHES)}."
    return f"Order {rng.randint(1000, 9999)}: {slots} {sentence(rng, 8, 20)}"


def sum_question(rng: random.Random) -> str:
    return f"What is {rng.randint(1, 999)} {rng.choice(['plus', 'minus', 'times'])} {rng.randint(1, 999)}?"


def template(rng: random.Random) -> str:
    number = rng.randrange(10)
    fixed = VOCABULARY[300 + 20 * number : 320 + 20 * number]
    return " ".join([*fixed[:4], rng.choice(PRODUCTS), *fixed[4:8], rng.choice(FAULTS), *fixed[8:12], "?"])


ROWS: dict[str, Callable[[random.Random], str]] = {
    "short": lambda rng: sentence(rng, 8, 14),
    "middling": lambda rng: sentence(rng, 12, 60),
    "long": lambda rng: sentence(rng, 100, 200),
    "orders": order,
    "instruction": lambda rng: f"{INSTRUCTION} {sentence(rng, 10, 30)}",
    "templates": lambda rng: f"{template(rng)} {sentence(rng, 8, 16)}",
}


def exchanged(words: Words, rng: random.Random) -> Words:
    places = rng.sample(range(len(words)), rng.choice([2, 3]))
    moved = dict(zip(places, [words[i] for i in places[1:] + places[:1]], strict=True))
    return [moved.get(i, word) for i, word in enumerate(words)]


def replaced(words: Words, rng: random.Random) -> Words:
    places = set(rng.sample(range(len(words)), rng.randint(1, 3)))
    return [rng.choice(VOCABULARY) if i in places else word for i, word in enumerate(words)]


def recased(words: Words, rng: random.Random) -> Words:
    return [rng.choice([str.upper, str.title, str.swapcase])(word) for word in words]


def repunctuated(words: Words, rng: random.Random) -> Words:
    return [word.strip(".,?:") + rng.choice(["", "", "", ",", "!", " -", "..."]) for word in words]


def with_another_clause(words: Words, rng: random.Random) -> Words:
    if len(words) < 12:
        return replaced(words, rng)
    size = rng.randint(3, min(6, len(words) // 3))
    start = rng.randint(0, len(words) - size)
    return words[:start] + rng.choices(VOCABULARY, k=size + rng.randint(-1, 1)) + words[start + size :]


def all_at_once(words: Words, rng: random.Random) -> Words:
    return repunctuated(recased(exchanged(words, rng), rng), rng)


EDITS: list[Edit] = [exchanged, replaced, recased, repunctuated, with_another_clause, all_at_once]


@pytest.mark.parametrize("kind", ROWS)
def test_planted_near_duplicates_are_found_and_clean_rows_are_not(kind: str) -> None:
    found, flagged, num_rows, num_planted = 0, 0, 0, 0
    for seed in range(2):
        rng = random.Random(seed)
        rows = [ROWS[kind](rng) for _ in range(300 if kind == "long" else 1500)]
        fixed = len(INSTRUCTION.split()) if kind == "instruction" else 0
        origins = rng.sample(range(len(rows)), len(rows) // 10)
        twins = []
        for i, origin in enumerate(origins):
            words = rows[origin].split()
            twins.append(" ".join(words[:fixed] + EDITS[i % len(EDITS)](words[fixed:], rng)))
        pairs = np.array(pairs_of(rows + twins)).reshape(-1, 2)
        cluster = clusters(len(rows) + len(twins), pairs)
        found += int((cluster[origins] == cluster[len(rows) :]).sum())
        flagged += len(np.unique(pairs[pairs[:, 1] < len(rows)]))
        num_rows += len(rows)
        num_planted += len(origins)
    assert found >= 0.99 * num_planted
    assert flagged < 0.01 * num_rows


@pytest.mark.parametrize("row", [sum_question, template])
def test_rows_that_only_fill_the_slots_of_a_template_are_not_near_duplicates(row: Callable[..., str]) -> None:
    rng = random.Random(3)
    rows = sorted({row(rng) for _ in range(4000)})
    assert len(np.unique(pairs_of(rows))) < 0.01 * len(rows)


def test_the_same_text_in_another_spelling_is_a_repeat() -> None:
    texts = [
        "How do I reset it?",
        "how do i   reset it",
        "HOW DO I RESET IT!!",
        "Ｈow do I “reset” it…",
        "Wie geht das?",
    ]
    assert pairs_of(texts) == [(0, 1), (0, 2), (0, 3)]


def test_what_cannot_be_read_aloud_still_differs() -> None:
    assert pairs_of(["3 + 4", "3 - 4", "3 * 4", "3 / 4", "3 < 4"]) == []
    assert pairs_of(["???", "!!!", "", " ", "\n", "😀", "😢", "? ??"]) == [(0, 7), (2, 3), (2, 4)]


def test_texts_without_spaces_are_compared_by_character() -> None:
    rng = random.Random(5)
    rows = ["".join(chr(rng.randint(0x4E00, 0x5200)) for _ in range(30)) for _ in range(300)]
    assert pairs_of([*rows, rows[7][:10] + "新的句子" + rows[7][14:]]) == [(7, 300)]


def test_the_shipped_tickets_have_next_to_no_near_duplicates(shipped_tickets: list[str]) -> None:
    assert len(np.unique(pairs_of(shipped_tickets))) < 0.01 * len(shipped_tickets)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(40)), num_batches=st.integers(1, 7))
def test_the_order_of_the_rows_and_the_cuts_between_batches_do_not_matter(order: list[int], num_batches: int) -> None:
    texts = SOME
    expected = {frozenset((texts[i], texts[j])) for i, j in pairs_of(texts)}
    moved = [texts[i] for i in order]
    assert {frozenset((moved[i], moved[j])) for i, j in pairs_of(moved, num_batches)} == expected
    assert len(expected) >= 10


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(max_size=60), max_size=12))
def test_any_texts_are_compared_without_complaint(texts: list[str]) -> None:
    pairs = pairs_of(texts)
    assert pairs == sorted(set(pairs))
    assert all(0 <= i < j < len(texts) for i, j in pairs)
    first = {text: texts.index(text) for text in texts}
    labels = clusters(len(texts), np.array(pairs, np.int64).reshape(-1, 2))
    assert all(labels[i] == labels[first[text]] for i, text in enumerate(texts))


def test_doubling_the_rows_adds_one_pair_a_row_and_no_near_duplicate() -> None:
    once, twice = pairs_of(SOME), pairs_of(SOME * 2)
    assert set(once) <= set(twice)
    assert len(twice) == len(once) + len(SOME)
    labels = clusters(2 * len(SOME), np.array(twice))
    assert labels[: len(SOME)].tolist() == labels[len(SOME) :].tolist()


def test_a_text_repeated_many_times_makes_one_pair_a_repeat() -> None:
    rng = random.Random(8)
    started = time.perf_counter()
    pairs = pairs_of([*["Where is my parcel?"] * 20_000, *(sentence(rng, 10, 20) for _ in range(100))])
    assert pairs == [(0, i) for i in range(1, 20_000)]
    assert time.perf_counter() - started < 5


def test_a_word_that_very_many_texts_share_does_not_make_every_pair_a_candidate() -> None:
    rng = random.Random(9)
    texts = [f"{rng.choice(PRODUCTS)} {rng.choice(FAULTS)} {rng.choice(WISHES)} {i}" for i in range(6_000)]
    started = time.perf_counter()
    assert len(pairs_of(texts)) < 60
    assert time.perf_counter() - started < 5


def test_a_very_long_text_finds_its_twin() -> None:
    rng = random.Random(10)
    words = rng.choices(VOCABULARY, k=200_000)
    texts = [" ".join(words), *(sentence(rng, 10, 20) for _ in range(50)), " ".join([*words[:90_000], *words[90_100:]])]
    assert pairs_of(texts) == [(0, 51)]


def test_progress_hears_of_every_text_of_every_reading() -> None:
    heard: list[int] = []
    near_duplicates([pa.array(SOME), pa.array(SOME[:7])], progress=heard.append)
    assert sum(heard) == NUM_PASSES * (len(SOME) + 7)


def test_clusters_join_what_pairs_join() -> None:
    labels = clusters(6, np.array([[0, 2], [2, 5]])).tolist()
    assert labels[0] == labels[2] == labels[5]
    assert len(set(labels)) == 4


def some() -> list[str]:
    """Twenty sentences and an edited twin of each."""
    rng = random.Random(11)
    rows = [sentence(rng, 12, 20) for _ in range(20)]
    return rows + [" ".join(EDITS[i % len(EDITS)](row.split(), rng)) for i, row in enumerate(rows)]


SOME = some()


@pytest.fixture
def shipped_tickets(request: pytest.FixtureRequest) -> list[str]:
    path = request.config.rootpath / "manifests/data/support-tickets.jsonl"
    return [json.loads(line)["prompt"] for line in path.read_text("utf-8").splitlines()]
