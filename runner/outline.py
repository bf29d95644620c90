"""`runner plan` where the training packages are not installed: what can be known without them, and what cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.backends.base import ModelFacts
from runner.console import Console, table
from runner.data.estimate import BAND, estimate_example
from runner.data.reading import LocalFile, read_rows
from runner.data.reading.local import measure
from runner.data.reading.sources import is_hub, is_url
from runner.errors import Exit, Problem, RunnerError, Where
from runner.gate.static import RowCounts, static_findings
from runner.manifest import Manifest
from runner.packages import INSTALL
from runner.plan import Plan, SourcePlan, make_plan, without_secrets

PARTS = ("train", "dev", "test", "mix")
SIZES = (100_000_000, 10_000_000_000)  # parameters on both sides of where defaults change
BY_SIZE = "depends on the model's size, which is not looked up here"


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a source turned out to be. Without a file it was not looked at, and `note` says why."""

    part: str
    name: str
    weight: float = 1.0
    file: LocalFile | None = None
    format: str = ""
    note: str = ""
    num_rows: int = 0
    tokens: int = 0
    labelled: int = 0
    unusable: Counter[str] = field(default_factory=Counter)

    @property
    def num_usable(self) -> int:
        """Rows that are examples."""
        return self.num_rows - self.unusable.total()


def outline(manifest: Manifest, missing: Sequence[str], console: Console) -> Exit:
    """Prints the values with their origins, what the local data files hold, estimated tokens and the static gate, and
    what is left open for want of the packages `missing`. Returns 3 when the gate would refuse the run for certain.

    Raises RunnerError (65, 66) with every data file that cannot be used.
    """
    plans = [make_plan(manifest, _facts(manifest, size)) for size in SIZES]
    console.line(console.paint("Resolved values", "bold"))
    console.line(table(list(_values(plans)), words=True))
    found = _read_all(plans[0])
    console.line(console.paint("Data", "bold"))
    console.line(table([("for", "source", "format", "bytes", "rows", "unusable", "tokens"), *map(_line, found)]))
    rows = _count(plans[0], found)
    _check_dropped(plans[0], found, manifest)
    console.line(console.paint("Not known here", "bold"))
    console.line(table(list(_open(found, missing)), words=True))
    if rows is None:
        console.line("   The gate's checks need every file's rows.")
        return Exit.DONE
    console.line(console.paint("Gate, before anything is measured, on estimated counts", "bold"))
    console.line(table(list(_counted(rows)), words=True))
    certain = set.intersection(*(set(static_findings(plan, rows)) for plan in plans))
    findings = [manifest.place(finding) for finding in static_findings(plans[0], rows) if finding in certain]
    console.problems(findings)
    says_no = any(finding.severity == "error" for finding in findings) and plans[0].gate.policy == "enforce"
    console.line("next    " + ("mend what the gate names" if says_no else f"runner {manifest.path}"))
    return Exit.SAID_NO if says_no else Exit.DONE


def _facts(manifest: Manifest, num_parameters: int) -> ModelFacts:
    name, _, revision = manifest.values["approach"]["model"].partition("@")
    return ModelFacts(
        name=name,
        revision=revision or None,
        family=None,
        num_parameters=num_parameters,
        context_tokens=None,
        license=None,
    )


def _values(plans: Sequence[Plan]) -> Iterator[tuple[str, str, str]]:
    """Every value; one that another size of model would change is shown as it would be for a small or a large one."""
    for key, origin in plans[0].origins.items():
        shown = list(dict.fromkeys(_shown(plan.values, key) for plan in plans))
        yield key, " or ".join(shown), origin if len(shown) == 1 and "1B" not in origin else BY_SIZE


def _shown(values: Mapping[str, object], key: str) -> str:
    value: object = values
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_all(plan: Plan) -> list[Read]:
    found: list[Read] = []
    problems: list[Problem] = []
    worst = Exit.DONE
    for part in PARTS:
        sources = [entry.source for entry in plan.data.mix] if part == "mix" else getattr(plan.data, part)
        for source in sources:
            try:
                found.append(_read(part, source))
            except RunnerError as error:
                problems += error.problems
                worst = max(worst, error.exit_code)
    if problems:
        raise RunnerError(problems, worst)
    return found


