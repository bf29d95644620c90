"""The primary metric on parts of the test rows: by class, by length, by source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

from runner.conversation import Example
from runner.evaluate.compare import compare
from runner.metrics import Answer
from runner.metrics.words import normalise
from runner.scoring import Scored, Scoring, mean_of

MAX_SLICES = 20
MIN_FOR_LENGTHS = 15


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the test rows: each side's mean score, and tuned minus base with its interval."""

    by: str
    name: str
    num_rows: int
    scores: Mapping[str, float | None]
    difference: float | None
    ci_low: float | None
    ci_high: float | None


def slice_rows(sides: Mapping[str, Scored], scoring: Scoring, margin: float) -> tuple[Slice, ...]:
    """Every way of slicing that gives more than one slice; the largest MAX_SLICES of each. Sides by name, among them
    base and tuned."""
    found = []
    for by, names in _ways(next(iter(sides.values()))):
        members: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            members.setdefault(name, []).append(i)
        if len(members) > 1:
            largest = sorted(members, key=lambda name: (-len(members[name]), name))[:MAX_SLICES]
            found += [_slice(by, name, members[name], sides, scoring, margin) for name in sorted(largest)]
    return tuple(found)


def _ways(scored: Scored) -> Iterator[tuple[str, list[str]]]:
    """Ways of slicing, with the name of each row's slice."""
    rows = scored.rows
    yield "class", [_class(row, item) for row, item in zip(rows, scored.items, strict=True)]
    yield "source", [row.source.rpartition(":")[0] or row.source for row in rows]
    if len(rows) >= MIN_FOR_LENGTHS:
        low, high = quantiles([len(row.question) for row in rows], n=3)
        yield "length", [_length(len(row.question), round(low), round(high)) for row in rows]


def _class(row: Example, item: Answer) -> str:
    """The class that the data gives the row, else the expected answer where answers are classes."""
    return row.label or (normalise(row.expected) if item.classes else None) or "none"


def _length(size: int, low: int, high: int) -> str:
    if size <= low:
        return f"1: up to {low} characters"
    return f"2: up to {high} characters" if size <= high else f"3: over {high} characters"


def _slice(
    by: str, name: str, members: Sequence[int], sides: Mapping[str, Scored], scoring: Scoring, margin: float
) -> Slice:
    parts = {side: _some(scored, members) for side, scored in sides.items()}
    found = compare(scoring.primary, "base", parts["base"], parts["tuned"], scoring, margin)
    return Slice(
        by=by,
        name=name,
        num_rows=len(members),
        scores={side: mean_of(scoring, part, scoring.primary) for side, part in parts.items()},
        difference=found.difference if found else None,
        ci_low=found.ci_low if found else None,
        ci_high=found.ci_high if found else None,
    )


def _some(scored: Scored, members: Sequence[int]) -> Scored:
    return Scored(
        rows=[scored.rows[i] for i in members],
        prompts=[scored.prompts[i] for i in members],
        replies=[scored.replies[i] for i in members],
        items=[scored.items[i] for i in members],
        scores={name: [found[i] for i in members] for name, found in scored.scores.items()},
    )
