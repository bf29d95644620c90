"""`runner plan`: everything that is known before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner.arms import make_arms
from runner.backends.base import MemoryUse
from runner.console import Console, table
from runner.cost import Band, Estimate, check_budget, estimate_cost
from runner.data.ledger import OUTCOMES, Ledger, SourceTotals
from runner.data.prepare import Dataset, Shown, prepare_data
from runner.errors import Exit, RunnerError
from runner.gate.decide import Decision, decide_for_free, describe_power
from runner.identity import hashing, identify
from runner.manifest import Manifest
from runner.plan import Plan, make_plan
from runner.scoring import Scoring, check_metrics, read_scoring, with_classes
from runner.world import World

MARKS = ("«", "»")
SHOWN_CHARACTERS = 600


def preview(manifest: Manifest, world: World, console: Console, num_points: int = 1) -> Exit:
    """Prints resolved values with their origin, what became of the rows, the estimate (also of so many points of a
    sweep, were they all like this one) and the static gate.

    Nothing is trained; only the cache keeps what became of the rows. Returns 3 when the gate would refuse the run;
    raises RunnerError, each problem with its place in the manifest, when it cannot be carried out.
    """
    try:
        return _preview(manifest, world, console, num_points)
    except RunnerError as error:
        raise RunnerError(map(manifest.place, error.problems), error.exit_code) from error


def _preview(manifest: Manifest, world: World, console: Console, num_points: int) -> Exit:
    mode, why = world.choose_tracking(manifest)
    backend, _, about_gpu = world.open_backend(manifest, refuses=False)
    session = world.open_session(manifest, backend)
    _, differences = world.look_at_models(manifest, backend) if world.locked else ([], [])
    plan = make_plan(manifest, session.facts)
    scoring = read_scoring(plan)
    console.line(console.paint("Resolved values", "bold"))
    console.line(table(list(_values(plan)), words=True))
    if plan.delivery.to:
        world.check_destination(plan)
        console.line(f"   The weights will go to {plan.delivery.to}, which takes them")
    console.line(f"   W&B will be {mode}{f': {why}' if why else ''}")
    folder = world.cache / "plans" / identify(manifest, hashing(world.cache)) / "data"
    dataset = prepare_data(plan, session, folder, world.cache, world.watch)
    differences += world.look_at_data(manifest, dataset.ledger)[1]
    scoring = with_classes(scoring, dataset)
    problems = [*world.told, *differences, *check_metrics(scoring, dataset)]
    console.line(console.paint("Data", "bold"))
    console.line(table(list(_sources(dataset))))
    console.line(table(list(_data(dataset)), words=True))
    console.line(console.paint(f"Rows as the model sees them, trained on between {' and '.join(MARKS)}", "bold"))
    for shown in dataset.shown:
        console.line(_row(console, shown))
        console.line()
    console.problems([*about_gpu, *dataset.findings, *problems])
    console.line(f"   every row's outcome, findings and leaks: {folder}")
    memory = session.expected_memory(plan.hyperparameters, dataset.train)
    estimate = estimate_cost(plan, dataset, backend.matmul_rate, memory)
    console.line(console.paint("Cost", "bold"))
    console.line(table(list(_cost(estimate, num_points))))
    check_budget(plan, estimate)
    decision = decide_for_free(plan, dataset, scoring)
    console.line(console.paint(f"Gate, before anything is measured: {decision.verdict}", "bold"))
    console.line(table(list(_gate(plan, dataset, scoring, decision)), words=True))
    console.problems(decision.findings)
    return _ends(decision, console, manifest)


def _values(plan: Plan) -> Iterator[tuple[str, str, str]]:
    for key, origin in plan.origins.items():
        value: object = plan.values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        shown = "-" if value is None else str(value)
        yield key, shown if len(shown) <= 60 else shown[:57] + "...", origin


def _sources(dataset: Dataset) -> Iterator[tuple[str, ...]]:
    """What each file is and what became of its rows; the last line adds up."""
    yield ("file", "for", "format", "rows", *OUTCOMES)
    for source in dataset.ledger.sources:
        yield (Path(source.path).name, source.part, source.format, *_counts(source))
    if len(dataset.ledger.sources) > 1:
        yield ("all", "", "", *_counts(dataset.ledger))


def _counts(totals: Ledger | SourceTotals) -> Iterator[str]:
    for name in ("num_rows", *OUTCOMES):
        yield f"{getattr(totals, name):,}"


def _data(dataset: Dataset) -> Iterator[tuple[str, str]]:
    split, tokens, variety = dataset.split, dataset.tokens, dataset.diversity
    for source in dataset.ledger.sources:
        yield f"{Path(source.path).name} is", f"{source.container}; {source.evidence}"
    for reason, count in dataset.ledger.reasons.items():
        yield f"dropped: {reason}", f"{count:,}"
    for repair, count in dataset.ledger.repairs.items():
        yield f"repaired: {repair}", f"{count:,}"
    mixed = f", {split.num_mixed:,} of them general" if split.num_mixed else ""
    yield "split", f"{split.train:,} train{mixed}, {split.dev:,} dev, {split.test:,} test"
    yield "groups", f"{split.num_groups:,} groups of like questions; {split.num_withheld:,} rows withheld"
    for name, parts in split.classes.items():
        yield f"class {name}", ", ".join(f"{parts.get(part, 0):,} {part}" for part in ("train", "dev", "test"))
    about = "" if tokens.band is None else f", an estimate within a factor of {tokens.band:g}"
    yield "tokens", f"{tokens.total:,} ({tokens.labelled / tokens.total:.0%} trained on{about})"
    yield (
        "row length",
        f"median {tokens.median:,}, 90 % up to {tokens.p90:,}, 99 % up to {tokens.p99:,}, longest {tokens.longest:,}; "
        f"{tokens.num_over / tokens.num_counted:.1%} exceed {tokens.max_length:,}",
    )
    for name, side in (("questions", variety.questions), ("answers", variety.answers)):
        yield f"different {name}", f"{side.num_distinct:,}, with {side.num_openings:,} openings"


def _row(console: Console, shown: Shown) -> str:
    """One row as the model sees it; what is trained on stands between arrows, and in colour where there is one."""
    parts = [
        console.paint(f"{MARKS[0]}{_abridged(s.text)}{MARKS[1]}", "good") if s.trained else _abridged(s.text)
        for s in shown.segments
    ]
    return f"{shown.source}\n" + "".join(parts).rstrip()


def _abridged(text: str) -> str:
    """A long stretch without its middle."""
    half = SHOWN_CHARACTERS // 2
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:half]} [...] {text[-half:]}"


def _cost(estimate: Estimate, num_points: int) -> Iterator[tuple[str, str]]:
    yield "tokens to train on", f"{estimate.train_tokens:,}"
    yield "hours", _band(estimate.hours)
    yield "dollars", _band(estimate.usd)
    if num_points > 1:
        yield f"hours, {num_points:,} points like this one", _band(_times(num_points, estimate.hours))
        yield f"dollars, {num_points:,} points like this one", _band(_times(num_points, estimate.usd))
    yield "memory", _memory(estimate.memory)


def _times(count: int, band: Band | None) -> Band | None:
    """What so many would take."""
    return band and Band(low=count * band.low, expected=count * band.expected, high=count * band.high)


def _memory(use: MemoryUse | None) -> str:
    if use is None:
        return "unknown"
    there = "of an unknown amount" if use.available_bytes is None else f"of {use.available_bytes / 1e9:.1f} GB"
    again = ", activations computed twice" if use.activation_checkpointing else ""
    return f"{use.estimate_bytes / 1e9:.1f} GB {there}, {use.micro_batch_tokens:,} tokens at a time{again}"


def _gate(plan: Plan, dataset: Dataset, scoring: Scoring, decision: Decision) -> Iterator[tuple[str, str]]:
    """What the gate will measure, and what the test rows will be able to show."""
    if decision.target:
        yield "target", f"{decision.target.metric} {decision.target.value:g} ({decision.target.origin})"
    yield "power", describe_power(decision, len(dataset.test), scoring.primary)
    if decision.verdict != "skipped" and not decision.refuses:
        yield "dev rows to measure arms on", f"{decision.num_dev:,}"
        for arm in make_arms(plan, dataset, scoring.schema):
            yield f"arm {arm.name}", arm.left_out or arm.description


def _band(band: Band | None) -> str:
    return "unknown" if band is None else f"{band.expected:.3g} ({band.low:.2g} to {band.high:.2g})"


def _ends(decision: Decision, console: Console, manifest: Manifest) -> Exit:
    console.line("next    " + ("mend what the gate names" if decision.refuses else f"runner {manifest.path}"))
    return Exit.SAID_NO if decision.refuses else Exit.DONE
