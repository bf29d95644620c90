"""What the run will take: tokens exactly, hours and money as a band around a measured machine speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.backends.base import MemoryUse
from runner.data.prepare import Dataset
from runner.errors import Problem, Refused, Where
from runner.plan import Plan

# Share of the matmul rate that training (and reading) and writing are assumed to reach: low, expected, high. Wide on
# purpose; the report puts the actual hours beside the estimate.
TRAIN_EFFICIENCY = (0.25, 0.5, 0.9)
ANSWER_EFFICIENCY = (0.05, 0.12, 0.4)
START_HOURS = 20 / 3600
WITH_EXAMPLES = ("few_shot", "nearest")


@dataclass(frozen=True, kw_only=True)
class Band:
    """A figure that is not known exactly: its low, expected and high value."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Before the run: tokens of all epochs (as if training were not stopped early), of the gate's arms and of the
    evaluation, hours and dollars (None when the price of the machine is unknown)."""

    train_tokens: int
    gate_tokens: int
    evaluation_tokens: int
    hours: Band | None
    usd: Band | None
    matmul_tflops: float | None
    memory: MemoryUse | None


def estimate_cost(
    plan: Plan, dataset: Dataset, measure: Callable[[], float], memory: MemoryUse | None = None
) -> Estimate:
    """Estimates the run; `measure` gives the machine's matmul rate in FLOP/s. Unknown model size: no hours.

    A forward pass takes 2 FLOP per parameter and token; LoRA's backward pass takes the same again (frozen weights
    need no gradient), a full one twice.
    """
    num_tokens = dataset.train_tokens
    train_tokens = round(num_tokens * plan.hyperparameters.passes(len(dataset.train), num_tokens))
    gate, evaluation = gate_work(plan, dataset), evaluation_work(plan, dataset)
    size = plan.model_facts.num_parameters
    tokens = {
        "train_tokens": train_tokens,
        "gate_tokens": round(gate.read + gate.written),
        "evaluation_tokens": round(evaluation.read + evaluation.written),
    }
    if size is None:
        return Estimate(**tokens, hours=None, usd=None, matmul_tflops=None, memory=memory)
    rate = measure()
    passes = 3 if plan.approach == "full" else 2
    read, written = gate.read + evaluation.read, gate.written + evaluation.written
    hours = _band(
        *(
            START_HOURS + 2 * size * ((passes * train_tokens + read) / trained + written / answered) / rate / 3600
            for trained, answered in zip(reversed(TRAIN_EFFICIENCY), reversed(ANSWER_EFFICIENCY), strict=True)
        )
    )
    price = plan.budget.usd_per_hour
    usd = None if price is None else _band(*(price * h for h in (hours.low, hours.expected, hours.high)))
    return Estimate(**tokens, hours=hours, usd=usd, matmul_tflops=rate / 1e12, memory=memory)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Tokens that a model reads and writes."""

    read: float
    written: float

    def __add__(self, other: Work) -> Work:
        return Work(read=self.read + other.read, written=self.written + other.written)


def answers_work(dataset: Dataset, num_rows: int, num_shots: int = 0) -> Work:
    """Answering so many rows, each with examples before it; an un-tuned model may write as much as the longest
    expected answer."""
    row = row_work(dataset)
    read = num_rows * (row.read + num_shots * (row.read + row.written))
    return Work(read=read, written=float(num_rows * dataset.tokens.longest_answer))


def row_work(dataset: Dataset) -> Work:
    """Reading the prompt of a row and writing its expected answer, on average over the rows that are used."""
    tokens = dataset.tokens
    num_rows = sum(number for _, number in tokens.histogram)
    return Work(read=(tokens.total - tokens.labelled) / num_rows, written=tokens.labelled / num_rows)


def with_losses(plan: Plan, dataset: Dataset, work: Work, num_answers: int) -> Work:
    """The same, and so many prompts read again with their expected answers where a metric needs the loss of these."""
    if not {"loss", "perplexity"} & set(plan.eval.metrics):
        return work
    return work + Work(read=work.read + num_answers * row_work(dataset).written, written=0.0)


def gate_work(plan: Plan, dataset: Dataset) -> Work:
    """Every arm on the dev rows."""
    work = Work(read=0.0, written=0.0)
    if plan.gate.policy == "skip":
        return work
    num_rows = min(len(dataset.dev), plan.gate.max_rows)
    for arm in plan.gate.arms:
        work += answers_work(dataset, num_rows, plan.gate.shots if arm in WITH_EXAMPLES else 0)
    return with_losses(plan, dataset, work, num_rows * len(plan.gate.arms))


def evaluation_work(plan: Plan, dataset: Dataset) -> Work:
    """Base, best un-tuned arm (at most one with examples) and tuned on the test rows, their losses, and what was
    forgotten."""
    num_rows, num_sides = len(dataset.test), 2
    work = answers_work(dataset, 2 * num_rows)
    if plan.gate.policy != "skip":
        num_sides += 1
        work += answers_work(dataset, num_rows, plan.gate.shots)
    work = with_losses(plan, dataset, work, num_sides * num_rows)
    return work + FORGETTING if plan.eval.forgetting.measure else work


FORGETTING = Work(read=2 * 6_000.0, written=2 * 2_000.0)  # about 60 probes and 24 passages, on two sides


def work_hours(plan: Plan, estimate: Estimate, work: Work) -> float | None:
    """Expected hours of reading and writing here; None when size or speed is unknown."""
    size, rate = plan.model_facts.num_parameters, estimate.matmul_tflops
    if size is None or rate is None:
        return None
    return 2 * size * (work.read / TRAIN_EFFICIENCY[1] + work.written / ANSWER_EFFICIENCY[1]) / (rate * 1e12) / 3600


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
            length = "epochs" if plan.hyperparameters.max_steps is None else "max_steps"
            fix = f"Lower hyperparameters.{length}, use fewer rows or a smaller model, or raise the budget."
        else:
            continue
        problems.append(Problem(code="budget/exceeded", what=what, where=Where(key=f"budget.{key}"), fix=fix))
    if problems:
        raise Refused(problems)


def _band(*values: float) -> Band:
    low, expected, high = values
    return Band(low=low, expected=expected, high=high)
