"""Are the verdicts honest? Simulated evaluations of known truth, judged by the same functions that judge real ones.

    python scripts/simulate_verdicts.py [--evaluations 2000] [--resamples 2000] [--only binary] [--seed 1]

Each line is one world at one number of test rows. Columns, in percent of the simulated evaluations:

    improved 0      called `improved` at margin 0 though there is no true gain          bar: at most 2.5
    improved m      the same at margin 0.05                                              bar: at most 2.5
    at margin       called `improved` at margin 0.05 with a true gain of just 0.05       (least favourable; nominal 2.5)
    cover 0/m/d     the 95 % interval of the gain holds the truth: no gain, a gain of 0.05, the detectable gain
    cover arm       the 95 % interval of one side's own mean holds the truth             bars of coverage: 93 to 97
    power 0/m       called `improved` at a true gain of minimum_detectable, margin 0 and 0.05   bar: at least 75

`rare` is the share of evaluations without a gain in which fewer than six clusters differ: there the interval is an
exact bound, which covers more than 95 % and finds less, on purpose. A star marks a figure outside its bar, a dash a
gain that the world does not allow. The figures carry noise of their own: 0.35 points at 2.5 %, 0.5 at 95 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from runner.stats import Interval, effective_rows, judge, mean_interval, minimum_detectable  # noqa: E402

Array = NDArray[np.float64]
MARGIN = 0.05
NUM_ROWS = (30, 60, 120)
GROUP_SIZES = (1, 1, 2, 3, 4, 7)
HEADS = (
    *("improved 0", "improved m", "at margin", "cover 0", "cover m", "cover d"),
    *("cover arm", "power 0", "power m", "rare"),
)
GAIN_BOUNDS, ARM_BOUNDS = (-1.0, 1.0), (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class World:
    """Where scores come from. Each side has a normal latent value per row; the two correlate by `correlation`, share
    `icc` of their variance with their group, and `score(quantile, mean)` turns them into scores in [0, 1]. In a share
    `alike` of rows both sides give the same answer."""

    name: str
    base_mean: float
    score: Callable[[Array, float], Array]
    correlation: float
    groups: bool = False
    icc: float = 0.5
    alike: float = 0.0

    def group_names(self, num_rows: int) -> list[str]:
        """Groups of unequal size, or none."""
        if not self.groups:
            return []
        names = [f"{turn}-{group}" for turn in range(num_rows) for group, m in enumerate(GROUP_SIZES) for _ in range(m)]
        return names[:num_rows]

    def sample(self, rng: np.random.Generator, num_rows: int, gain: float) -> tuple[Array, Array]:
        """Scores (num_rows,) of base and tuned, whose true means differ by `gain`."""
        latent = self._pair(rng, num_rows)
        if self.groups:
            _, group = np.unique(self.group_names(num_rows), return_inverse=True)
            shared = self._pair(rng, int(group.max()) + 1)[:, group]
            latent = np.sqrt(1 - self.icc) * latent + np.sqrt(self.icc) * shared
        if self.alike:
            latent[1] = np.where(rng.random(num_rows) < self.alike, latent[0], latent[1])
        base, tuned = special.ndtr(latent)
        return self.score(base, self.base_mean), self.score(tuned, self.base_mean + gain)

    def _pair(self, rng: np.random.Generator, num: int) -> Array:
        base, own = rng.normal(size=(2, num))
        return np.stack([base, self.correlation * base + np.sqrt(1 - self.correlation**2) * own])


def right_or_wrong(quantile: Array, mean: float) -> Array:
    """Scores of 0 and 1; latent values that correlate by 0.7 give scores that correlate by about 0.5."""
    return (quantile < mean).astype(float)


def skewed(quantile: Array, mean: float) -> Array:
    """Scores like chrF: Beta(4 mean, 4 (1 - mean)), at a mean of 0.25 with most of them low and a long tail."""
    return np.asarray(special.betaincinv(4 * mean, 4 * (1 - mean), quantile))


WORLDS = (
    World(name="binary .50", base_mean=0.5, score=right_or_wrong, correlation=0.7),
    World(name="binary .20", base_mean=0.2, score=right_or_wrong, correlation=0.7),
    World(name="binary .80", base_mean=0.8, score=right_or_wrong, correlation=0.7),
    World(name="binary .95", base_mean=0.95, score=right_or_wrong, correlation=0.7),
    World(name="skewed .25", base_mean=0.25, score=skewed, correlation=0.5),
    World(name="skewed .25, 80 % alike", base_mean=0.25, score=skewed, correlation=0.5, alike=0.8),
    World(name="binary .50, groups", base_mean=0.5, score=right_or_wrong, correlation=0.7, groups=True),
    World(name="skewed .25, groups", base_mean=0.25, score=skewed, correlation=0.5, groups=True),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Shares of simulated evaluations at one true gain: called `improved` at margin 0 and at MARGIN, covered by the
    interval of the gain and (measured only without a gain) by that of one side's mean, and with fewer than six clusters
    that differ."""

    improved: float
    improved_by_margin: float
    covered: float
    arm_covered: float
    rare: float


