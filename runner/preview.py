"""`runner plan`: everything that is known before anything is spent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from runner.console import Console, table
from runner.cost import Band, Estimate, check_budget, estimate_cost
from runner.data import Dataset, prepare_data
from runner.errors import Exit
from runner.evaluate import check_metrics, read_answer_schema
from runner.gate import Decision, decide
from runner.manifest import Manifest
from runner.plan import Plan, make_plan
from runner.world import World


def preview(manifest: Manifest, world: World, console: Console) -> Exit:
    """Prints resolved values with their origin, what became of the rows, the estimate and the static gate.

    Nothing is trained, and nothing is kept. Returns 3 when the gate would refuse the run.
    """
    backend = world.load_backend(manifest.values["approach"]["kind"])
    session = world.open_session(manifest, backend)
    plan = make_plan(manifest, session.facts)
    read_answer_schema(plan.eval)
    console.line(console.paint("Resolved values", "bold"))
    console.line(table(list(_values(plan))))
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepare_data(plan, session, Path(folder))
    check_metrics(plan, dataset)
    console.line(console.paint("Data", "bold"))
    console.line(table(list(_data(dataset))))
    console.problems(dataset.findings)
    estimate = estimate_cost(plan, dataset, backend.matmul_rate)
    console.line(console.paint("Cost", "bold"))
    console.line(table(list(_cost(estimate))))
    check_budget(plan, estimate)
    decision = decide(plan, dataset)
    console.line(console.paint(f"Gate: {decision.verdict}", "bold"))
    console.problems(decision.findings)
    return _ends(decision, console, manifest)


def _values(plan: Plan) -> Iterator[tuple[str, str, str]]:
    for key, origin in plan.origins.items():
        value: object = plan.values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        shown = "-" if value is None else str(value)
        yield key, shown if len(shown) <= 60 else shown[:57] + "...", origin


def _data(dataset: Dataset) -> Iterator[tuple[str, str]]:
    yield "rows", f"{dataset.num_rows:,}"
    for reason, count in dataset.dropped_reasons.items():
        yield f"dropped: {reason}", f"{count:,}"
    for name, part in (("train", dataset.train), ("dev", dataset.dev), ("test", dataset.test)):
        yield name, f"{len(part):,}"
    tokens = dataset.tokens
    yield "tokens", f"{tokens.total:,} ({tokens.labelled / tokens.total:.0%} trained on)"
    yield "row length", f"median {tokens.median}, 90 % under {tokens.p90}, longest {tokens.longest}"


def _cost(estimate: Estimate) -> Iterator[tuple[str, str]]:
    yield "tokens to train on", f"{estimate.train_tokens:,}"
    yield "hours", _band(estimate.hours)
    yield "dollars", _band(estimate.usd)


def _band(band: Band | None) -> str:
    return "unknown" if band is None else f"{band.expected:.3g} ({band.low:.2g} to {band.high:.2g})"


def _ends(decision: Decision, console: Console, manifest: Manifest) -> Exit:
    console.line("next    " + ("mend what the gate names" if decision.refuses else f"runner {manifest.path}"))
    return Exit.SAID_NO if decision.refuses else Exit.DONE
