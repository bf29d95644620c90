"""What became of every row: kept, repaired, truncated or dropped, and why; the totals are the number of rows read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.data.review.private import hide
from runner.data.store import StoredFile
from runner.errors import Exit, Problem, RunnerError, Severity, Where

OUTCOMES = ("kept", "repaired", "truncated", "dropped")
SHOWN = 10
MEND = "Mend the row, or take it out of the file."
TOO_LONG = "longer than hyperparameters.max_length"


@dataclass(frozen=True, kw_only=True)
class SourceTotals:
    """One file: what it is, and what became of its rows. `part` says what it was given for (mix: general rows)."""

    path: str
    part: str
    container: str
    format: str
    evidence: str
    sha256: str
    num_bytes: int
    num_rows: int
    kept: int
    repaired: int
    truncated: int
    dropped: int


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The totals over all files. `num_faulty` of the dropped rows could not be used; the others were left out by the
    split or by the draw. `reasons` of all dropped rows, `faults` of the faulty ones and `repairs` count rows by kind.
    """

    num_rows: int
    kept: int
    repaired: int
    truncated: int
    dropped: int
    num_faulty: int
    reasons: Mapping[str, int]
    faults: Mapping[str, int]
    repairs: Mapping[str, int]
    sources: tuple[SourceTotals, ...]

    def __str__(self) -> str:
        return f"{self.num_rows:,} rows: " + ", ".join(f"{getattr(self, name):,} {name}" for name in OUTCOMES)

    @property
    def num_used(self) -> int:
        """Rows that are in a part, whole or mended."""
        return self.num_rows - self.dropped


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What the stages after reading decided of one example: the part it is in, or the reason why it is in none."""

    part: str | None
    reason: str | None = None
    faulty: bool = False
    truncated: bool = False


def write_ledger(
    path: Path, files: Sequence[tuple[str, StoredFile]], fates: Iterator[Fate]
) -> tuple[Ledger, list[Problem], float]:
    """Writes one line a row; `files` come with what they were given for, `fates` tell of each usable example in order.

    Returns the totals, the first faulty rows as problems, and the share of faulty rows that is judged: that of the
    person's own files, for general rows have spares.
    """
    reasons: Counter[str] = Counter()
    repairs: Counter[str] = Counter()
    faulty: Counter[str] = Counter()
    faults: list[Problem] = []
    sources = []
    own_rows = own_faulty = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for role, file in files:
            counts: Counter[str] = Counter()
            for row in file.rows():
                fate = Fate(part=None, reason=row["reason"], faulty=True) if row["reason"] else next(fates)
                entry = _entry(role, file, row, fate)
                out.write(json.dumps(entry, ensure_ascii=False) + "\n")
                counts[entry["outcome"]] += 1
                repairs.update(map(kind_of, row["repairs"].split("; ") if row["repairs"] else ()))
                if fate.reason:
                    reasons[kind_of(fate.reason)] += 1
                own_rows += role != "mix"
                if fate.faulty:
                    own_faulty += role != "mix"
                    faulty[kind_of(fate.reason or "")] += 1
                    faults += [_fault(file, row["row"], fate)] if len(faults) < SHOWN else []
            sources.append(_totals(role, file, counts))
    sums = {outcome: sum(getattr(source, outcome) for source in sources) for outcome in OUTCOMES}
    ledger = Ledger(
        num_rows=sum(source.num_rows for source in sources),
        **sums,
        num_faulty=faulty.total(),
        faults=dict(faulty.most_common()),
        reasons=dict(reasons.most_common()),
        repairs=dict(repairs.most_common()),
        sources=tuple(sources),
    )
    assert sum(sums.values()) == ledger.num_rows, "every row has one outcome"
    return ledger, faults, own_faulty / max(1, own_rows)


def check_dropped(ledger: Ledger, faults: Collection[Problem], share: float, allowed: float, path: Path) -> None:
    """Raises RunnerError (65) when a larger share of rows is unusable than allowed, or all of them."""
    if share <= allowed and share < 1:
        return
    over = f", more than the allowed {100 * allowed:g} %" if share < 1 else ""
    more = f"; the first {SHOWN} are shown above" if ledger.num_faulty > SHOWN else ""
    longer = " For long rows, see hyperparameters.max_length and data.long_rows." if TOO_LONG in ledger.faults else ""
    summary = Problem(
        code="data/too-many-dropped",
        what=f"{ledger.num_faulty:,} of {ledger.num_rows:,} rows cannot be used{over}{more}: {_causes(ledger.faults)}.",
        where=Where(key="data.max_dropped_fraction"),
        fix=f"Mend the rows (all are listed in {path}), or raise data.max_dropped_fraction.{longer}",
    )
    raise RunnerError([*faults, summary], Exit.DATA_REJECTED)


def ledger_findings(ledger: Ledger) -> Iterator[Problem]:
    """What could not be used and what was repaired, with the most frequent causes."""
    told: tuple[tuple[str, Severity, str, int, Mapping[str, int]], ...] = (
        ("data/dropped", "warning", "could not be used", ledger.num_faulty, ledger.faults),
        ("data/repaired", "note", "were repaired", ledger.repaired, ledger.repairs),
    )
    for code, severity, what, rows, kinds in told:
        if rows:
            causes = f"{what}: {_causes(kinds)}. Each is in data/ledger.jsonl."
            yield Problem(code=code, what=f"{rows:,} of {ledger.num_rows:,} rows {causes}", severity=severity)


def _causes(kinds: Mapping[str, int]) -> str:
    """The three most frequent."""
    return ", ".join(f"{kind} ({count:,})" for kind, count in list(kinds.items())[:3])


def kind_of(reason: str) -> str:
    """The reason without the row's own particulars, so that like reasons are counted together."""
    return reason.split(" (")[0].split(": ")[0]


def _entry(role: str, file: StoredFile, row: Mapping[str, Any], fate: Fate) -> dict[str, Any]:
    kept = "truncated" if fate.truncated else "repaired" if row["repairs"] else "kept"
    return {
        "file": file.name,
        "row": row["row"],
        "outcome": "dropped" if fate.reason else kept,
        "reason": fate.reason,
        "repairs": row["repairs"],
        "part": fate.part,
        "mix": role == "mix",
        "excerpt": hide(row["excerpt"]),
    }


def _fault(file: StoredFile, row: int, fate: Fate) -> Problem:
    reason = fate.reason or ""
    what = f"{reason[:1].upper()}{reason[1:]}."
    if file.container in ("json", "parquet"):  # whose rows are not lines
        return Problem(code="data/row", what=f"Row {row}: {reason}.", where=Where(path=file.path), fix=MEND)
    return Problem(code="data/row", what=what, where=Where(path=file.path, line=row), fix=MEND)


def _totals(role: str, file: StoredFile, counts: Counter[str]) -> SourceTotals:
    return SourceTotals(
        path=file.name,
        part=role,
        container=file.container,
        format=file.format,
        evidence=file.evidence,
        sha256=file.sha256,
        num_bytes=file.num_bytes,
        num_rows=file.num_rows,
        **{outcome: counts[outcome] for outcome in OUTCOMES},
    )
