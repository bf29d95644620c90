"""Every arm on the same dev rows: scores with intervals, tokens, seconds and dollars, under a cap."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.answerer import Answerer
from runner.arms import Arm, draw_rows
from runner.backends.base import Endpoint
from runner.conversation import Example, Message
from runner.cost import Estimate, answers_work, with_losses, work_hours
from runner.data.prepare import Dataset
from runner.files import file_name
from runner.plan import Plan
from runner.scoring import Scoring, SideResult, keep, summarise

OPEN = "{{question}}"


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """What an arm reached on the dev rows, and what a thousand such requests cost (None: a price is unknown);
    `side` is None where `left_out` says why nothing was measured."""

    name: str
    kind: str
    description: str
    num_shots: int
    side: SideResult | None
    usd_per_1000: float | None
    price_source: str
    left_out: str | None


def measure_arms(
    plan: Plan,
    dataset: Dataset,
    estimate: Estimate,
    arms: Sequence[Arm],
    answerer: Answerer,
    scoring: Scoring,
    folder: Path,
) -> tuple[ArmResult, ...]:
    """Measures the arms in their order, as long as the gate's cap is not expected to be passed."""
    rows = draw_rows(dataset.dev, plan.gate.max_rows, plan.seed)
    spent = 0.0
    results = []
    for arm in arms:
        cost = expected_usd(plan, dataset, estimate, arm, len(rows))
        left_out = arm.left_out or _over_cap(plan.gate.max_usd, spent, cost)
        side = None
        if left_out is None:
            spent += cost or 0.0
            with answerer.outage(f"The arm '{arm.name}'"):
                side = _measure(arm, rows, answerer, scoring, folder)
            left_out = None if side else f"it could not be asked: {answerer.outages[-1]}"
        price, source = usd_per_1000(plan, arm, side) if side else (None, "not measured")
        results.append(
            ArmResult(
                name=arm.name,
                kind=arm.kind,
                description=arm.description,
                num_shots=arm.num_shots,
                side=side,
                usd_per_1000=price,
                price_source=source,
                left_out=left_out,
            )
        )
    return tuple(results)


def _measure(arm: Arm, rows: Sequence[Example], answerer: Answerer, scoring: Scoring, folder: Path) -> SideResult:
    scored = answerer.measure(arm, rows, scoring)
    keep(folder / f"{file_name(arm.name)}.jsonl", scored)
    if arm.kind == "prompting":
        _leave_prompt(folder / f"{file_name(arm.name)}.prompt.json", arm, rows[0])
    return summarise(scoring, scored)


def _leave_prompt(path: Path, arm: Arm, row: Example) -> None:
    """Writes the arm's prompt ready to use, the question left open."""
    system = [turn for turn in row.messages if turn.role == "system"][:1]
    opened = replace(row, messages=(*system, Message(role="user", content=OPEN), row.messages[-1]))
    turns = [{"role": turn.role, "content": turn.content} for turn in arm.prompt(opened)]
    path.write_text(json.dumps({"messages": turns}, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _over_cap(max_usd: float | None, spent: float, cost: float | None) -> str | None:
    if max_usd is None:
        return None
    if cost is None:
        return "its cost is unknown, and gate.max_usd is set"
    if spent + cost > max_usd:
        left = f"${max_usd - spent:,.2f} of gate.max_usd ${max_usd:,.2f}"
        return f"it would cost about ${cost:,.2f}, and {left} are left"
    return None


def expected_usd(plan: Plan, dataset: Dataset, estimate: Estimate, arm: Arm, num_rows: int) -> float | None:
    """What the arm's answers are expected to cost; None when a price or the machine's speed is unknown."""
    work = answers_work(dataset, num_rows, arm.num_shots)
    if arm.model:
        return token_usd(arm.model.endpoint, work.read, work.written)
    hours = work_hours(plan, estimate, with_losses(plan, dataset, work, num_rows))
    price = plan.budget.usd_per_hour
    return None if hours is None or price is None else hours * price


def token_usd(endpoint: Endpoint, tokens_in: float, tokens_out: float) -> float | None:
    """Dollars for so many tokens; None when a price is unknown."""
    prices = endpoint.usd_per_million_input, endpoint.usd_per_million_output
    if prices[0] is None or prices[1] is None:
        return None
    return (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6


def usd_per_1000(plan: Plan, arm: Arm, side: SideResult) -> tuple[float | None, str]:
    """Dollars for a thousand requests as measured, and whose prices these are."""
    tokens = side.prompt_tokens, side.output_tokens
    if arm.model:
        known = tokens[0] is not None and tokens[1] is not None
        usd = token_usd(arm.model.endpoint, 1000 * tokens[0], 1000 * tokens[1]) if known else None  # type: ignore[operator]
        return usd, "unknown: its tokens or prices are" if usd is None else "the endpoint's prices in gate.models"
    if plan.roi and tokens[0] is not None and tokens[1] is not None:
        return served_per_1000(plan, tokens[0], tokens[1]), "the prices in roi.tuned: it is served like the tuned model"
    if plan.budget.usd_per_hour is not None and side.seconds_per_answer is not None:
        return plan.budget.usd_per_hour * side.seconds_per_answer / 3.6, "this machine's price and measured time"
    return None, "unknown: give roi or budget.usd_per_hour"


def served_per_1000(plan: Plan, tokens_in: float, tokens_out: float) -> float:
    """Dollars for a thousand requests on the server that would serve the tuned model."""
    assert plan.roi
    tuned = plan.roi.tuned
    per_token = (tokens_in * tuned.usd_per_million_input + tokens_out * tuned.usd_per_million_output) / 1000
    return per_token + 1000 * tuned.usd_per_month / plan.roi.requests_per_month
