"""Tests of paired rows, and the agreement of two raters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from runner.stats.clusters import cluster_rows, float_noise


@dataclass(frozen=True, kw_only=True)
class SignTest:
    """Clusters won, lost and tied, and the exact two-sided p-value of the decided ones (1 when there are none)."""

    wins: int
    losses: int
    ties: int
    p_value: float


def sign_test(differences: Sequence[float], *, groups: Sequence[str | None] = ()) -> SignTest:
    """The exact two-sided sign test by cluster; a cluster's sign is that of its summed differences, ties apart."""
    noise = float_noise(differences)
    clusters = cluster_rows(groups, len(differences))
    sums = [math.fsum(differences[row] for row in rows) for rows in clusters]
    wins, losses = sum(s > noise for s in sums), sum(s < -noise for s in sums)
    p_value = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return SignTest(wins=wins, losses=losses, ties=len(sums) - wins - losses, p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979), in the order given; at most 1 and never falling with p."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def cohens_kappa(a: Sequence[str], b: Sequence[str]) -> float | None:
    """Agreement of two raters beyond chance (Cohen 1960), at most 1; None without rows, or where both gave one and the
    same label throughout, so that chance alone explains all. Raises ValueError on unequal lengths."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} labels against {len(b)}")
    ours, theirs = Counter(a), Counter(b)
    square = len(a) ** 2
    by_chance = sum(ours[label] * theirs[label] for label in ours)  # whole numbers, so that equality is exact
    if by_chance == square:
        return None
    agreed = len(a) * sum(x == y for x, y in zip(a, b, strict=True))
    return (agreed - by_chance) / (square - by_chance)
