"""Rows, plans and arms' figures that the tests of the gate share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runner.backends.base import Endpoint
from runner.conversation import Example
from runner.cost import Band, Estimate
from runner.data.prepare import Dataset
from runner.gate.measure import ArmResult
from runner.plan import OtherModel, Plan
from runner.stats import Interval
from tests.fakes import make_dataset, make_side, make_test_plan, question

ESTIMATE = Estimate(
    train_tokens=1,
    gate_tokens=1,
    evaluation_tokens=1,
    hours=Band(low=1, expected=10, high=100),
    usd=Band(low=10, expected=100, high=1000),
    matmul_tflops=1.0,
    memory=None,
)
FREE = "roi=null"


def rows(part: str, num_rows: int) -> tuple[Example, ...]:
    """Different questions with different answers, under one system prompt; each is a group by itself."""
    return tuple(
        question(f"{part} question {i}", f"{part} answer {i}", system="Be brief.", source=f"{part}.jsonl:{i + 1}")
        for i in range(num_rows)
    )


def dataset(num_dev: int = 30, **changes: Any) -> Dataset:
    """400 rows to train on, 60 to test with, and so many dev rows."""
    parts = {"own": rows("own", 400), "dev": rows("dev", num_dev), "test": rows("test", 60)}
    return make_dataset(400, 60, **{**parts, **changes})


def plan(*overrides: str, models: tuple[OtherModel, ...] = ()) -> Plan:
    """The quickstart's, scored by exact match."""
    made = make_test_plan("eval.metrics=[exact_match]", "gate.target=null", *overrides)
    return replace(made, gate=replace(made.gate, models=models))


def model(name: str = "large", price: float | None = None) -> OtherModel:
    """Another model; `price` is for a million tokens, read or written."""
    endpoint = Endpoint(
        base_url="http://large.test/v1", model=name, usd_per_million_input=price, usd_per_million_output=price
    )
    return OtherModel(name=name, endpoint=endpoint, constrained=False)


def right(data: Dataset, num_right: int | None = None) -> dict[str, str]:
    """The expected answers of the first dev rows."""
    return {row.prompt[-1].content: row.expected for row in data.dev[:num_right]}


def result(
    name: str = "zero_shot",
    mean: float | None = 0.5,
    low: float | None = 0.4,
    high: float | None = 0.6,
    *,
    metric: str = "exact_match",
    usd: float | None = None,
    left_out: str | None = None,
    **changes: Any,
) -> ArmResult:
    """An arm's figures on 60 rows; without a mean none of its answers has a score."""
    interval = None if mean is None else Interval(mean=mean, low=low, high=high)
    unscored = 60 if mean is None else 0
    side = make_side(**{"scores": {metric: interval}, "unscored": {metric: unscored}, **changes})
    return ArmResult(
        name=name,
        kind={"nearest": "retrieval", "large": "model"}.get(name, "prompting"),
        description=name,
        num_shots=3 if name in ("few_shot", "nearest") else 0,
        side=None if left_out else side,
        usd_per_1000=usd,
        price_source="made up",
        left_out=left_out,
    )
