"""Rows of no known format, or without a column -> what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from runner.data.reading.formats import FORMATS
from runner.data.reading.records import listed

Rows = Sequence[Mapping[str, Any]]

QUESTIONS = ("question", "query", "prompt", "instruction", "input", "text", "message", "user", "context", "sentence")
ANSWERS = ("answer", "answers", "response", "output", "completion", "target", "label", "reply", "summary", "assistant")
NO_CONTENT = ("id", "index", "url", "source", "timestamp", "meta", "metadata")
ONE_TEXT = (
    "Give each row a question and an answer, such as the columns prompt and completion; continued pre-training on "
    "plain text is not supported."
)
MOST_LOOKED_AT = 1_000  # columns whose likeness to a name is measured
PREFERENCES = "Preference data (chosen and rejected) is not supported yet, only pairs of a question and an answer"


def proposal(rows: Rows) -> str:
    """What to write where the rows have no known format: columns by their own names, none of them twice. Of a very
    wide file only the first columns are looked at."""
    rows = [dict(islice(row.items(), MOST_LOOKED_AT)) for row in rows]
    columns = columns_of(rows)
    return _of_preferences(rows, columns) or _of_misspelt(columns) or _of_template(rows)


def columns_of(rows: Rows) -> list[str]:
    """The columns in order, each once."""
    return list(dict.fromkeys(str(column) for row in rows for column in row))


def nearest(written: str, columns: Sequence[str], cutoff: float) -> str | None:
    """The column whose name is most like what is written, blind to case and outer spaces, among the first."""
    plain = {column.strip().lower(): column for column in reversed(columns[:MOST_LOOKED_AT])}
    near = difflib.get_close_matches(written.strip().lower(), plain, n=1, cutoff=cutoff)
    return plain[near[0]] if near else None


def _of_preferences(rows: Rows, columns: Sequence[str]) -> str | None:
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    if not by_name.keys() >= {"chosen", "rejected"}:
        return None
    chosen, asked = by_name["chosen"], _named(columns, QUESTIONS)
    if asked and {asked, chosen} <= set(_texts(rows)):
        return f"{PREFERENCES}: to train on the chosen answers, write data.template: {_template(asked, chosen)}"
    return f"{PREFERENCES}: write rows such as {FORMATS['prompt_completion'].shape}"


def _of_misspelt(columns: Sequence[str]) -> str | None:
    """The names that stand for keys of a format, where every other key of it is there."""
    for form in FORMATS.values():
        found = [_key_meant(names, columns) for names in form.keys]
        meant = [pair for pair in found if pair is not None]
        wrong = [f"'{key}' where '{listed([column], 1)}' stands" for key, column in meant if key != column]
        if wrong and len(meant) == len(found):
            return f"Did you mean {' and '.join(wrong)}? Else write data.template."
    return None


def _key_meant(names: Sequence[str], columns: Sequence[str]) -> tuple[str, str] | None:
    """A key and the column that has its name, or one like it."""
    if there := next((name for name in names if name in columns), None):
        return there, there
    near = ((name, nearest(name, columns, cutoff=0.8)) for name in names)
    return next(((name, column) for name, column in near if column is not None), None)


def _of_template(rows: Rows) -> str:
    texts = _texts(rows)
    filled = columns_of([{key: value for key, value in row.items() if value not in (None, "")} for row in rows])
    likely = [c for c in filled if (c in texts and c.lower() not in NO_CONTENT) or c.lower() in QUESTIONS + ANSWERS]
    usable = likely or filled
    if len(usable) < 2:
        return ONE_TEXT
    answer = _named(usable, ANSWERS)
    others = [column for column in usable if column != answer]
    question = _named(others, QUESTIONS) or others[0]
    answer = answer or [column for column in others if column != question][-1]
    return f"Write data.template, for example {_template(question, answer)}"


def _texts(rows: Rows) -> list[str]:
    """The columns that hold text in some row."""
    return columns_of([{k: v for k, v in row.items() if isinstance(v, str) and v.strip()} for row in rows])


def _named(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    return next((column for word in usual for column in columns if column.strip().lower() == word), None)


def _template(question: str, answer: str) -> str:
    prompt, completion = listed([question], 1), listed([answer], 1)
    return f'{{prompt: "{{{{{prompt}}}}}", completion: "{{{{{completion}}}}}"}}'
