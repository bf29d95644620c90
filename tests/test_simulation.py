"""The verdict is honest: 2,000 simulated evaluations of known truth for each world, judged by the public functions.

`scripts/simulate_verdicts.py` prints the same for more worlds and numbers of rows.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runner.stats import Interval, mean_interval

SCRIPT = Path(__file__).parents[1] / "scripts" / "simulate_verdicts.py"
NUM_ROWS, EVALUATIONS, RESAMPLES, SEED = 60, 2000, 1000, 1
NAMES = ["binary .50", "skewed .25", "binary .50, groups"]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


script = load_script()
WORLDS = {world.name: world for world in script.WORLDS}


def simulate(name: str, gain: float, evaluations: int = EVALUATIONS, **options: Any) -> Any:
    world = WORLDS[name]
    return script.simulate(world, NUM_ROWS, gain, evaluations=evaluations, resamples=RESAMPLES, seed=SEED, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_without_a_true_gain_few_are_called_improved_and_intervals_hold_the_truth(name: str) -> None:
    outcome = simulate(name, 0)
    assert outcome.improved_by_margin <= outcome.improved <= 0.025
    assert outcome.improved >= 0.01  # not bought with intervals that are far too wide
    assert 0.93 <= outcome.covered <= 0.97
    assert 0.93 <= outcome.arm_covered <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_minimum_detectable_gain_is_found_and_its_interval_holds_the_truth(name: str) -> None:
    gain = script.detectable_gain(WORLDS[name], NUM_ROWS, 0)
    outcome = simulate(name, gain)
    assert outcome.improved >= 0.75
    assert 0.93 <= outcome.covered <= 0.97


@pytest.mark.slow
def test_rows_of_a_group_taken_for_independent_break_the_promise() -> None:
    def without_groups(values: Sequence[float], *, groups: Sequence[str], **options: Any) -> Interval:
        return mean_interval(values, **options)

    outcome = simulate("binary .50, groups", 0, evaluations=400, method=without_groups)
    assert outcome.covered < 0.90 and outcome.improved > 0.03
