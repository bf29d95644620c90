"""Which part a question belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from runner.data.split import part_of
from tests.fakes import question

PROMPTS = [f"question {i}" for i in range(500)]


def part(prompt: str, answer: str = "yes", seed: int = 1) -> str:
    return part_of(question(prompt, answer).question_id, seed, 0.1, 0.2)


def test_the_part_of_a_question_needs_only_the_question_and_the_seed() -> None:
    forwards = {prompt: part(prompt) for prompt in PROMPTS}
    backwards = {prompt: part(prompt) for prompt in reversed([*PROMPTS, "one more", "and more"])}
    assert {prompt: backwards[prompt] for prompt in PROMPTS} == forwards


@pytest.mark.parametrize(
    "change", [str.upper, str.title, lambda text: f"  {text}\n", lambda text: text.replace(" ", "\t \n")]
)
def test_a_question_stays_together_with_its_other_answers_cases_and_spacings(change: Callable[[str], str]) -> None:
    assert [part(change(p), answer="another") for p in PROMPTS] == [part(p) for p in PROMPTS]


@pytest.mark.parametrize(("dev", "test"), [(0.1, 0.2), (0.07, 0.15), (0.5, 0.3)])
def test_the_shares_are_about_those_asked_for(dev: float, test: float) -> None:
    counts = Counter(part_of(f"{i}", 42, dev, test) for i in range(20_000))
    assert counts["dev"] / 20_000 == pytest.approx(dev, abs=0.012)
    assert counts["test"] / 20_000 == pytest.approx(test, abs=0.012)


def test_another_seed_splits_otherwise() -> None:
    moved = sum(part(p, seed=1) != part(p, seed=2) for p in PROMPTS)
    assert 0.3 < moved / len(PROMPTS) < 0.6


def test_a_larger_test_part_keeps_the_rows_it_had() -> None:
    small = {i for i in range(2000) if part_of(f"{i}", 42, 0.1, 0.1) == "test"}
    large = {i for i in range(2000) if part_of(f"{i}", 42, 0.1, 0.3) == "test"}
    assert small < large
