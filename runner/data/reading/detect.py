"""Which format do the rows have? The one that is named, or the only one that fits; never a guess."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from runner.data.reading.columns import has_column, places
from runner.data.reading.formats import FORMATS
from runner.data.reading.records import Record, listed
from runner.errors import Exit, Problem, RunnerError, Where
from runner.plan import Template

LOOKED_AT = 200
STRAY = 0.05  # share of rows in another format that are errors of the file, not a second format
QUESTIONS = ("question", "query", "prompt", "instruction", "input", "text", "message", "user", "context", "sentence")
ANSWERS = ("answer", "answers", "response", "output", "completion", "target", "label", "reply", "summary", "assistant")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The format of a source's rows, and the sentence that says why."""

    format: str
    evidence: str


def detect(records: Iterable[Record], wanted: str, template: Template | None, name: str) -> Detection:
    """The format of the rows: the one that is `wanted`, or the only one that the first rows have.

    Raises RunnerError (65) when they have none or more than one, or lack a column of the template in every row.
    """
    looked_at = list(islice((record for record in records if record.reason is None), LOOKED_AT))
    rows = [record.value for record in looked_at if isinstance(record.value, dict)]
    if wanted == "columns" or (wanted == "auto" and template is not None):
        return _columns_there(rows, template, name)
    if wanted != "auto":
        return Detection(format=wanted, evidence=f"{wanted}: named by data.format")
    fitting = Counter(frozenset(key for key, form in FORMATS.items() if form.fits(row)) for row in rows)
    known = Counter({names: count for names, count in fitting.items() if names})
    if not known:
        raise _problem("data/unknown-format", *_unknown(rows, len(looked_at)), name)
    (best, _), *others = known.most_common()
    counted = [_counted(names, count, len(looked_at)) for names, count in known.most_common()]
    if len(best) > 1 or sum(other for _, other in others) > STRAY * known.total():
        choices = " or ".join(sorted(frozenset().union(*known)))
        what = f"The rows fit more than one format: {'; '.join(counted)}."
        raise _problem("data/ambiguous-format", what, f"Write data.format: {choices}; or one source for each.", name)
    return Detection(format=next(iter(best)), evidence="; ".join(counted))


def _counted(names: frozenset[str], count: int, looked_at: int) -> str:
    keys = " and ".join(FORMATS[name].known_by for name in sorted(names))
    return f"{' and '.join(sorted(names))}: {count} of {looked_at} rows looked at have {keys}"


def _unknown(rows: list[dict[str, Any]], looked_at: int) -> tuple[str, str]:
    """What was found instead of a known format, and a template made of the columns that there are."""
    columns = _columns(rows)
    if not columns:
        what = "No row has a known format" if looked_at else "No row can be read"
        return f"{what}: none is an object with keys.", f"Write rows such as {FORMATS['chat'].shape}"
    what = f"The rows have no known format; their columns are: {listed(columns, 12)}."
    for known in (key for form in FORMATS.values() for names in form.keys for key in names):
        if near := difflib.get_close_matches(known, [column.strip().lower() for column in columns], n=1, cutoff=0.8):
            return what, f"Did you mean '{known}' where '{near[0]}' stands? Else write data.template."
    prompt, completion = _likely(columns, QUESTIONS, 0), _likely(columns, ANSWERS, -1)
    example = f'{{prompt: "{{{{{prompt}}}}}", completion: "{{{{{completion}}}}}"}}'
    return what, f"Write data.format ({', '.join(FORMATS)}), or for example data.template: {example}"


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(column) for row in rows for column in row))


def _likely(columns: list[str], usual: tuple[str, ...], otherwise: int) -> str:
    return listed([next((c for word in usual for c in columns if c.lower() == word), columns[otherwise])], 1)


def _columns_there(rows: list[dict[str, Any]], template: Template | None, name: str) -> Detection:
    """That every column of the template is in some row; raises RunnerError (65) with the nearest name otherwise."""
    if template is None:
        fix = 'For example data.template: {prompt: "{{question}}", completion: "{{answer}}"}'
        raise _problem("data/no-template", "The format 'columns' needs a template.", fix, name, "data.template")
    wanted = list(dict.fromkeys(places(template)))
    missing = [path for path in wanted if rows and not any(has_column(row, path) for row in rows)]
    if missing:
        columns = _columns(rows)
        near = difflib.get_close_matches(missing[0], columns, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        what = f"No row has the template's column '{missing[0]}'."
        fix = f"{hint}The columns are: {listed(columns, 12)}."
        raise _problem("data/unknown-column", what, fix, name, "data.template")
    return Detection(format="columns", evidence=f"columns: data.template names {', '.join(wanted) or 'none'}")


def _problem(code: str, what: str, fix: str, name: str, key: str = "data.format") -> RunnerError:
    return RunnerError(Problem(code=code, what=what, where=Where(path=name, key=key), fix=fix), Exit.DATA_REJECTED)
