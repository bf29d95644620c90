"""What is wrong with a sweep: with how it is written, and with the manifests that its points make."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from runner.asked import asked_for
from runner.document import Document, KeyPath, Value, describe_value, dotted
from runner.errors import Problem
from runner.schema import read_schema
from runner.variants.parts import SECTION, Setting, Variant, apply

FIXED = {  # keys that no point may have of its own, and why
    "name": "names the sweep and all of its runs",
    SECTION: "is the sweep itself",
    "resources": "says what machine the whole sweep runs on",
}
NUM_NAMED = 2  # points that a problem of several names


def point_problems(
    document: Document,
    variants: Sequence[Variant],
    known: Sequence[Problem],
    check: Callable[[Document], list[Problem]],
) -> list[Problem]:
    """What is wrong with the points and not with the manifest without them (`known`): each fault once, with the names
    of the points that have it; and points that would be one and the same run."""
    seen = {(problem.code, problem.where.line, problem.where.column) for problem in known}
    found: dict[Problem, list[str]] = {}
    sound: dict[str, Variant] = {}
    same: list[Problem] = []
    for variant in variants:
        point = apply(document, variant)
        faults = [f for f in check(point) if (f.code, f.where.line, f.where.column) not in seen]
        for fault in dict.fromkeys(faults):
            found.setdefault(fault, []).append(variant.label)
        if not faults and not known:
            asked = json.dumps(asked_for(point.value), sort_keys=True)
            if asked in sound:
                same.append(_same(document, sound[asked], variant))
            sound.setdefault(asked, variant)
    named = [
        fault if len(labels) > 1 and labels == _users(document, variants, fault) else _with_points(fault, labels)
        for fault, labels in found.items()
    ]
    return named + same[:1]


def _users(document: Document, variants: Sequence[Variant], fault: Problem) -> list[str]:
    """The points that have the value at which a fault stands; where all of them have the fault, the place says it."""
    return [
        variant.label
        for variant in variants
        for setting in variant.settings
        if (fault.where.line, fault.where.column) in _places(document, setting)
    ]


def _places(document: Document, setting: Setting) -> list[tuple[int | None, int | None]]:
    """Where a setting's key and its value stand: line and column."""
    found = (document.where(setting.key_at), document.where(setting.value_at, value=True))
    return [(where.line, where.column) for where in found]


def _with_points(fault: Problem, labels: Sequence[str]) -> Problem:
    return replace(fault, what=f"{_points(labels)}: {fault.what}")


def _points(labels: Sequence[str]) -> str:
    """The points by their labels, of many the first ones."""
    named = ", ".join(f"'{label}'" for label in labels[:NUM_NAMED])
    more = f" and {len(labels) - NUM_NAMED:,} more" if len(labels) > NUM_NAMED else ""
    return f"Point{'s' if len(labels) > 1 else ''} {named}{more}"


def clashes(document: Document, choices: Sequence[Sequence[Variant]]) -> Iterator[Problem]:
    """Keys that stay what they are in every point, those that are set on the command line, and those that a point is
    given more than once."""
    firsts = [variants[0] for variants in choices if variants]
    named = choices[0] if "grid" not in document.get(SECTION) and choices else firsts[:1]
    found = {
        problem: None
        for variant in named
        for problem in _twice(document, [s for part in (variant, *firsts[1:]) for s in part.settings])
    }
    yield from found
    for setting in {s.key_at: s for part in (*named, *firsts) for s in part.settings}.values():
        where, key = document.where(setting.key_at), dotted(setting.path)
        if why := FIXED.get(str(setting.path[0])):
            what = f"'{key}' cannot be swept: it {why}."
            yield Problem(code="sweep/fixed-key", what=what, where=where, fix="Take it out of the sweep.")
        elif document.get(*setting.path) is not None and document.where(setting.path).path == "--set":
            what = f"'{key}' is set on the command line, and the sweep would put its own values over it."
            fix = "Leave one of them out; --point N runs one point, and --set sweep=null the manifest alone."
            yield Problem(code="sweep/set-key", what=what, where=where, fix=fix)