def _read(part: str, source: SourcePlan) -> Read:
    """A local file, row by row; what would have to be fetched is left."""
    shown = str(without_secrets(source.source))
    if is_url(source.source) or is_hub(source.source):
        return Read(part=part, name=shown, note="not fetched here")
    file = measure(Path(source.source), source.source, f"data.{part}")
    try:
        reading = read_rows(source, file)
    except RunnerError as error:
        if error.problems[0].code != "data/package-missing":
            raise
        return Read(part=part, name=shown, file=file, note=error.problems[0].what)
    unusable: Counter[str] = Counter()
    num_rows = tokens = labelled = 0
    for row in reading.rows:
        num_rows += 1
        if row.example is None:
            unusable[row.reason or "no reason"] += 1
            continue
        counts = estimate_example(row.example)
        tokens, labelled = tokens + counts[0], labelled + counts[1]
    return Read(
        part=part,
        name=shown,
        weight=source.weight,
        file=file,
        format=f"{reading.container}, {reading.format}",
        num_rows=num_rows,
        tokens=tokens,
        labelled=labelled,
        unusable=unusable,
    )


def _line(read: Read) -> tuple[str, ...]:
    size = f"{read.file.num_bytes:,}" if read.file else "?"
    name = Path(read.name).name if read.file else read.name
    if read.note:
        return read.part, name, "?", size, "?", "?", "?"
    counts = (f"{read.num_rows:,}", f"{read.unusable.total():,}", f"about {read.tokens:,}")
    return read.part, name, read.format, size, *counts


def _check_dropped(plan: Plan, found: Sequence[Read], manifest: Manifest) -> None:
    """Raises RunnerError (65) where more rows are unusable than allowed, as a run would."""
    own = [read for read in found if read.part != "mix"]
    bad, total = sum(read.unusable.total() for read in own), sum(read.num_rows for read in own)
    if any(read.note for read in own) or total == 0 or bad / total <= plan.data.max_dropped_fraction:
        return
    reasons = sum((read.unusable for read in own), Counter[str]()).most_common(3)
    causes = ", ".join(f"{reason} ({count:,})" for reason, count in reasons)
    problem = Problem(
        code="data/too-many-dropped",
        what=f"{bad:,} of {total:,} rows cannot be used: {causes}.",
        where=Where(key="data.max_dropped_fraction"),
        fix="Mend the rows, or raise data.max_dropped_fraction.",
    )
    raise RunnerError(manifest.place(problem), Exit.DATA_REJECTED)


def _count(plan: Plan, found: Sequence[Read]) -> RowCounts | None:
    """What there would be to train on and to test on, if no two rows were alike; None where a file was not read."""
    if any(read.note for read in found):
        return None
    parts = {part: [read for read in found if read.part == part] for part in PARTS}
    usable = {part: sum(read.num_usable for read in reads) for part, reads in parts.items()}
    shares = {part: 0 if parts[part] else getattr(plan.data.split, part) for part in ("dev", "test")}
    kept = 1 - shares["dev"] - shares["test"]
    return RowCounts(
        num_own=round(usable["train"] * kept),
        num_train=round(sum(read.num_usable * read.weight for read in parts["train"]) * kept),
        train_tokens=round(sum(read.tokens * read.weight for read in parts["train"]) * kept),
        num_test=usable["test"] if parts["test"] else round(usable["train"] * shares["test"]),
    )


def _counted(rows: RowCounts) -> Iterator[tuple[str, str]]:
    yield "rows to train on", f"about {rows.num_train:,}, unless rows are alike"
    yield "tokens to train on", f"about {rows.train_tokens:,} a pass, an estimate within a factor of {BAND:g}"
    yield "test rows", f"about {rows.num_test:,}"


def _open(found: Sequence[Read], missing: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What somebody else has to say, and who."""
    for read in found:
        if read.note:
            yield f"rows of {Path(read.name).name}", read.note
    yield "model", "whether it is there, its size and its licence"
    yield "rows", "near-duplicates, leaks between parts, findings about the texts, exact tokens"
    yield "cost, memory", "this machine's speed, and what training takes"
    yield "needed for it", f"{', '.join(missing)}. {INSTALL}"
