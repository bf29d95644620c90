"""A run that is over, read back from its directory alone, to be repeated. Loads nothing heavy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.data.reading.sources import is_url
from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import read_small
from runner.lock import Locked
from runner.machine.hardware import look_at_hardware
from runner.machine.threads import settled
from runner.manifest import Manifest
from runner.plan import model_reference, source_files
from runner.rundir import KEPT_MANIFEST, RECORD, RECORD_VERSION, finished_report
from runner.schema import read_schema

MOST_BYTES = 20_000_000
ACCEPT = "or leave --locked out: what differs is then told, and the run goes on"


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run directory: its record, and the manifest's text that it keeps."""

    directory: Path
    record: Mapping[str, Any]

    @property
    def kept_manifest(self) -> Path:
        """The manifest as it was, in the directory."""
        return self.directory / KEPT_MANIFEST

    def homes(self) -> list[Path]:
        """Where the manifest may have been: as seen from the directory, should both have moved, and as it was."""
        written = self.record["manifest"]
        return list(dict.fromkeys([(self.directory / written["from_here"]).resolve(), Path(written["path"])]))

    def locked(self, *, refuses: bool) -> Locked:
        """What a repetition is held to."""
        return Locked(
            facts=self.record["stands_on"],
            path=self.directory / RECORD,
            accept=ACCEPT,
            refuses=refuses,
            weights_sha256=self.record["weights_sha256"],
        )


def read_run(directory: Path) -> PastRun:
    """The run in a directory. Raises RunnerError: 66 there is none, 78 its record or its manifest is not as it was
    written, or of a version that is not known here."""
    path = directory / RECORD
    try:
        record = json.loads(read_small(path, MOST_BYTES))
    except OSError as error:
        what = f"There is no run in this directory: {RECORD} cannot be read ({error.strerror})."
        fix = "Name the directory of a run: the one that holds its report.json and run.lock.json."
        raise _unusable("missing", what, directory, fix, Exit.INPUT_MISSING) from error
    except ValueError as error:
        raise _damaged(path, f"{RECORD} is torn or not JSON") from error
    if not isinstance(record, dict):
        raise _damaged(path, f"{RECORD} holds no record")
    if record.get("schema_version") != RECORD_VERSION:
        version = record.get("runner_version", "an unknown version")
        what = f"The run was recorded by runner {version} in a form that this runner does not know."
        fix = "Repeat it with that runner, or run its manifest anew: runner MANIFEST"
        raise _unusable("version", what, path, fix, Exit.MANIFEST)
    _check_record(record, path)
    run = PastRun(directory=directory, record=record)
    _check_manifest(run)
    return run


def _check_record(record: Mapping[str, Any], path: Path) -> None:
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(read_schema("run.lock")).iter_errors(record), key=lambda e: list(e.path))
    if errors:
        place = ".".join(map(str, errors[0].absolute_path))
        raise _damaged(path, f"{RECORD} is damaged{f' at {place}' if place else ''}: {errors[0].message[:120]}")


def _check_manifest(run: PastRun) -> None:
    try:
        raw = read_small(run.kept_manifest, MOST_BYTES)
    except OSError as error:
        raise _damaged(run.kept_manifest, f"{KEPT_MANIFEST} cannot be read ({error.strerror})") from error
    if hashlib.sha256(raw).hexdigest() != run.record["manifest"]["sha256"]:
        why = f"{KEPT_MANIFEST} is not the one that was run: it was edited, or what looked like a secret was masked"
        raise _damaged(run.kept_manifest, why)


def _damaged(path: Path, why: str) -> RunnerError:
    fix = "Run the experiment's own manifest; nothing of this directory can be relied on for it."
    return _unusable("damaged", f"{why}.", path, fix, Exit.MANIFEST)


def _unusable(slug: str, what: str, path: Path, fix: str, exit_code: Exit) -> RunnerError:
    problem = Problem(code=f"repeat/{slug}", what=what, where=Where(path=str(path)), fix=fix)
    return RunnerError(problem, exit_code)


def missing_files(manifest: Manifest) -> list[Path]:
    """The files and the model's folder that a manifest names and that are not there."""
    model = Path(model_reference(manifest))
    named = [*source_files(manifest), *([model] if model.is_absolute() else [])]
    return [path for path in named if not path.exists()]


def moved(run: PastRun, missing: list[Path]) -> RunnerError:
    """That the files of a run are in none of the places where they may be."""
    homes = " nor ".join(f"in {home.parent}" for home in run.homes())
    what = f"The files of the run are not {homes}: {missing[0].name} is missing."
    fix = f"Put the manifest's folder back, or run the manifest where it is now: runner {run.homes()[-1].name}"
    return _unusable("moved", what, run.directory, fix, Exit.INPUT_MISSING)


def other_values(run: PastRun) -> RunnerError:
    """That the values of the run cannot be had again from its directory."""
    return _damaged(run.directory, "What was set on the command line held secrets, and is not kept")


def _kind(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """What the last bits of a result on the processors rest on."""
    return {name: hardware[name] for name in ("processor", "architecture", "instruction_sets")}


def _floating(facts: Mapping[str, Any]) -> list[str]:
    """What comes from the hub, and at which commit is not known."""
    models = [entry["name"] for entry in facts["models"] if entry["kind"] == "hub" and not entry.get("commit")]
    data = (entry for entry in facts["data"] if "sha256" not in entry and not entry.get("commit"))
    return [*models, *(entry["name"] for entry in data if not is_url(entry["name"]))]


def find_differences(run: PastRun) -> list[Problem]:
    """What speaks against comparing with the run: it did not end, or it was on another machine (a note)."""
    found = []
    where = Where(path=str(run.directory))
    if finished_report(run.directory, run.record["run_id"]) is None:
        what = "The run that is to be repeated did not come to its end, so there is nothing to compare with."
        fix = f"Go on with it instead: runner {run.record['manifest']['path']} --out {run.directory}"
        found.append(Problem(code="repeat/unfinished", what=what, where=where, fix=fix))
    for name in _floating(run.record["stands_on"]):
        what = f"The commit that {name} stood for is not in the record, so it may be another one now."
        found.append(Problem(code="repeat/floating", what=what, where=where, fix="Name a commit in the manifest."))
    before = {**_kind(run.record["hardware"]), "threads": run.record["threads"]["count"]}
    here = {**_kind(look_at_hardware()), "threads": settled().count}
    if before != here:
        told = "; ".join(f"{name} {before[name]}, here {here[name]}" for name in here if before[name] != here[name])
        what = f"The run was on another kind of machine: {told}."
        fix = "The weights may differ in their last bits; docs/reproducing.md says on which machines they agree."
        found.append(Problem(code="repeat/other-machine", what=what, where=where, fix=fix, severity="note"))
    return found
