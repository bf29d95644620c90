"""Which format do the rows have? The one that is named, or the only one that fits; never a guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from runner.data.reading.columns import has_column, paths, places
from runner.data.reading.formats import FORMATS
from runner.data.reading.proposals import columns_of, nearest, proposal
from runner.data.reading.records import Record, listed
from runner.errors import Exit, Problem, RunnerError, Where
from runner.plan import SourcePlan, Template

LOOKED_AT = 200
STRAY = 0.05  # share of rows in another format that are errors of the file, not a second format


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The format of a source's rows, and the sentence that says why."""

    format: str
    evidence: str


def detect(records: Iterable[Record], wanted: str, template: Template | None, name: str) -> Detection:
    """The format of the rows: the one that is `wanted`, or the only one that the first rows have.

    Raises RunnerError (65) when they have none, more than one or not the one that is wanted, or lack a column of the
    template in every row.
    """
    looked_at = _looked_at(records)
    rows = _objects(looked_at)
    if wanted == "columns" or (wanted == "auto" and template is not None):
        return _columns_there(rows, template, name)
    known = _known(rows)
    if wanted != "auto":
        if looked_at and not any(FORMATS[wanted].has_keys(row) for row in rows):
            raise _problem("data/wrong-format", *_misnamed(wanted, known, rows, len(looked_at)), name)
        return Detection(format=wanted, evidence=f"{wanted}: named by data.format")
    if not known:
        raise _problem("data/unknown-format", *_unknown(rows, len(looked_at)), name)
    (best, _), *others = known.most_common()
    counted = [_counted(names, count, len(looked_at)) for names, count in known.most_common()]
    if len(best) > 1 or sum(other for _, other in others) > STRAY * known.total():
        what = f"The rows fit more than one format: {'; '.join(counted)}."
        fix = f"Write data.format: {_choices(known)}; or one source for each."
        raise _problem("data/ambiguous-format", what, fix, name)
    return Detection(format=next(iter(best)), evidence="; ".join(counted))


def check_columns(records: Iterable[Record], source: SourcePlan, name: str) -> None:
    """Raises RunnerError (65) when none of the first rows has the column of the groups or of the classes."""
    rows = _objects(_looked_at(records))
    for key, path in (("group_by", source.group_by), ("class_by", source.class_by)):
        if rows and path is not None and not any(has_column(row, path) for row in rows):
            what = f"None of the first rows has the column '{path}' (looked at: {len(rows)})."
            raise _problem("data/unknown-column", what, _other_columns(path, rows), name, f"data.{key}")


def _looked_at(records: Iterable[Record]) -> list[Record]:
    return list(islice((record for record in records if record.reason is None), LOOKED_AT))


def _objects(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [record.value for record in records if isinstance(record.value, dict)]


def _known(rows: list[dict[str, Any]]) -> Counter[frozenset[str]]:
    """How many rows fit which formats."""
    fitting = Counter(frozenset(key for key, form in FORMATS.items() if form.fits(row)) for row in rows)
    return Counter({names: count for names, count in fitting.items() if names})


def _choices(known: Counter[frozenset[str]]) -> str:
    return " or ".join(sorted(frozenset().union(*known)))


def _counted(names: frozenset[str], count: int, looked_at: int) -> str:
    keys = " and ".join(FORMATS[name].known_by for name in sorted(names))
    return f"{' and '.join(sorted(names))}: {count} of {looked_at} rows looked at have {keys}"


def _misnamed(
    wanted: str, known: Counter[frozenset[str]], rows: list[dict[str, Any]], looked_at: int
) -> tuple[str, str]:
    """That the format which is named fits no row, and which one does."""
    seen = f"none of the first rows has {FORMATS[wanted].known_by} (looked at: {looked_at})"
    what = f"The format '{wanted}' is named, but {seen}"
    if known:
        counted = "; ".join(_counted(names, count, looked_at) for names, count in known.most_common())
        return f"{what}.", f"Write data.format: {_choices(known)} ({counted})."
    if not rows:
        return f"{what}: none is an object with keys.", f"Write rows such as {FORMATS[wanted].shape}"
    cure = proposal(rows)
    if "data.template" in cure:
        cure = f"{cure.rstrip('.')}; a template needs data.format: columns."
    return f"{what}; the columns are: {listed(columns_of(rows), 12) or 'none'}.", cure


def _unknown(rows: list[dict[str, Any]], looked_at: int) -> tuple[str, str]:
    """What was found instead of a known format, and what to write."""
    columns = columns_of(rows)
    if not columns:
        what = "No row has a known format" if looked_at else "No row can be read"
        return f"{what}: none is an object with keys.", f"Write rows such as {FORMATS['chat'].shape}"
    return f"The rows have no known format; their columns are: {listed(columns, 12)}.", proposal(rows)


def _columns_there(rows: list[dict[str, Any]], template: Template | None, name: str) -> Detection:
    """That every column of the template is in some row; raises RunnerError (65) with the nearest name otherwise."""
    if template is None:
        fix = 'For example data.template: {prompt: "{{question}}", completion: "{{answer}}"}'
        raise _problem("data/no-template", "The format 'columns' needs a template.", fix, name, "data.template")
    wanted = list(dict.fromkeys(places(template)))
    missing = [path for path in wanted if rows and not any(has_column(row, path) for row in rows)]
    if missing:
        what = f"No row has the template's column '{missing[0]}'."
        raise _problem("data/unknown-column", what, _other_columns(missing[0], rows), name, "data.template")
    return Detection(format="columns", evidence=f"columns: data.template names {', '.join(wanted) or 'none'}")


def _other_columns(path: str, rows: list[dict[str, Any]]) -> str:
    """The columns there are, with the one, or the dotted path, that is most like the missing one."""
    near = nearest(path, list(dict.fromkeys(there for row in rows for there in paths(row))), cutoff=0.5)
    hint = f"Did you mean '{listed([near], 1)}'? " if near else ""
    return f"{hint}The columns are: {listed(columns_of(rows), 12) or 'none'}."


def _problem(code: str, what: str, fix: str, name: str, key: str = "data.format") -> RunnerError:
    return RunnerError(Problem(code=code, what=what, where=Where(path=name, key=key), fix=fix), Exit.DATA_REJECTED)