Method = Callable[..., Interval]


def simulate(
    world: World,
    num_rows: int,
    gain: float,
    *,
    evaluations: int,
    resamples: int,
    seed: int,
    method: Method = mean_interval,
) -> Outcome:
    """Draw evaluations of known true gain and judge each by `method`."""
    rng, groups = np.random.default_rng(seed), world.group_names(num_rows)
    counts = np.zeros(5)
    for number in range(evaluations):
        base, tuned = world.sample(rng, num_rows, gain)
        with_draws = {"groups": groups, "seed": number, "resamples": resamples}
        found = method(tuned - base, bounds=GAIN_BOUNDS, **with_draws)
        arm = found if gain else method(tuned, bounds=ARM_BOUNDS, **with_draws)
        counts += (
            judge(found, 0) == "improved",
            judge(found, MARGIN) == "improved",
            _holds(found, gain),
            _holds(arm, gain or world.base_mean),
            _num_differing(tuned - base, groups) < 6,
        )
    return Outcome(**dict(zip(Outcome.__dataclass_fields__, counts / evaluations, strict=True)))


def detectable_gain(world: World, num_rows: int, margin: float) -> float | None:
    """The stated minimum detectable gain, or None when the world has no room for it."""
    gain = minimum_detectable(effective_rows(world.group_names(num_rows), num_rows), margin)
    return gain if gain is not None and world.base_mean + gain < 1 else None


def _holds(interval: Interval, truth: float) -> bool:
    low, high = interval.low, interval.high
    return low is not None and high is not None and low - 1e-9 <= truth <= high + 1e-9


def _num_differing(differences: Array, groups: list[str]) -> int:
    return len({groups[i] if groups else i for i in np.flatnonzero(np.abs(differences) > 1e-9)})


def _cell(value: float | None, low: float = 0.0, high: float = 1.0) -> str:
    if value is None:
        return f"{'-':>7}"
    return f"{100 * value:6.1f}" + (" " if low <= value <= high else "*")


def _line(world: World, num_rows: int, evaluations: int, resamples: int, seed: int) -> str:
    def at(gain: float | None) -> Outcome | None:
        if gain is None or world.base_mean + gain >= 1:
            return None
        return simulate(world, num_rows, gain, evaluations=evaluations, resamples=resamples, seed=seed)

    none, margin = at(0.0), at(MARGIN)
    found, clear = (at(detectable_gain(world, num_rows, m)) for m in (0, MARGIN))
    assert none is not None
    cells = [
        _cell(none.improved, high=0.025),
        _cell(none.improved_by_margin, high=0.025),
        _cell(margin and margin.improved_by_margin),
        *(_cell(outcome and outcome.covered, 0.93, 0.97) for outcome in (none, margin, found)),
        _cell(none.arm_covered, 0.93, 0.97),
        _cell(found and found.improved, low=0.75),
        _cell(clear and clear.improved_by_margin, low=0.75),
        _cell(none.rare),
    ]
    return f"{world.name:24}{num_rows:5}" + "".join(f"{cell:>11}" for cell in cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000, help="real evaluations take 10,000")
    parser.add_argument("--only", default="", help="worlds whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"{'world':24}{'rows':>5}" + "".join(f"{head:>11}" for head in HEADS))
    for world in WORLDS:
        for num_rows in NUM_ROWS if args.only in world.name else ():
            print(_line(world, num_rows, args.evaluations, args.resamples, args.seed), flush=True)


if __name__ == "__main__":
    main()
