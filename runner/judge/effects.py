"""How much of a preference is length, and how much is formatting."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from runner.judge.verdict import Judgement, Pair

MIN_DECIDED = 10
RIDGE = 0.1  # on the slope alone, so that a preference that follows the feature without exception stays finite
CONFOUNDED = 0.9  # share of one-way pairs won with more of a feature, from which quality cannot be told from it
CLEAR = 3.84  # the likelihood ratio that chance exceeds in 5 % (chi-squared, one degree of freedom)
MARKS = (
    re.compile(r"^ {0,3}#{1,6} ", re.MULTILINE),  # headings
    re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s", re.MULTILINE),  # bullets and numbers
    re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),  # bold
    re.compile(r"^\s*```", re.MULTILINE),  # code fences
    re.compile("[\u2600-\u27bf\u2b50\u2b55\U0001f300-\U0001faff]"),  # emoji
)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A feature's part in the preference for `first`: the win rate as it is, and where both answers have as much of
    the feature; None with the reason where that cannot be told.

    `slope` > 0: more of it wins. `clear`: more than chance. `one_sided`: no pair is balanced and all lean one way, so
    that the adjusted rate is an extrapolation. `confounded`: one side won every pair, nearly always with more of it.
    """

    num_decided: int
    win_rate: float | None
    adjusted_win_rate: float | None
    slope: float | None
    clear: bool
    one_sided: bool
    confounded: bool
    reason: str | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Length in characters, and marks of formatting (headings, bullets, bold, code fences, emoji)."""

    length: Effect
    style: Effect


def effects(judgements: Sequence[Judgement], pairs: Sequence[Pair]) -> Effects:
    """The effects in the pairs that were won or lost; judgements and pairs go together, row by row."""
    decided = [(j.outcome == "win", p) for j, p in zip(judgements, pairs, strict=True) if j.outcome in ("win", "loss")]
    return Effects(
        length=_effect(decided, len, "length", ("longer", "shorter")),
        style=_effect(decided, count_marks, "formatting", ("more formatted", "plainer")),
    )


def count_marks(text: str) -> int:
    """Marks of formatting in a text."""
    return sum(len(pattern.findall(text)) for pattern in MARKS)


def _effect(
    decided: Sequence[tuple[bool, Pair]], feature: Callable[[str], int], name: str, words: tuple[str, str]
) -> Effect:
    wins = np.array([won for won, _ in decided], dtype=float)
    gaps = np.array([feature(pair.first) - feature(pair.second) for _, pair in decided], dtype=float)
    rate = math.fsum(wins) / len(wins) if len(wins) else None
    reason = _no_effect(wins, gaps, name)
    if reason is not None:
        text = f"The effect of {name} is unknown: {reason}."
        return _unknown(len(wins), rate, text, reason, confounded=_led(wins, gaps) >= CONFOUNDED)
    assert rate is not None
    intercept, slope, ratio = fit(np.tanh(gaps / gaps.std()), wins)
    adjusted, clear = 1 / (1 + math.exp(-intercept)), ratio > CLEAR
    one_sided = bool((gaps > 0).all() or (gaps < 0).all())
    told = f"{words[slope < 0]} answers win more often" if clear else "neither kind wins more often"
    text = f"Win rate {100 * rate:.1f} %, at equal {name} {100 * adjusted:.1f} %: {told}."
    if one_sided:
        text += f" One side has more {name} in every pair, so the second figure is an extrapolation."
    return Effect(
        num_decided=len(wins),
        win_rate=rate,
        adjusted_win_rate=adjusted,
        slope=slope,
        clear=clear,
        one_sided=one_sided,
        confounded=False,
        reason=None,
        text=text,
    )


def _unknown(num_decided: int, rate: float | None, text: str, reason: str, *, confounded: bool) -> Effect:
    return Effect(
        num_decided=num_decided,
        win_rate=rate,
        adjusted_win_rate=None,
        slope=None,
        clear=False,
        one_sided=False,
        confounded=confounded,
        reason=reason,
        text=text,
    )


def _led(wins: np.ndarray, gaps: np.ndarray) -> float:
    """The share of pairs won with more of the feature, where one side won all of enough; else 0."""
    one_way = len(wins) >= MIN_DECIDED and bool(wins.min() == wins.max())
    return float(np.mean((gaps > 0) if wins[0] else (gaps < 0))) if one_way else 0.0


def _no_effect(wins: np.ndarray, gaps: np.ndarray, name: str) -> str | None:
    if len(wins) < MIN_DECIDED:
        return f"{len(wins)} pairs were decided; it takes {MIN_DECIDED}"
    if wins.min() == wins.max():
        return f"every decided pair went the same way, and the winner has more {name} in {_led(wins, gaps):.0%} of them"
    if gaps.min() == gaps.max():
        return f"the difference in {name} is the same in every pair"
    return None


def fit(feature: np.ndarray, wins: np.ndarray) -> tuple[float, float, float]:
    """Intercept, slope and likelihood ratio of a logistic regression of `wins` (N,) of 0 and 1 on `feature` (N,).

    AlpacaEval 2's length control in its smallest form: the preference on tanh of the standardised difference.
    """
    signs = 2 * wins - 1

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (weights[0] + weights[1] * feature)
        pull = -signs * np.exp(-np.logaddexp(0, margins))  # of each row on its own margin
        value = np.logaddexp(0, -margins).sum() + RIDGE / 2 * weights[1] ** 2
        return float(value), np.array([pull.sum(), (pull * feature).sum() + RIDGE * weights[1]])

    found = optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS")
    rate = wins.mean()
    nothing = -len(wins) * float(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    return float(found.x[0]), float(found.x[1]), 2 * (nothing - float(found.fun))
