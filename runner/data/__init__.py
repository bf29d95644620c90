"""The data stage: every row accounted for, tokens counted, and a split that nothing leaks across."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles
from typing import Any

from runner.backends.base import RowTokens, Session
from runner.conversation import Example
from runner.data.rows import Row, SourceFile, read_file
from runner.data.split import part_of
from runner.errors import Exit, Problem, RunnerError, Where
from runner.plan import DataPlan, Plan

SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class TokenReport:
    """Exact token counts by the model's own tokenizer and template, over all kept rows."""

    total: int
    labelled: int
    median: int
    p90: int
    longest: int
    longest_answer: int


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What will be trained on and measured with, and what became of every row."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    sources: tuple[SourceFile, ...]
    num_rows: int
    num_dropped: int
    dropped_reasons: Mapping[str, int]
    tokens: TokenReport
    train_tokens: int
    findings: tuple[Problem, ...]


def prepare_data(plan: Plan, session: Session, folder: Path) -> Dataset:
    """Reads, checks, counts and splits; writes the ledger and the three parts into `folder`.

    Raises RunnerError: 66 when a file is missing, 65 when rows cannot be used beyond the allowed share, or when a
    part of the split would be empty.
    """
    sources, rows = [], []
    for path in plan.data.train:
        source, found = read_file(path, plan.data.format, plan.data.system)
        sources.append(source)
        rows.extend(found)
    rows, counts = _count(rows, session, plan.hyperparameters.max_length)
    _write_lines(folder / "ledger.jsonl", (_ledger_entry(row) for row in rows))
    dropped = [row for row in rows if row.reason is not None]
    _check_dropped(dropped, len(rows), plan.data, folder / "ledger.jsonl")
    examples = [row.example for row in rows if row.example is not None]
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    train_tokens = 0
    for example, count in zip(examples, counts, strict=True):
        part = part_of(example.question_id, plan.seed, plan.data.dev, plan.data.test)
        parts[part].append(example)
        train_tokens += count.total if part == "train" else 0
    for name, members in parts.items():
        if not members:
            raise RunnerError(_empty_part(name, len(examples)), Exit.DATA_REJECTED)
        _write_lines(folder / f"{name}.jsonl", (_as_chat(example) for example in members))
    return Dataset(
        train=tuple(parts["train"]),
        dev=tuple(parts["dev"]),
        test=tuple(parts["test"]),
        sources=tuple(sources),
        num_rows=len(rows),
        num_dropped=len(dropped),
        dropped_reasons=dict(Counter(_reason_kind(row.reason) for row in dropped if row.reason)),
        tokens=_token_report(counts),
        train_tokens=train_tokens,
        findings=tuple(_findings(examples, dropped)),
    )


def _count(rows: Sequence[Row], session: Session, max_length: int) -> tuple[list[Row], list[RowTokens]]:
    """Token counts of every usable row; a row too long or impossible to label is dropped with that reason."""
    counts = iter(session.count_tokens([row.example for row in rows if row.example is not None]))
    kept, result = [], []
    for row in rows:
        if row.example is not None:
            count = next(counts)
            too_long = f"longer than hyperparameters.max_length ({count.total} tokens, {max_length} allowed)"
            reason = count.problem or (too_long if count.total > max_length else None)
            if reason is None:
                kept.append(count)
            else:
                row = replace(row, example=None, reason=reason)
        result.append(row)
    return result, kept


def _token_report(counts: Sequence[RowTokens]) -> TokenReport:
    totals = sorted(count.total for count in counts)
    deciles = quantiles(totals, n=10, method="inclusive") if len(totals) > 1 else totals * 9
    return TokenReport(
        total=sum(totals),
        labelled=sum(count.labelled for count in counts),
        median=round(deciles[4]),
        p90=round(deciles[8]),
        longest=totals[-1],
        longest_answer=max(count.labelled for count in counts),
    )


def _check_dropped(dropped: list[Row], num_rows: int, plan: DataPlan, ledger: Path) -> None:
    allowed = plan.max_dropped_fraction
    if len(dropped) / num_rows <= allowed and len(dropped) < num_rows:
        return
    over = f", more than the allowed {100 * allowed:g} %" if len(dropped) < num_rows else ""
    problems = [
        Problem(
            code="data/row",
            what=f"{(row.reason or '')[:1].upper()}{(row.reason or '')[1:]}.",
            where=Where(path=row.file, line=row.row),
        )
        for row in dropped[:SHOWN]
    ]
    more = f"; the first {SHOWN} are shown above" if len(dropped) > SHOWN else ""
    problems.append(
        Problem(
            code="data/too-many-dropped",
            what=f"{len(dropped)} of {num_rows} rows cannot be used{over}{more}.",
            where=Where(key="data.max_dropped_fraction"),
            fix=f"Mend the rows (all are listed in {ledger}), or raise data.max_dropped_fraction.",
        )
    )
    raise RunnerError(problems, Exit.DATA_REJECTED)


def _empty_part(name: str, num_rows: int) -> Problem:
    return Problem(
        code="data/empty-part",
        what=f"With {num_rows} usable rows the {name} part of the split is empty.",
        where=Where(key="data.split"),
        fix="Add rows, or raise data.split.dev and data.split.test.",
    )


def _findings(examples: Sequence[Example], dropped: Sequence[Row]) -> Iterable[Problem]:
    if dropped:
        yield Problem(
            code="data/dropped",
            what=f"{len(dropped)} rows were dropped; each is in data/ledger.jsonl with its reason.",
            severity="warning",
        )
    answers: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        answers[example.question_id][example.expected].append(example.source)
    repeated = [sources for by_answer in answers.values() for sources in by_answer.values() if len(sources) > 1]
    if repeated:
        extra = sum(len(sources) - 1 for sources in repeated)
        yield Problem(
            code="data/duplicates",
            what=f"{extra} rows repeat another row: {_sample(' = '.join(s) for s in repeated)}.",
            fix="Remove the repeats; they stay on one side of the split, but count double in training.",
            severity="warning",
        )
    torn = [[s[0] for s in by_answer.values()] for by_answer in answers.values() if len(by_answer) > 1]
    if torn:
        yield Problem(
            code="data/contradictions",
            what=f"{len(torn)} questions have different answers: {_sample(' / '.join(t) for t in torn)}.",
            fix="Decide for one answer each.",
            severity="warning",
        )


def _sample(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (" and others" if len(shown) > 3 else "")


def _reason_kind(reason: str) -> str:
    """The reason without the row's own particulars, so that like reasons are counted together."""
    return reason.split(" (")[0].split(": ")[0]


def _ledger_entry(row: Row) -> dict[str, Any]:
    outcome = "dropped" if row.example is None else "kept"
    return {"file": row.file, "row": row.row, "outcome": outcome, "reason": row.reason, "excerpt": row.excerpt}


def _as_chat(example: Example) -> dict[str, Any]:
    messages = [{"role": m.role, "content": m.content} for m in example.messages]
    return {"messages": messages, "source": example.source, "id": example.id}


def _write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
