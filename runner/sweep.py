"""The points of a manifest's sweep as runs: numbered from 0, each with its label, overrides, manifest and run id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from runner.errors import Exit, Problem, RunnerError, Where
from runner.identity import file_hash, identify
from runner.manifest import Manifest
from runner.pushing import KEY, destination, of_point
from runner.variants import SECTION, Variant, apply, expand

ALONE = f"{SECTION}=null"  # what makes a manifest with a sweep one without
VARIABLE = "RUNNER_POINT"
OF_AWS = "AWS_BATCH_JOB_ARRAY_INDEX"  # AWS Batch numbers the jobs of an array under a name of its own


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run of a sweep. `overrides` are its values in the form of `--set`; with them, and without the sweep, the
    manifest is the very same run."""

    number: int
    label: str
    overrides: tuple[str, ...]
    manifest: Manifest
    run_id: str


def points(manifest: Manifest, hash_of: Callable[[Path], str] = file_hash) -> tuple[Point, ...]:
    """The points of the manifest's sweep; none where it has no sweep. Reads the files that it names, each once."""
    hash_of = cache(hash_of)
    return tuple(_point(number, *found, hash_of) for number, found in enumerate(_variants(manifest)))


def _point(number: int, variant: Variant, own: Manifest, hash_of: Callable[[Path], str]) -> Point:
    run_id = identify(own, hash_of)
    own_place = any(setting.assignment.startswith(f"{KEY}=") for setting in variant.settings)
    if (to := destination(own.values)) and not own_place:  # else each would replace the one before
        own.values["delivery"]["to"] = of_point(to, variant.label, run_id)
    overrides = tuple(setting.assignment for setting in variant.settings)
    return Point(number=number, label=variant.label, overrides=overrides, manifest=own, run_id=run_id)


def point_manifests(manifest: Manifest) -> list[Manifest]:
    """The manifests of the points, without looking at any file."""
    return [own for _, own in _variants(manifest)]


def chosen_point(
    manifest: Manifest,
    option: str | None,
    environment: Mapping[str, str],
    hash_of: Callable[[Path], str] = file_hash,
) -> Point | None:
    """The one point that the command line or RUNNER_POINT names; None where neither names one.

    Raises RunnerError (64) where there is no such point.
    """
    told = environment.get(VARIABLE) if option is None else option
    if not told and manifest.values.get(SECTION):
        told = environment.get(OF_AWS)
    if not told:
        return None
    where = Where(path=VARIABLE if option is None else "--point")
    found = points(manifest, hash_of)
    if (number := _number(told)) in range(len(found)):
        return found[number]
    what = f"There is no point {told[:40]!r}; the sweep has points 0 to {len(found) - 1}."
    fix = "`runner plan MANIFEST` shows them."
    if not found:
        what, fix = "The manifest has no sweep, so there is no point to choose.", "Leave it out, or add a sweep."
    raise RunnerError(Problem(code="sweep/no-such-point", what=what, where=where, fix=fix), Exit.USAGE)


def _number(text: str) -> int:
    """The number that a text is, -1 where it is none."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else -1


def sweep_directory(manifest: Manifest, out: Path | None, root: Path | None) -> Path:
    """The folder of the sweep's run directories: `out` itself where it is given, else `<name>-sweep` under `root` or
    ./runs."""
    return out or (root or Path("runs")) / f"{manifest.values['name']}-sweep"


def point_directory(folder: Path, point: Point) -> Path:
    """The run directory of a point, known by its run id, should it have begun when the sweep had other keys."""
    held = sorted(folder.glob(f"*-{point.run_id}"))
    return held[0] if held else folder / f"{point.label}-{point.run_id}"


def _variants(manifest: Manifest) -> list[tuple[Variant, Manifest]]:
    """Every variant with its own manifest."""
    found, _ = expand(manifest.document)
    return [
        (
            variant,
            replace(
                manifest,
                document=apply(manifest.document, variant),
                overrides=(*manifest.overrides, ALONE, *(setting.assignment for setting in variant.settings)),
            ),
        )
        for variant in found
    ]
