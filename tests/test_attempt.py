"""The identity of a run: what makes another run of it, and what does not."""

from __future__ import annotations

import pytest

from runner.identity import identify
from tests.fakes import quickstart


@pytest.mark.parametrize(
    ("assignment", "is_another"),
    [
        ("description=other words", False),
        ("tracking.wandb=off", False),
        ("budget.max_hours=9", False),
        ("checkpoint={ every_steps: 5, keep: 3 }", False),
        ("budget.usd_per_hour=9", True),
        ("seed=7", True),
        ("hyperparameters.max_length=512", True),
        ("delivery.merge=true", True),
    ],
)
def test_only_what_changes_the_result_makes_another_run(assignment: str, is_another: bool) -> None:
    assert (identify(quickstart(assignment)) != identify(quickstart())) is is_another
