"""The part of length and formatting in a preference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from runner.judge import Effects, Pair, comparison_findings, effects
from runner.judge.effects import RIDGE, count_marks, fit
from tests.judge.scripted import PLAN, FakeChat, judged, longer_wins, marks, pair


def measured(texts: Sequence[tuple[str, str]], outcomes: Sequence[str]) -> Effects:
    """Effects where a judge said these outcomes."""
    pairs = [pair(i, a, b) for i, (a, b) in enumerate(texts)]
    said = {p.id: (5, 1) if outcome == "win" else (1, 5) for p, outcome in zip(pairs, outcomes, strict=True)}

    def script(shown: object) -> str:
        number = shown.task.split()[-1]  # type: ignore[attr-defined]
        first = texts[int(number)][0]
        x, y = said[f"row {number}"]
        return marks(x, y) if shown.a == first else marks(y, x)  # type: ignore[attr-defined]

    return effects(judged(script, pairs).judgements, pairs)


def lengths(gaps: Sequence[int]) -> list[tuple[str, str]]:
    return [("x" * (200 + gap), "y" * 200) for gap in gaps]


def test_a_judge_that_prefers_the_longer_is_found_out() -> None:
    random = Random(0)
    pairs: list[Pair] = [pair(i, "x" * random.randint(10, 200), "y" * random.randint(10, 120)) for i in range(60)]
    found = effects(judged(FakeChat(script=longer_wins), pairs).judgements, pairs).length
    assert found.win_rate is not None and found.win_rate > 0.6 and found.clear
    assert found.slope is not None and found.slope > 0 and math.isfinite(found.slope)
    assert found.adjusted_win_rate == pytest.approx(0.5, abs=0.12)
    assert "longer answers win more often" in found.text and f"{100 * found.win_rate:.1f} %" in found.text


def test_a_judge_that_prefers_the_shorter_has_the_other_sign() -> None:
    gaps = [*range(-60, 0, 6), *range(6, 66, 6)]
    found = measured(lengths(gaps), ["loss" if gap > 0 else "win" for gap in gaps]).length
    assert found.slope is not None and found.slope < 0 and "shorter answers win more often" in found.text


def test_a_judge_that_ignores_length_keeps_its_win_rate() -> None:
    gaps = [*range(-60, 0, 6), *range(6, 66, 6)] * 3
    won = [i % 4 != 0 for i in range(len(gaps))]
    found = measured(lengths(gaps), ["win" if w else "loss" for w in won]).length
    assert found.win_rate == 0.75 and not found.clear and "neither kind wins more often" in found.text
    assert found.adjusted_win_rate == pytest.approx(0.75, abs=0.03)


def test_swapping_the_sides_mirrors_the_effects() -> None:
    random = Random(5)
    texts = [("x" * random.randint(1, 90), "**y** " * random.randint(1, 20)) for _ in range(40)]
    said = [random.choice(["win", "win", "loss"]) for _ in texts]
    there = measured(texts, said)
    back = measured([(b, a) for a, b in texts], ["loss" if s == "win" else "win" for s in said])
    for one, other in ((there.length, back.length), (there.style, back.style)):
        assert one.win_rate is not None and other.win_rate == pytest.approx(1 - one.win_rate)
        assert one.adjusted_win_rate is not None
        assert other.adjusted_win_rate == pytest.approx(1 - one.adjusted_win_rate, abs=1e-5)
        assert other.slope == pytest.approx(one.slope, abs=1e-4) and other.clear == one.clear


def test_formatting_is_told_apart_from_length() -> None:
    random = Random(2)
    texts = []
    for _ in range(60):
        plain = ["word " * random.randint(20, 40) for _ in range(2)]
        texts.append((f"# Title\n- {plain[0]}", plain[1]) if random.random() < 0.6 else (plain[0], f"- {plain[1]}"))
    found = measured(texts, ["win" if count_marks(a) > count_marks(b) else "loss" for a, b in texts])
    assert found.style.clear and found.style.slope is not None and found.style.slope > 0
    assert "more formatted answers win more often" in found.style.text and not found.length.clear


@pytest.mark.parametrize("num", [0, 9])
def test_too_few_decided_pairs_give_no_effect(num: int) -> None:
    found = measured(lengths(range(1, num + 1)), ["win", "loss"] * 4 + ["win"] if num else []).length
    assert (found.adjusted_win_rate, found.slope, found.num_decided) == (None, None, num)
    assert found.reason == f"{num} pairs were decided; it takes 10" and found.reason in found.text


def test_no_variation_gives_no_effect() -> None:
    all_won = measured(lengths(range(1, 21)), ["win"] * 20).length
    assert all_won.win_rate == 1 and all_won.adjusted_win_rate is None and "same way" in str(all_won.reason)
    all_alike = measured([(f"x{i:03}", f"y{i:03}") for i in range(20)], ["win", "loss"] * 10)
    assert "difference in length is the same" in str(all_alike.length.reason)
    assert "difference in formatting is the same" in str(all_alike.style.reason)


def test_an_extrapolation_is_called_one() -> None:
    said = ["win", "loss", "win", "win"] * 5
    one_sided = measured(lengths(range(10, 30)), said).length
    assert one_sided.one_sided and "extrapolation" in one_sided.text
    balanced = measured(lengths(range(-5, 15)), said).length
    assert not balanced.one_sided and "extrapolation" not in balanced.text


def test_ties_and_unscored_rows_are_left_out() -> None:
    pairs = [pair(i, "x" * (i + 1), "y") for i in range(20)]
    chat = FakeChat(script=lambda shown: marks(3, 3) if "1" in shown.task else "rubbish")
    assert effects(judged(chat, pairs).judgements, pairs).length.num_decided == 0


def test_the_regression_is_at_its_optimum() -> None:
    random = np.random.default_rng(0)
    x = np.tanh(random.normal(size=300))
    y = (random.random(300) < 1 / (1 + np.exp(-(0.4 + 1.5 * x)))).astype(float)
    intercept, slope, ratio = fit(x, y)
    p = 1 / (1 + np.exp(-(intercept + slope * x)))
    assert (p - y).sum() == pytest.approx(0, abs=1e-3)
    assert ((p - y) * x).sum() + RIDGE * slope == pytest.approx(0, abs=1e-3)
    assert intercept == pytest.approx(0.4, abs=0.4) and slope == pytest.approx(1.5, abs=0.6) and ratio > 10


def test_chance_is_called_clear_in_about_one_case_of_twenty() -> None:
    random = np.random.default_rng(1)
    clear = [fit(np.tanh(random.normal(size=60)), random.permutation([0.0, 1.0] * 30))[2] > 3.84 for _ in range(300)]
    assert 0.02 <= np.mean(clear) <= 0.09


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ("", 0),
        ("plain - text, 2. not a list * here # nor here", 0),
        ("# One\n### Two\n#three", 2),
        ("- a\n* b\n• c\n  1. d\n2) e", 5),
        ("**bold** and __bold__ and *not*", 2),
        ("```python\nx = 1\n```", 2),
        ("Well done 🎉✅", 2),
        ("日本語の答え", 0),
        ("* " * 100_000, 1),
        ("**" * 100_000, 0),
    ],
)
def test_marks_of_formatting_are_counted(text: str, num: int) -> None:
    assert count_marks(text) == num


@pytest.mark.parametrize(("longer", "told"), [(20, True), (17, False)])
def test_a_side_that_wins_every_pair_with_the_longer_answer_is_told_as_length(longer: int, told: bool) -> None:
    texts = [("x" * (9 if i < longer else 1) + str(i), "x" * 5 + str(i)) for i in range(20)]
    found = measured(texts, ["win"] * 20)
    assert found.length.confounded == told
    nothing = judged(longer_wins, [])
    assert ("judge/length-effect" in [f.code for f in comparison_findings(PLAN, nothing, found)]) == told
