"""What a check finds, and what checks may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from runner.destination import Destination
from runner.errors import Exit, Problem
from runner.identity import hashing, identify, run_directory
from runner.machine.cgroups import ROOT
from runner.manifest import Manifest
from runner.platforms import find_platform

Status = Literal["ok", "warning", "fail", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at. `exit_code` is what a run would end with because of it; what is unknown is not
    fine, and stands for 69."""

    name: str
    status: Status
    what: str
    fix: str = ""
    exit_code: Exit = Exit.DONE


@dataclass(frozen=True, kw_only=True)
class Patient:
    """The machine and the run that are examined; `url` is the mirror of the run directory. Without a manifest, only
    what every run needs is looked at."""

    manifest: Manifest | None
    environment: Mapping[str, str]
    cache: Path
    run_directory: Path
    run_id: str | None = None
    url: str | None = None
    root: Path = ROOT

    @classmethod
    def admit(
        cls, manifest: Manifest | None, destination: Destination, environment: Mapping[str, str], cache: Path
    ) -> Patient:
        """The machine as a run of the manifest, or any run, would find it. Raises RunnerError (73) where a service
        names a bucket that is not mounted."""
        platform = find_platform(environment)
        root, out = platform.root if platform else None, destination.folder
        seen = partial(cls, manifest=manifest, environment=environment, cache=cache, url=destination.url)
        if manifest is None:
            return seen(run_directory=out or root or Path("runs"))
        run_id = identify(manifest, hashing(cache))
        return seen(run_directory=run_directory(manifest, run_id, out, root), run_id=run_id)

    @property
    def model(self) -> str | None:
        """The manifest's model, as written."""
        return str(self.manifest.values["approach"]["model"]) if self.manifest else None


def ok(name: str, what: str) -> Check:
    """Nothing stands against a run."""
    return Check(name=name, status="ok", what=what)


def warning(name: str, what: str, fix: str = "") -> Check:
    """A run can do, and somebody should know."""
    return Check(name=name, status="warning", what=what, fix=fix)


def fail(name: str, what: str, fix: str, exit_code: Exit) -> Check:
    """A run would end with the exit code."""
    return Check(name=name, status="fail", what=what, fix=fix, exit_code=exit_code)


def unknown(name: str, what: str, fix: str = "") -> Check:
    """Nobody can say."""
    return Check(name=name, status="unknown", what=what, fix=fix, exit_code=Exit.UNAVAILABLE)


def failed(name: str, problem: Problem, exit_code: Exit) -> Check:
    """A problem that a run would end with."""
    return fail(name, problem.what, problem.fix, exit_code)
