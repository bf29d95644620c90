"""What a command carries out: a manifest, or the one that a run directory keeps, held to a lock where one is asked
for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from runner.cli.opening import cache_folder, open_manifest
from runner.errors import Exit, Problem, RunnerError, Where
from runner.lock import Locked, canonical_sha256, find_drifts, look, pin, read_lock, settle
from runner.manifest import Manifest
from runner.repeat import PastRun, find_differences, missing_files, moved, other_values, read_run
from runner.sweep import point_manifests


@dataclass(frozen=True, kw_only=True)
class Held:
    """A manifest, what it is held to, what was found to differ (warnings), and the run that it repeats."""

    manifest: Manifest
    locked: Locked | None = None
    told: tuple[Problem, ...] = ()
    repeats: PastRun | None = None


def hold(args: argparse.Namespace) -> Held:
    """The manifest of the command line. Raises RunnerError (64, 66, 78) with every fault of it, or with everything
    that is not as it was locked."""
    past: Path | None = getattr(args, "past_run", None)
    _check_usage(args, past)
    if past is not None:
        return _repeat(read_run(past), trust=args.trust_remote_code, refuses=args.locked)
    manifest = replace(open_manifest(args.manifest, args.overrides), trust_remote_code=args.trust_remote_code)
    if not args.locked:
        return Held(manifest=manifest)
    locked = read_lock(args.manifest)
    return Held(manifest=pin(manifest, locked), locked=locked, told=_compare(manifest, locked))


def _check_usage(args: argparse.Namespace, past: Path | None) -> None:
    if past is None and args.manifest is None:
        raise _usage("No manifest is named.", "runner MANIFEST, or runner run --from RUN_DIR", "MANIFEST")
    given = {"a manifest": args.manifest, "--set": args.overrides, "--point": getattr(args, "point", None)}
    if past is not None and (besides := [name for name, value in given.items() if value]):
        what = f"--from repeats a run as it was, and {' and '.join(besides)} would make it another one."
        raise _usage(what, "Leave one of them out; to change a value, run the manifest with --set.", "--from")


def _usage(what: str, fix: str, where: str) -> RunnerError:
    return RunnerError(Problem(code="usage/run", what=what, where=Where(path=where), fix=fix), Exit.USAGE)


def _compare(manifest: Manifest, locked: Locked) -> tuple[Problem, ...]:
    here = look(manifest, cache_folder(), point_manifests(manifest))
    return tuple(settle(locked, find_drifts(locked, here, manifest)))


def _repeat(run: PastRun, *, trust: bool, refuses: bool) -> Held:
    """A run's own manifest, where its files are now."""
    locked = run.locked(refuses=refuses)
    manifest, missing = _find_home(run)
    if missing:
        raise moved(run, missing)
    manifest = replace(manifest, trust_remote_code=trust)
    if canonical_sha256(manifest) != run.record["stands_on"]["manifest"]["sha256"]:
        raise other_values(run)
    here = look(manifest, cache_folder())
    differences = find_differences(run)
    notes = [problem for problem in differences if problem.severity == "note"]
    errors = [problem for problem in differences if problem.severity == "error"]
    told = settle(locked, [*errors, *find_drifts(locked, here, manifest)])
    return Held(manifest=pin(manifest, locked), locked=locked, told=(*told, *notes), repeats=run)


def _find_home(run: PastRun) -> tuple[Manifest, list[Path]]:
    """The manifest in the first place where its files are, else in the last one, and what is missing there."""
    missing: list[Path] = []
    for home in run.homes():
        manifest = open_manifest(run.kept_manifest, run.record["manifest"]["overrides"], stands_for=home)
        if not (missing := missing_files(manifest)):
            break
    return manifest, missing
