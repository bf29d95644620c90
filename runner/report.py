"""All facts of a run -> one versioned JSON, the same whether it was done, refused, failed or interrupted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runner import __version__
from runner.backends.base import TrainedModel
from runner.cost import Estimate
from runner.data.prepare import Dataset
from runner.delivery import Delivery
from runner.errors import EXIT_CODES, Exit, Problem, Where
from runner.evaluate import Evaluation
from runner.gate.decide import Decision
from runner.manifest import Manifest
from runner.plan import Plan, without_secrets
from runner.roi import Roi

SCHEMA_VERSION = 1
Status = Literal["done", "refused", "failed", "interrupted"]


@dataclass(kw_only=True)
class Facts:
    """What is known of the run so far; the stages fill it in, and the report is made of whatever there is. `record` is
    what the run began with; `models` and `sources` are the models and the data, as they lie here."""

    manifest: Manifest | None = None
    run_id: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    models: Sequence[Mapping[str, Any]] = ()
    sources: Sequence[Mapping[str, Any]] = ()
    plan: Plan | None = None
    data: Dataset | None = None
    estimate: Estimate | None = None
    decision: Decision | None = None
    training: TrainedModel | None = None
    evaluation: Evaluation | None = None
    delivery: Delivery | None = None
    roi: Roi | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    tracking: Mapping[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def make_report(facts: Facts, status: Status, exit_code: Exit, started_at: str) -> dict[str, Any]:
    """The report as plain JSON data; parts that the run did not come to are null."""
    plan, evaluation = facts.plan, facts.evaluation
    return {
        "schema_version": SCHEMA_VERSION,
        "runner_version": __version__,
        "run_id": facts.run_id,
        "name": plan.name if plan else _written(facts.manifest, "name"),
        "description": plan.description if plan else _written(facts.manifest, "description"),
        "status": status,
        "exit_code": int(exit_code),
        "exit_meaning": EXIT_CODES[exit_code].meaning,
        "started_at": started_at,
        "verdict": _verdict(facts, status),
        "verdict_text": _verdict_text(facts, status),
        "manifest": {
            "path": str(facts.manifest.path) if facts.manifest else None,
            "overrides": without_secrets(list(facts.manifest.overrides)) if facts.manifest else [],
            "trust_remote_code": facts.manifest.trust_remote_code if facts.manifest else False,
            "values": to_json(plan.values) if plan else None,
            "origins": dict(plan.origins) if plan else None,
        },
        "model": to_json(plan.model_facts) if plan else None,
        "data": _data(facts.data) if facts.data else None,
        "gate": to_json(facts.decision) if facts.decision else None,
        "cost": _cost(facts) if facts.estimate else None,
        "training": to_json(facts.training) if facts.training else None,
        "evaluation": to_json(evaluation) if evaluation else None,
        "delivery": to_json(facts.delivery) if facts.delivery else None,
        "roi": to_json(facts.roi) if facts.roi else None,
        "tracking": to_json(facts.tracking),
        "environment": to_json(facts.environment),
        "timings": {name: round(seconds, 3) for name, seconds in facts.timings.items()},
        "problems": [to_json(problem) for problem in all_problems(facts)],
    }


def all_problems(facts: Facts) -> list[Problem]:
    """What went wrong first, then every stage's findings; one told twice stays once, with its place."""
    parts = (facts.data, facts.decision, facts.training, facts.evaluation)
    found = [*facts.problems, *(finding for part in parts if part for finding in part.findings)]
    found += _not_synced(facts.tracking)
    return list(dict.fromkeys(facts.manifest.place(problem) if facts.manifest else problem for problem in found))


def _not_synced(tracking: Mapping[str, Any]) -> list[Problem]:
    """That the tracker does not have the run, where it should have had."""
    if not tracking.get("note"):
        return []
    what = f"W&B is not synced: {tracking['note']}."
    fix = f"Nothing of the result is lost; send it with: {tracking['sync']}" if tracking.get("sync") else ""
    where = Where(key="tracking.wandb")
    return [Problem(code="tracking/not-synced", what=what, where=where, fix=fix, severity="warning")]


def to_json(value: Any) -> Any:
    """Dataclasses, tuples and paths as plain JSON data; a number that is none (NaN, infinity) becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _data(data: Dataset) -> dict[str, Any]:
    """All but the rows themselves, which are files of the run directory."""
    parts = ("train", "own", "dev", "test")
    return {f.name: to_json(getattr(data, f.name)) for f in dataclasses.fields(data) if f.name not in parts}


def _cost(facts: Facts) -> dict[str, Any]:
    """The estimate beside what it took in fact."""
    hours = sum(facts.timings.values()) / 3600
    price = facts.plan.budget.usd_per_hour if facts.plan else None
    actual = {"hours": hours, "usd": None if price is None else price * hours}
    return {"estimate": to_json(facts.estimate), "actual": actual}


def _verdict(facts: Facts, status: Status) -> str | None:
    if facts.evaluation:
        return facts.evaluation.verdict
    if status == "refused" and facts.decision and facts.decision.says_no:
        return facts.decision.verdict
    return None


def _verdict_text(facts: Facts, status: Status) -> str:
    if facts.evaluation:
        return facts.evaluation.text
    if status == "refused" and facts.decision and facts.decision.says_no:
        return f"Not trained. {facts.decision.text}"
    reasons = " ".join(p.what for p in all_problems(facts) if p.severity == "error")
    opening = {
        "done": "Done.",
        "refused": "Not trained: the run was refused before it spent anything.",
        "failed": "No verdict: the run failed.",
        "interrupted": "No verdict yet: the run was interrupted.",
    }[status]
    return f"{opening} {reasons}".strip()


def _written(manifest: Manifest | None, key: str) -> str | None:
    return manifest.values.get(key) if manifest else None
