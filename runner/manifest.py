"""What the person asked for: a manifest that has passed the schema and the rules between keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.backends.wandb import has_login
from runner.credentials import keys_named_in
from runner.document import Document, read_document, set_value
from runner.errors import Exit, Problem, RunnerError, Where
from runner.pushing import destination, is_hub
from runner.rules import cross_rules, secret_rules
from runner.schema import check_schema, read_schema
from runner.variants import SECTION, expand, point_problems


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A valid manifest as written; `values` holds only what stands there, `document` where it stands.

    `overrides` and `trust_remote_code` (whether Python code that comes with a model may run) stand on the command line.
    """

    path: Path
    document: Document
    overrides: tuple[str, ...] = ()
    trust_remote_code: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """The written values, as plain data."""
        values: dict[str, Any] = self.document.value
        return values

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the manifest start from."""
        return self.path.parent

    def place(self, problem: Problem) -> Problem:
        """The problem with its place in the manifest, where a stage only named the key."""
        if not problem.where.key or problem.where.path:
            return problem
        return problem.at(self.document.where(tuple(problem.where.key.split("."))))


def missing_credentials(manifest: Manifest, environment: Mapping[str, str]) -> Iterator[Problem]:
    """Keys that the manifest's run will ask for and that are not in this environment, which need not be the run's."""
    for path in keys_named_in(manifest.values):
        name = manifest.document.get(*path)
        if not any(environment.get(given) for given in (name, f"{name}_FILE")):
            what = f"The key {name} is not set here."
            yield _not_here(what, name, manifest.document.where(path, value=True))
    if manifest.document.get("tracking", "wandb") == "online" and not has_login(environment):
        where = manifest.document.where(("tracking", "wandb"), value=True)
        yield _not_here("There is no key of W&B here.", "WANDB_API_KEY", where)
    if is_hub(destination(manifest.values) or "") and not any(map(environment.get, ("HF_TOKEN", "HF_TOKEN_FILE"))):
        where = manifest.document.where(("delivery", "to"), value=True)
        yield _not_here("There is no token for the hub here.", "HF_TOKEN", where)


def _not_here(what: str, name: str, where: Where) -> Problem:
    fix = f"Where the run takes place, set {name}, or {name}_FILE to a file that holds it."
    return Problem(code="credentials/missing", what=what, where=where, fix=fix, severity="note")


def load_manifest(path: Path, overrides: Sequence[str] = (), *, stands_for: Path | None = None) -> Manifest:
    """Reads, overrides and checks a manifest; raises RunnerError (64, 66, 78) with every fault found.

    `stands_for` is where the file was that `path` is a copy of: relative paths start from there.
    """
    document = read_document(path)
    malformed: list[Problem] = []
    for assignment in overrides:
        try:
            set_value(document, assignment)
        except RunnerError as error:
            malformed.extend(error.problems)
    if malformed:
        raise RunnerError(malformed, Exit.USAGE)
    problems = [*document.problems, *_faults(document, document.problems)]
    if not any((problem.where.key or "").split(".")[0] == SECTION for problem in problems):
        variants, faults = expand(document)
        problems += faults or point_problems(document, variants, problems, _faults)
    if problems:
        problems.sort(key=lambda problem: (problem.where.line or 0, problem.where.column or 0))
        raise RunnerError(problems, Exit.MANIFEST)
    return Manifest(path=stands_for or path, document=document, overrides=tuple(overrides))


def _faults(document: Document, read: Sequence[Problem] = ()) -> list[Problem]:
    """What is wrong with the values of a document, beyond the faults that were found when it was `read`."""
    first = [*read, *secret_rules(document)]
    known = {problem.where.key for problem in first}
    found = check_schema(document, read_schema("manifest"))
    problems = [*first, *(problem for problem in found if problem.where.key not in known)]
    problems.extend(cross_rules(document, problems))
    return problems[len(read) :]
