"""The guide's decision tables, as checks that give findings with reasons. They are free, and come first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from runner.backends.base import Hyperparameters
from runner.errors import Problem, Where
from runner.plan import GatePlan, Plan
from runner.plan.training import SMALL_MODEL


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """What tuning does for a kind of task: rows it takes, and what to try instead where tuning is the wrong tool."""

    minimum: int
    recommended: int
    reason: str
    instead: Literal["try_retrieval", "try_prompting"] | None = None
    fix: str = ""


TASKS: dict[str, TaskKind] = {
    "style": TaskKind(minimum=50, recommended=200, reason="a consistent voice at scale is what tuning is good at"),
    "format": TaskKind(
        minimum=100, recommended=500, reason="a structure that the model misses is learnt from examples"
    ),
    "jargon": TaskKind(minimum=200, recommended=1000, reason="terms that the model misuses are learnt from examples"),
    "latency": TaskKind(minimum=100, recommended=500, reason="a learnt task needs a shorter prompt"),
    "cost": TaskKind(minimum=100, recommended=500, reason="a learnt task needs a shorter prompt or a smaller model"),
    "knowledge": TaskKind(
        minimum=200,
        recommended=1000,
        reason="tuning teaches behaviour; facts learnt this way are recalled badly and cannot be updated",
        instead="try_retrieval",
        fix="Put the facts into the prompt by retrieval. If this is about behaviour after all, set gate.task.",
    ),
    "reasoning": TaskKind(
        minimum=500,
        recommended=2000,
        reason="reasoning gains more from worked steps in the prompt or from a stronger model",
        instead="try_prompting",
        fix="Try worked steps in the prompt, or a stronger model, first.",
    ),
}

USUAL: dict[str, dict[str, tuple[float, float]]] = {
    "adapter": {"epochs": (1, 3), "batch_size": (4, 16), "rank": (8, 64), "dropout": (0, 0.1)},
    "full": {"epochs": (1, 2), "batch_size": (16, 64)},
}
USUAL_RATE: dict[str, dict[str, tuple[float, float]]] = {
    "adapter": {"large": (1e-4, 2e-4), "small": (1e-4, 2e-3)},
    "full": {"large": (1e-5, 5e-5), "small": (1e-5, 5e-4)},
}
MIN_TEST, GOOD_TEST = 20, 50


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """What there is to learn from and to test on: different own rows among those trained on, the rows trained on as
    often as they count, their tokens, and the test rows."""

    num_own: int
    num_train: int
    train_tokens: int
    num_test: int


def static_findings(plan: Plan, rows: RowCounts) -> tuple[Problem, ...]:
    """What speaks for and against tuning before anything is spent; an error is a no."""
    return (
        *_task_findings(plan.gate, rows.num_own),
        *_test_findings(rows.num_test),
        *_range_findings(plan, rows),
    )


def _task_findings(gate: GatePlan, num_train: int) -> Iterator[Problem]:
    task = TASKS[gate.task]
    if task.instead:
        yield Problem(
            code="gate/wrong-tool",
            what=f"The task is '{gate.task}': {task.reason}.",
            where=Where(key="gate.task"),
            fix=task.fix,
        )
    else:
        yield Problem(code="gate/task", what=f"The task is '{gate.task}': {task.reason}.", severity="note")
    if num_train < task.minimum:
        yield Problem(
            code="gate/too-few-rows",
            what=f"{num_train} rows to train on; '{gate.task}' takes at least {task.minimum}.",
            where=Where(key="data.train"),
            fix=f"Collect {task.minimum - num_train} more, or put a few examples into the prompt instead.",
        )
    elif num_train < task.recommended:
        yield Problem(
            code="gate/few-rows",
            what=f"{num_train} rows to train on; '{gate.task}' is better with {task.recommended} or more.",
            where=Where(key="data.train"),
            fix="Expect a gain, and a larger one with more rows.",
            severity="warning",
        )


def _test_findings(num_test: int) -> Iterator[Problem]:
    if num_test >= GOOD_TEST:
        return
    too_few = num_test < MIN_TEST
    yield Problem(
        code="gate/too-few-test-rows" if too_few else "gate/few-test-rows",
        what=f"{num_test} test rows give "
        + ("no usable verdict." if too_few else "a wide interval: only a large gain can be shown."),
        where=Where(key="data.split.test"),
        fix=f"Hold out at least {GOOD_TEST} (raise data.split.test, or add rows).",
        severity="error" if too_few else "warning",
    )


def _range_findings(plan: Plan, rows: RowCounts) -> Iterator[Problem]:
    method = "full" if plan.approach == "full" else "adapter"
    size = plan.model_facts.num_parameters
    usual = {**USUAL[method], "learning_rate": _usual_rate(method, size)}
    for key, value, what in _judged(plan.hyperparameters, rows):
        low, high = usual.get("epochs" if key == "max_steps" else key, (value, value))
        if not low <= value <= high:
            yield Problem(
                code="gate/unusual",
                what=f"{what} is outside the usual {low:g} to {high:g} for {plan.approach}.",
                where=Where(key=f"hyperparameters.{key}"),
                fix="Nothing, if it is on purpose.",
                severity="warning",
            )
    if size is None:
        yield Problem(
            code="gate/unknown-size",
            what="The model's size is unknown before it is loaded, so its learning rate was judged as of any size.",
            where=Where(key="approach.model"),
            severity="note",
        )


def _judged(hyper: Hyperparameters, rows: RowCounts) -> Iterator[tuple[str, float, str]]:
    """Keys that have a usual range, each with what is held against it and how that is called."""
    if hyper.max_steps is not None:
        passes = hyper.passes(rows.num_train, rows.train_tokens)
        yield "max_steps", passes, f"max_steps {hyper.max_steps} ({passes:.3g} passes over the rows)"
    keys = ["learning_rate", "rank", "dropout"]
    keys += ["epochs"] if hyper.max_steps is None else []
    keys += ["batch_size"] if hyper.batch_tokens is None else []  # no usual range is known in tokens
    for key in keys:
        yield key, getattr(hyper, key), f"{key} {getattr(hyper, key):g}"


def _usual_rate(method: str, size: int | None) -> tuple[float, float]:
    """The usual learning rates for a model's size; for an unknown one, those of every size."""
    rates = USUAL_RATE[method]
    if size is not None:
        return rates["small" if size < SMALL_MODEL else "large"]
    lows, highs = zip(*rates.values(), strict=True)
    return min(lows), max(highs)
