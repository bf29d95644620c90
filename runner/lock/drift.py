"""What differs from what was locked: each difference a problem with both values and a cure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from runner.errors import Exit, Problem, RunnerError, Where
from runner.lock.facts import identity
from runner.lock.file import Facts, Locked
from runner.manifest import Manifest

GIT = "Put back what was locked (git has it),"
NOWHERE = object()
PARTS = (  # of a model: the fact, the code's slug, and its name
    ("commit", "model", "commit"),
    ("tokenizer_sha256", "tokenizer", "tokenizer"),
    ("chat_template_sha256", "template", "chat template"),
)


def find_drifts(locked: Locked, here: Facts, manifest: Manifest) -> list[Problem]:
    """Everything that `look` sees and that is not as it was locked; what is not known on either side is left."""
    held, found = locked.facts["manifest"], here["manifest"]
    if held["name"] != found["name"]:
        what = f"The lock is of the manifest '{held['name']}'; this one is '{found['name']}'."
        where = locked.where("manifest", "name")
        return [Problem(code="lock/other-manifest", what=what, where=where, fix=f"Name the right one, {locked.accept}")]
    return [
        *_of_manifest(locked, held, found, manifest),
        *_of_versions(locked, here),
        *_of_packages(locked, here["packages"]),
        *_of_files(locked, "data", here["data"]),
        *_of_files(locked, "files", here["files"]),
        *(problem for found in here["models"] for problem in find_model_drifts(locked, found)),
    ]


def settle(locked: Locked, problems: Sequence[Problem]) -> list[Problem]:
    """The differences as warnings; raises RunnerError (78) with all of them where the lock refuses any."""
    if problems and locked.refuses:
        raise RunnerError(problems, Exit.MANIFEST)
    return [replace(problem, severity="warning") for problem in problems]


def find_unseen(locked: Locked, here: Facts) -> list[str]:
    """What was locked and can only be looked at when a run fetches it, or where the training packages are."""
    models = [entry["key"] for entry in here["models"] if entry["kind"] != "folder"]
    data = [entry["key"] for entry in here["data"] if "sha256" not in entry]
    return [*models, *data, *(["packages"] if not here["packages"] and locked.facts["packages"] else [])]


def _of_manifest(locked: Locked, held: Facts, found: Facts, manifest: Manifest) -> Iterator[Problem]:
    if held["sha256"] == found["sha256"]:
        return
    before, after = held["values"], found["values"]
    for key in dict.fromkeys([*before, *after]):
        values = [side.get(key, NOWHERE) for side in (before, after)]
        if values[0] == values[1] and type(values[0]) is type(values[1]):
            continue
        was, now = ("not set" if value is NOWHERE else _shown(value) for value in values)
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        where = locked.where("manifest", "values", key) if values[1] is NOWHERE else manifest.document.where(path)
        what = f"The manifest changed: '{key}' was locked as {was} and is {now}."
        yield Problem(code="lock/manifest", what=what, where=where, fix=f"{GIT} {locked.accept}")


def _of_versions(locked: Locked, here: Facts) -> Iterator[Problem]:
    for key, name in (("runner", "runner"), ("python", "Python")):
        was, now = locked.facts[key], here[key]
        if was != now:
            what = f"{name} {was} was locked, and this is {name} {now}."
            fix = f"Use {name} {was} (the image that the lock was written in), {locked.accept}"
            yield Problem(code=f"lock/{key}", what=what, where=locked.where(key), fix=fix)


def _of_packages(locked: Locked, here: Mapping[str, str]) -> Iterator[Problem]:
    held = locked.facts["packages"]
    for name in dict.fromkeys([*held, *here]) if held and here else ():
        was, now = held.get(name), here.get(name)
        if was != now:
            state = [f"{version} " if version else "" for version in (was, now)]
            what = f"{name} {state[0] or 'absent '}was locked; here it is {now or 'not installed'}."
            cure = f"pip install {name}=={was}" if was else f"pip uninstall {name}"
            fix = f"{cure}, or use the image of the lock, {locked.accept}"
            yield Problem(code="lock/package", what=what, where=locked.where("packages", name), fix=fix)


def _of_files(locked: Locked, section: str, found: Sequence[Facts]) -> Iterator[Problem]:
    """Files by the key and the name that stand in the manifest; another name is a change of the manifest."""
    here = {identity(entry): entry for entry in found}
    for i, entry in enumerate(locked.facts[section]):
        other = here.get(identity(entry), {})
        if "sha256" in other and (problem := compare_file(locked, section, i, other)):
            yield problem


def compare_file(locked: Locked, section: str, number: int, here: Facts) -> Problem | None:
    """The difference of one file, if there is one; `here` are its bytes and its sha256 (None: it cannot be read)."""
    entry = locked.facts[section][number]
    was, now = entry.get("sha256"), here["sha256"]
    if was is None or was == now:
        return None
    found = "cannot be read" if now is None else f"has {here['bytes']:,} bytes, sha256 {now[:12]}"
    what = f"{entry['name']} is not what was locked: it had {entry['bytes']:,} bytes, sha256 {was[:12]}, and {found}."
    where = locked.where(section, number, "sha256")
    code = "lock/data" if section == "data" else "lock/file"
    return Problem(code=code, what=what, where=where, fix=f"{GIT} {locked.accept}")


def find_model_drifts(locked: Locked, here: Facts) -> Iterator[Problem]:
    """How a model differs from what was locked; another name of it is a change of the manifest."""
    number, held = next(
        ((i, entry) for i, entry in enumerate(locked.facts["models"]) if identity(entry) == identity(here)), (0, None)
    )
    if held is None or held.get("commit", here) == here.get("commit"):
        return  # a commit stands for all files
    for field, slug, name in PARTS:
        was, now = held.get(field), here.get(field)
        if was and was != now and ("files" in here or "commit" in here):
            what = f"The {name} of {here['name']} was locked as {was[:12]}, and is {now[:12] if now else 'not there'}."
            yield _of_model(locked, slug, what, locked.where("models", number, field))
    files = (held.get("files", {}), here.get("files", {}))
    for name in dict.fromkeys([*files[0], *files[1]]) if "files" in here else ():
        sides = [f"sha256 {side[name][:12]}" if name in side else "not there" for side in files]
        if sides[0] != sides[1]:
            what = f"The file {name} of {here['name']} was locked as {sides[0]}, and is {sides[1]}."
            yield _of_model(locked, "model", what, locked.where("models", number, "files", name))


def _of_model(locked: Locked, slug: str, what: str, where: Where) -> Problem:
    return Problem(code=f"lock/{slug}", what=what, where=where, fix=f"{GIT} {locked.accept}")


def _shown(value: object) -> str:
    text = str(value)
    return "a text with " + text[:19] if text.startswith("sha256:") else f"'{text}'" if isinstance(value, str) else text
