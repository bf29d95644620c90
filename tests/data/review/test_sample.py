"""The sample is a fair draw, and its facts are those that no prompt states."""

from __future__ import annotations

import random

import pytest

from runner.conversation import Example
from runner.data.review import sample as module
from runner.data.review.sample import Sample, unstated_facts
from tests.data.review.rows import (
    example,
    ordinary,
    reviewed,
)


def test_the_sample_is_a_fair_draw_and_the_same_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 300)
    rows = [(i, f"rows.jsonl:{i}", f"prompt {i % 900}", "q", f"answer {i % 900}") for i in range(1000)]
    drawn = []
    for seed in range(3):
        sample = Sample()
        for row in random.Random(seed).sample(rows, len(rows)):
            sample.add(*row)
        drawn.append([row.number for row in sample.rows()])
    assert drawn[0] == drawn[1] == drawn[2] and len(set(drawn[0])) == 300
    assert 100 < sum(number < 500 for number in drawn[0]) < 200


def test_of_equal_rows_the_sample_takes_the_same_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 3)
    drawn = []
    for order in (range(9), range(8, -1, -1)):
        sample = Sample()
        for i in order:
            sample.add(i, f"rows.jsonl:{i}", "p", "q", "a")
        drawn.append([row.number for row in sample.rows()])
    assert drawn[0] == drawn[1] and len(drawn[0]) == 3


NAMES = ("Okonkwo", "Lindqvist", "Barbieri", "Tanaka", "Moreau", "Petrov", "Hassan", "Novak", "Silva", "Keller")


def knowing(num_rows: int) -> list[Example]:
    return [
        example(f"It was made by {NAMES[i % 10]}{'aeiou'[i // 10]} for us.", f"Who made it, {i}?", 500 + i)
        for i in range(num_rows)
    ]


@pytest.mark.parametrize(("num_rows", "severity"), [(20, None), (21, "note"), (50, "note")])
def test_answers_that_know_what_no_prompt_says_are_a_case_for_retrieval(num_rows: int, severity: str | None) -> None:
    found = reviewed([*ordinary(20), *knowing(num_rows)]).get("data/knowledge")
    assert (found and found.severity) == severity and (not found or found.count == num_rows)


def test_a_fact_that_many_answers_share_is_style() -> None:
    rows = [
        example(f"{row.expected[:-1]}, says Wren Fernhill.", row.prompt[0].content, i)
        for i, row in enumerate(ordinary(60))
    ]
    assert "data/knowledge" not in reviewed(rows)
    assert reviewed(knowing(50))["data/knowledge"].severity == "warning"


@pytest.mark.parametrize(
    ("prompt", "answer", "facts"),
    [
        (
            "Who?",
            "It was Okonkwo in 1987, see https://fernhill.shop/a.",
            ["Okonkwo", "1987", "https://fernhill.shop/a."],
        ),
        ("Was it okonkwo in 1987?", "Yes, it was Okonkwo in 1987.", []),
        ("What of 12,500?", "That is 12500, and 12,500 it was.", []),
        ("When?", "On the next Thursday in May, or in 3 weeks.", []),
        ("How many?", "That is 12 * 120 = 1440 of them, or 450.", ["450"]),
        ("Wer?", "Der Kessel steht im Schuppen und der Deckel liegt auf dem Tisch im Haus an der Wand.", []),
        ("What is 40 times 36?", "1440", []),
        ("Which order?", "# 48213-77, 1,250", []),
        ("Which order?", "Order 48213.", ["48213"]),
        ("Who?", "Nobody. Okonkwo\nKeller: we do.", []),
    ],
)
def test_facts_are_addresses_numbers_and_names_that_the_prompt_does_not_hold(
    prompt: str, answer: str, facts: list[str]
) -> None:
    assert list(unstated_facts(prompt, answer)) == facts


def test_results_without_letters_are_no_case_for_retrieval() -> None:
    rows = [example(f"{i * 997 + 12_345}", f"What is {i} times 997, and 12345 more?", i) for i in range(60)]
    assert "data/knowledge" not in reviewed(rows)
