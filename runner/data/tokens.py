"""Lengths in tokens: exact by the model's own tokenizer, or an estimate that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runner.backends.base import Session, TokenCounts, Watch
from runner.conversation import Example
from runner.data.estimate import BAND, estimate_example
from runner.errors import Problem, Where
from runner.plan import Plan

BINS = 24


@dataclass(frozen=True, kw_only=True)
class TokenReport:
    """Tokens of all used rows by the model's own tokenizer and template; lengths are per row.

    `band` is None where the counts are exact; otherwise they are an estimate, and the truth is expected between
    count / band and count * band. Of `num_counted` rows that could be read, `num_over` were longer than `max_length`.
    `histogram` holds (upper end, rows).
    """

    total: int
    labelled: int
    median: int
    p90: int
    p99: int
    longest: int
    longest_answer: int
    max_length: int
    num_counted: int
    num_over: int
    band: float | None
    histogram: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of every example (N,) as it will be used; by number, why some cannot be used, and what was cut short.

    `num_over` were longer than `max_length`; `refused`: the manifest takes none of those.
    """

    total: np.ndarray
    labelled: np.ndarray
    unfit: Mapping[int, str]
    cut: Mapping[int, Example]
    max_length: int
    num_over: int
    refused: bool
    band: float | None


def measure(examples: Sequence[Example], may_cut: np.ndarray, plan: Plan, session: Session, watch: Watch) -> Lengths:
    """Counts every example's tokens and decides what becomes of the long ones; `may_cut` (N,) may be truncated.

    An estimate drops nothing: it only says how many rows are probably too long.
    """
    counts, band = _count(examples, session, watch)
    max_length, policy = plan.hyperparameters.max_length, plan.data.long_rows
    over = np.flatnonzero(counts.total > max_length)
    unfit, cut = dict(counts.problems), dict[int, Example]()
    for i in map(int, over if band is None else ()):
        shorter = session.shorten(examples[i], max_length) if policy == "truncate" and may_cut[i] else None
        if shorter is not None:
            cut[i] = shorter
        else:
            kept_whole = "; only training rows are truncated" if policy == "truncate" and not may_cut[i] else ""
            size = f"{counts.total[i]} tokens, {max_length} allowed{kept_whole}"
            unfit[i] = f"longer than hyperparameters.max_length ({size})"
    total, labelled = counts.total.copy(), counts.labelled.copy()
    if cut:
        again, _ = _count(list(cut.values()), session, watch)
        total[list(cut)], labelled[list(cut)] = again.total, again.labelled
    return Lengths(
        total=total,
        labelled=labelled,
        unfit=unfit,
        cut=cut,
        max_length=max_length,
        num_over=len(over),
        refused=policy == "refuse" and band is None and len(over) > 0,
        band=band,
    )


def _count(examples: Sequence[Example], session: Session, watch: Watch) -> tuple[TokenCounts, float | None]:
    """Tokens of each example, and the band that they are known to (None: exactly)."""
    counts = session.count_tokens(examples, watch)
    return (counts, None) if counts is not None else (estimate_tokens(examples), BAND)


def estimate_tokens(examples: Sequence[Example]) -> TokenCounts:
    """Tokens of each example judged by its characters, for models whose tokenizer is not at hand."""
    total, labelled = np.empty(len(examples), np.int32), np.empty(len(examples), np.int32)
    for i, example in enumerate(examples):
        total[i], labelled[i] = estimate_example(example)
    return TokenCounts(total=total, labelled=labelled, problems={})


def report_tokens(lengths: Lengths, kept: np.ndarray) -> TokenReport:
    """What the kept examples (their numbers, at least one) come to."""
    total, labelled = lengths.total[kept], lengths.labelled[kept]
    median, p90, p99 = (round(float(q)) for q in np.percentile(total, (50, 90, 99)))
    edges = np.unique(np.ceil(np.linspace(total.min() - 1, total.max(), BINS + 1)))
    heights, _ = np.histogram(total, bins=edges + 0.5)
    return TokenReport(
        total=int(total.sum()),
        labelled=int(labelled.sum()),
        median=median,
        p90=p90,
        p99=p99,
        longest=int(total.max()),
        longest_answer=int(labelled.max()),
        max_length=lengths.max_length,
        num_counted=len(lengths.total),
        num_over=lengths.num_over,
        band=lengths.band,
        histogram=tuple((int(end), int(height)) for end, height in zip(edges[1:], heights, strict=True)),
    )


def refusal(lengths: Lengths, ledger: Path) -> Problem:
    """What ends a run that takes no long rows."""
    return Problem(
        code="data/long-rows",
        what=f"{lengths.num_over:,} of {len(lengths.total):,} rows are longer than {lengths.max_length:,} tokens, and "
        f"data.long_rows is 'refuse'; each is in {ledger}.",
        where=Where(key="data.long_rows"),
        fix="Raise hyperparameters.max_length, shorten the rows, or set data.long_rows to drop or truncate.",
    )


def length_findings(lengths: Lengths) -> Iterator[Problem]:
    """How many rows exceed the length and what was done about it, and whether the counts are an estimate."""
    num_cut, num_rows = len(lengths.cut), len(lengths.total)
    if lengths.num_over:
        fate = f"{num_cut} were truncated, {lengths.num_over - num_cut} dropped" if num_cut else "they were dropped"
        if lengths.band is not None:
            fate = "by estimate, so none was dropped"
        share = f"{lengths.num_over / num_rows:.1%} of rows ({lengths.num_over:,})"
        yield Problem(
            code="data/long-rows",
            what=f"{share} exceed {lengths.max_length} tokens; {fate}.",
            where=Where(key="data.long_rows"),
            fix="Raise hyperparameters.max_length, or set data.long_rows to truncate or refuse.",
            severity="warning",
        )
    if lengths.band is not None:
        yield Problem(
            code="data/estimated-tokens",
            what="The model's tokenizer is not at hand: token counts are estimated from the characters and may be "
            f"off by a factor of {lengths.band:g} either way.",
            severity="note",
        )
