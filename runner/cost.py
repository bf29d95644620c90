"""What the run will take: tokens exactly, hours and money as a band around a measured machine speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.data import Dataset
from runner.errors import Problem, Refused, Where
from runner.plan import Plan

# Share of the matmul rate that training and answering are assumed to reach: low, expected, high. Wide on purpose;
# the report puts the actual hours beside the estimate.
TRAIN_EFFICIENCY = (0.25, 0.5, 0.9)
ANSWER_EFFICIENCY = (0.05, 0.12, 0.4)
START_HOURS = 20 / 3600


@dataclass(frozen=True, kw_only=True)
class Band:
    """A figure that is not known exactly: its low, expected and high value."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Before the run: tokens of all epochs, hours and dollars (None when the price of the machine is unknown)."""

    train_tokens: int
    evaluation_tokens: int
    hours: Band | None
    usd: Band | None
    matmul_tflops: float | None


def estimate_cost(plan: Plan, dataset: Dataset, measure: Callable[[], float]) -> Estimate:
    """Estimates the run; `measure` gives the machine's matmul rate in FLOP/s. Unknown model size: no hours.

    A forward pass takes 2 FLOP per parameter and token; LoRA's backward pass takes the same again (frozen weights
    need no gradient), a full one twice.
    """
    train_tokens = round(dataset.train_tokens * plan.hyperparameters.epochs)
    share = dataset.tokens.total / dataset.ledger.num_used
    evaluation_tokens = round(2 * 2 * len(dataset.test) * share)  # two sides, answered and scored
    size = plan.model_facts.num_parameters
    if size is None:
        return Estimate(
            train_tokens=train_tokens, evaluation_tokens=evaluation_tokens, hours=None, usd=None, matmul_tflops=None
        )
    rate = measure()
    passes = 3 if plan.approach == "full" else 2
    hours = _band(
        *(
            START_HOURS
            + (2 * size * passes * train_tokens / (rate * trained) + 2 * size * evaluation_tokens / (rate * answered))
            / 3600
            for trained, answered in zip(reversed(TRAIN_EFFICIENCY), reversed(ANSWER_EFFICIENCY), strict=True)
        )
    )
    price = plan.budget.usd_per_hour
    usd = None if price is None else _band(*(price * h for h in (hours.low, hours.expected, hours.high)))
    return Estimate(
        train_tokens=train_tokens,
        evaluation_tokens=evaluation_tokens,
        hours=hours,
        usd=usd,
        matmul_tflops=rate / 1e12,
    )


def check_budget(plan: Plan, estimate: Estimate) -> None:
    """Raises Refused when the expected cost is over the budget, or when a budget is set and the cost is unknown."""
    limits = (
        ("max_hours", "hours", plan.budget.max_hours, estimate.hours),
        ("max_usd", "dollars", plan.budget.max_usd, estimate.usd),
    )
    problems = []
    for key, unit, limit, band in limits:
        if limit is None:
            continue
        if band is None:
            unknown = "model's size" if estimate.hours is None else "machine's price"
            what = f"budget.{key} is set, but the cost cannot be estimated: the {unknown} is unknown."
            fix = f"Remove budget.{key}" + (", or give budget.usd_per_hour." if estimate.hours else ".")
        elif band.expected > limit:
            what = f"The run is expected to take {band.expected:.3g} {unit}, more than budget.{key} {limit:g}."
            fix = "Lower hyperparameters.epochs, use fewer rows or a smaller model, or raise the budget."
        else:
            continue
        problems.append(Problem(code="budget/exceeded", what=what, where=Where(key=f"budget.{key}"), fix=fix))
    if problems:
        raise Refused(problems)


def _band(*values: float) -> Band:
    low, expected, high = values
    return Band(low=low, expected=expected, high=high)
