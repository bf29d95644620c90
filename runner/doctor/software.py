"""The packages that are installed, against the ranges that we promise to work with."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from packaging.requirements import Requirement

from runner.doctor.checks import Check, Patient, fail, ok, unknown, warning
from runner.errors import Exit
from runner.packages import INSTALL, missing_for_training

TRAINS_HERE = ("lora", "qlora", "full")


def look_at_software(patient: Patient) -> Iterator[Check]:
    """The core, and what training takes."""
    try:
        entries = [Requirement(text) for text in importlib.metadata.requires("runner") or ()]
    except importlib.metadata.PackageNotFoundError:
        yield unknown("packages", "runner itself is not installed as a package, so its ranges are unknown")
        return
    core = [entry for entry in entries if not entry.marker or entry.marker.evaluate({"extra": ""})]
    training = [e for e in entries if e.marker and e.marker.evaluate({"extra": "train"}) and e not in core]
    yield _judge("packages", core, [])
    missing = missing_for_training()
    if not missing:
        yield _judge("training packages", training, [])
        return
    needed = patient.manifest is not None and patient.manifest.values["approach"]["kind"] in TRAINS_HERE
    what = f"not installed: {', '.join(missing)}"
    if needed:
        yield fail("training packages", what, INSTALL, Exit.INPUT_MISSING)
    else:
        yield warning("training packages", f"{what}; validate, plan and report do without", INSTALL)


def _judge(name: str, entries: list[Requirement], told: list[str]) -> Check:
    """Whether each package is there, in a version of its range."""
    for entry in entries:
        try:
            found = importlib.metadata.version(entry.name)
        except importlib.metadata.PackageNotFoundError:
            told.append(f"{entry.name} is not installed")
            continue
        if not entry.specifier.contains(found, prereleases=True):
            told.append(f"{entry.name} {found} is outside {entry.specifier}")
    if told:
        return fail(name, "; ".join(told), "Install the versions of constraints.txt.", Exit.INPUT_MISSING)
    return ok(name, f"{len(entries)} packages, each in its range")