def _twice(document: Document, settings: Sequence[Setting]) -> Iterator[Problem]:
    """A key that is given twice, or whose section is given as a whole beside it."""
    earlier: list[Setting] = []
    for setting in settings:
        for other in earlier:
            shorter = min(len(setting.path), len(other.path))
            if setting.path[:shorter] == other.path[:shorter]:
                what = f"'{dotted(setting.path)}' and '{dotted(other.path)}' of the sweep set the same."
                if setting.path == other.path:
                    what = f"The sweep gives '{dotted(setting.path)}' twice."
                where = document.where(setting.key_at)
                yield Problem(code="sweep/key-twice", what=what, where=where, fix="Keep one of them.")
        earlier.append(setting)


def empty(document: Document) -> Problem:
    """A sweep that asks for nothing."""
    return Problem(
        code="sweep/empty",
        what="The sweep has no points.",
        where=document.where((SECTION,)),
        fix="For example  grid: {hyperparameters.learning_rate: [1e-4, 2e-4]}, or remove the sweep.",
    )


def both_ways(document: Document) -> Problem:
    """A grid beside named points: whether they add up or multiply, nobody can tell."""
    return Problem(
        code="sweep/grid-and-points",
        what="A sweep has either a grid or named points.",
        where=document.where((SECTION, "points")),
        fix="Write the combinations of the grid as points, or make two manifests.",
    )


def no_values(document: Document, path: KeyPath, value: Value, at: KeyPath) -> Problem:
    """A key of the grid without a list of values."""
    what = f"'{dotted(path)}' needs a list of values in a grid"
    what += ", and this one is empty." if isinstance(value, list) else "."
    one = json.dumps(value, ensure_ascii=False)
    fix = f"Write [{one}]" if not isinstance(value, list | dict) and len(one) < 60 else "Write two or more values"
    where = document.where(at, value=True)
    return Problem(code="sweep/no-values", what=what, where=where, fix=f"{fix}, or take the key out of the grid.")


def repeated(document: Document, path: KeyPath, value: Value, at: KeyPath) -> Problem:
    """A value that a list of the grid has twice."""
    what = f"{describe_value(value)} stands twice in the grid's '{dotted(path)}'."
    fix = "Keep one of them; sweep.seeds repeats points with other seeds."
    return Problem(code="sweep/same-points", what=what, where=document.where(at), fix=fix)


def _same(document: Document, first: Variant, second: Variant) -> Problem:
    earlier = {setting.assignment for setting in first.settings}
    own = [setting for setting in second.settings if setting.assignment not in earlier]
    others = {setting.assignment for setting in second.settings}
    varied = [setting for setting in first.settings if setting.assignment not in others] + own
    keys = ", ".join(dict.fromkeys(dotted(setting.path) for setting in varied)) or "nothing"
    at = own[0].key_at if own else (SECTION, "points", second.label.partition(",")[0])
    return Problem(
        code="sweep/same-points",
        what=f"Points '{first.label}' and '{second.label}' would be one and the same run; they differ in {keys}.",
        where=document.where(at),
        fix="Let them differ in what changes the result, which description, checkpoint, tracking and limits do not.",
    )


def bad_name(document: Document, name: str, at: KeyPath) -> Problem:
    """A name that no directory should have."""
    better = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:40]
    return Problem(
        code="sweep/point-name",
        what=f"'{name}' cannot name a point, whose directory is called so.",
        where=document.where(at),
        fix=f"Write {better}." if better else "Use letters, digits, points, hyphens and underscores, 40 at most.",
    )


def too_many(document: Document, count: int) -> Problem | None:
    """A sweep beyond its limit."""
    entry = read_schema("manifest")["properties"][SECTION]["properties"]["max_points"]
    most: int = document.get(SECTION, "max_points", default=entry["default"])
    if count <= most:
        return None
    part = next(part for part in ("grid", "points", "seeds") if document.get(SECTION, part))
    raised = f", or set sweep.max_points: {count} if so many are meant" if count <= entry["maximum"] else ""
    return Problem(
        code="sweep/too-many-points",
        what=f"The sweep has {count:,} points, each a run of its own, and may have {most:,}.",
        where=document.where((SECTION, part)),
        fix=f"Leave values out, or name the combinations that matter under sweep.points{raised}.",
    )
