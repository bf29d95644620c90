"""What the person asked for: a manifest that has passed the schema and the rules between keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.document import Document, read_document, set_value
from runner.errors import Exit, Problem, RunnerError
from runner.rules import cross_rules
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
    problems.extend(cross_rules(document, problems))
    if problems:
        problems.sort(key=lambda problem: (problem.where.line or 0, problem.where.column or 0))
        raise RunnerError(problems, Exit.MANIFEST)
    return Manifest(path=path, document=document, overrides=tuple(overrides))
