"""Does it pay? A pure function of prices, measured token counts and what training took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.evaluate import Evaluation
from runner.plan import Plan, ServingPlan
from runner.scoring import SideResult


@dataclass(frozen=True, kw_only=True)
class Input:
    """One number that the return was computed from, and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Roi:
    """Dollars; `payback_months` is None when it never pays back, which `pays_back` says outright."""

    current_usd_per_month: float
    tuned_usd_per_month: float
    saving_usd_per_month: float
    investment_usd: float
    pays_back: bool
    payback_months: float | None
    horizon_months: int
    net_usd_over_horizon: float
    text: str
    inputs: Mapping[str, Input]


def compute_roi(plan: Plan, run_hours: float, evaluation: Evaluation) -> Roi | None:
    """The return on the run's own cost plus `roi.one_time_usd`; None when the manifest gives no `roi`."""
    if plan.roi is None:
        return None
    inputs: dict[str, Input] = {}
    requests = plan.roi.requests_per_month
    inputs["requests_per_month"] = Input(value=requests, source=plan.origins["roi.requests_per_month"])
    current = _monthly(plan, "current", plan.roi.current, evaluation.base, requests, inputs)
    tuned = _monthly(plan, "tuned", plan.roi.tuned, evaluation.tuned, requests, inputs)
    price = plan.budget.usd_per_hour
    priced = price is not None
    inputs["run_hours"] = Input(value=run_hours, source="measured in this run")
    inputs["usd_per_hour"] = Input(
        value=price or 0.0, source=plan.origins["budget.usd_per_hour"] if priced else "not given, counted as 0"
    )
    inputs["one_time_usd"] = Input(value=plan.roi.one_time_usd, source=plan.origins["roi.one_time_usd"])
    investment = run_hours * (price or 0.0) + plan.roi.one_time_usd
    saving = current - tuned
    payback = investment / saving if saving > 0 else None
    horizon = plan.roi.horizon_months
    return Roi(
        current_usd_per_month=current,
        tuned_usd_per_month=tuned,
        saving_usd_per_month=saving,
        investment_usd=investment,
        pays_back=payback is not None and payback <= horizon,
        payback_months=payback,
        horizon_months=horizon,
        net_usd_over_horizon=saving * horizon - investment,
        text=_describe(saving, payback, horizon, evaluation.verdict),
        inputs=inputs,
    )


def _monthly(
    plan: Plan, name: str, serving: ServingPlan, measured: SideResult, requests: float, inputs: dict[str, Input]
) -> float:
    side = "base" if name == "current" else "tuned"
    for key in ("prompt_tokens", "output_tokens"):
        written = getattr(serving, key)
        inputs[f"{name}.{key}"] = (
            Input(value=getattr(measured, key) or 0.0, source=f"measured on the {side} model")
            if written is None
            else Input(value=written, source=plan.origins[f"roi.{name}.{key}"])
        )
    for key in ("usd_per_million_input", "usd_per_million_output", "usd_per_month"):
        inputs[f"{name}.{key}"] = Input(value=getattr(serving, key), source=plan.origins[f"roi.{name}.{key}"])
    per_request = (
        inputs[f"{name}.prompt_tokens"].value * serving.usd_per_million_input
        + inputs[f"{name}.output_tokens"].value * serving.usd_per_million_output
    ) / 1e6
    return requests * per_request + serving.usd_per_month


def _describe(saving: float, payback: float | None, horizon: int, verdict: str) -> str:
    if payback is None:
        text = f"It never pays back: serving the tuned model costs ${-saving:,.2f} more a month."
        if saving == 0:
            text = "It never pays back: serving the tuned model costs the same."
    elif payback > horizon:
        text = f"It does not pay back within {horizon} months: that would take {payback:,.1f}."
    else:
        text = f"It pays back in {payback:,.1f} months and saves ${saving:,.2f} a month."
    if verdict != "improved":
        text += " Beware: the evaluation does not show that the tuned model answers better."
    return text
