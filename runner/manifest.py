"""What the person asked for: a manifest that has passed the schema and the rules between keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.backends import APPROACHES
from runner.document import Document, read_document, set_value
from runner.errors import Exit, Problem, RunnerError
from runner.schema import check_schema, read_schema


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A valid manifest as written; `values` holds only what stands there, `document` where it stands."""

    path: Path
    document: Document
    overrides: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The written values, as plain data."""
        values: dict[str, Any] = self.document.value
        return values

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the manifest start from."""
        return self.path.parent


def load_manifest(path: Path, overrides: Sequence[str] = ()) -> Manifest:
    """Reads, overrides and checks a manifest; raises RunnerError (64, 66, 78) with every fault found."""
    document = read_document(path)
    malformed: list[Problem] = []
    for assignment in overrides:
        try:
            set_value(document, assignment)
        except RunnerError as error:
            malformed.extend(error.problems)
    if malformed:
        raise RunnerError(malformed, Exit.USAGE)
    known = {problem.where.key for problem in document.problems}
    found = check_schema(document, read_schema("manifest"))
    problems = [*document.problems, *(problem for problem in found if problem.where.key not in known)]
    problems.extend(_cross_rules(document, problems))
    if problems:
        problems.sort(key=lambda problem: (problem.where.line or 0, problem.where.column or 0))
        raise RunnerError(problems, Exit.MANIFEST)
    return Manifest(path=path, document=document, overrides=tuple(overrides))


def _cross_rules(document: Document, problems: Sequence[Problem]) -> Iterator[Problem]:
    """Rules that join several keys, which the schema cannot say well; each looks only at keys without a problem."""
    faulty = {problem.where.key for problem in problems}
    kind = document.get("approach", "kind")
    if "approach.kind" not in faulty and kind in APPROACHES and APPROACHES[kind].module is None:
        built = ", ".join(name for name, vendor in APPROACHES.items() if vendor.module)
        yield Problem(
            code="approach/not-built",
            what=f"The approach '{kind}' is not built yet.",
            where=document.where(("approach", "kind"), value=True),
            fix=f"Use one of: {built}.",
        )
    yield from _data_rules(document, faulty)


def _data_rules(document: Document, faulty: set[str | None]) -> Iterator[Problem]:
    """What a part is made of, and that a row's format and template fit together."""
    schema = read_schema("manifest")["properties"]["data"]["properties"]["split"]["properties"]
    shares = {part: schema[part]["default"] for part in ("dev", "test") if not document.get("data", part)}
    if not faulty.intersection(f"data.split.{part}" for part in shares):
        held_out = sum(document.get("data", "split", part, default=share) for part, share in shares.items())
        if held_out > 0.8:
            yield Problem(
                code="data/split",
                what=f"dev and test together take {held_out:.0%} of the rows, which leaves too little to train on.",
                where=document.where(("data", "split")),
                fix="Keep them at 0.8 or less together.",
            )
    for path in _templated(document):
        holder = document.get(*path)
        has_template = bool(holder.get("template") or document.get("data", "template"))
        name = holder.get("format", "auto")
        if name == "columns" and not has_template:
            yield Problem(
                code="data/template",
                what="The format 'columns' needs a template that says what the columns are.",
                where=document.where((*path, "format"), value=True),
                fix='For example  template: {prompt: "{{question}}", completion: "{{answer}}"}',
            )
        elif holder.get("template") and name not in ("auto", "columns"):
            yield Problem(
                code="data/template",
                what=f"A template reads columns, and the format is '{name}'.",
                where=document.where((*path, "template")),
                fix="Remove the template, or set format: columns.",
            )
    for i, entry in enumerate(document.get("data", "mix", default=[]) if "data.mix" not in faulty else ()):
        if isinstance(entry, dict) and (entry.get("fraction") is None) == (entry.get("rows") is None):
            yield Problem(
                code="data/mix",
                what="A mix takes either 'fraction' or 'rows'.",
                where=document.where(("data", "mix", i)),
                fix="For example  fraction: 0.1",
            )


def _templated(document: Document) -> Iterator[tuple[str | int, ...]]:
    """Every place under data that may name a format and a template."""
    if isinstance(document.get("data"), dict):
        yield ("data",)
    for part in ("train", "dev", "test", "mix"):
        entries = document.get("data", part)
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict):
                yield ("data", part, i)
