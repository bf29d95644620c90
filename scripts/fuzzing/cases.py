"""A numbered case: the files of its folder and the command lines that are tried in it."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from fuzzing import hostile
from fuzzing.files import GOOD, make_file
from fuzzing.manifests import ROOT, make_manifest

PART_OF_MANIFESTS = 0.6
OWN_METRICS = """
def raises(output): raise ValueError("no")
def exits(output): raise SystemExit(3)
def loops_not(output): return 1
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folders of a fuzzer's worker: a model, a home, what lies outside the roots, and the case's own."""

    base: Path

    @property
    def model(self) -> Path:
        """A tiny model, inside the roots."""
        return self.base / "model"

    @property
    def outside(self) -> Path:
        """What no case may read."""
        return self.base / "cases" / "outside"

    @property
    def case(self) -> Path:
        """The folder of the case under way, which the next one replaces."""
        return self.base / "cases" / "case"

    @property
    def cache(self) -> Path:
        """The only folder that may be written."""
        return self.base / "cache"

    @property
    def home(self) -> Path:
        """The home directory, outside the roots too."""
        return self.base / "home"


@dataclass(frozen=True, kw_only=True)
class Case:
    """The command lines of a case, one after the other as long as they end with 0 or 3, from within its folder."""

    number: int
    kind: str
    commands: tuple[tuple[str, ...], ...]


def make_case(seed: int, number: int, place: Place) -> Case:
    """Writes the files of a case into its folder, anew. The same seed and number give the same case."""
    rng = random.Random(f"{seed}/{number}")
    _clear(place)
    if rng.random() < PART_OF_MANIFESTS:
        return _manifest_case(rng, number, place)
    name, source = make_file(rng, place.case, place.outside)
    sound = "".join(json.dumps(row) + "\n" for row in GOOD)
    (place.case / "sound.jsonl").write_text(sound)
    data = {
        "train": rng.choice([[name], [name, "sound.jsonl"]]),
        "max_dropped_fraction": rng.choice([0.02, 1]),
        **source,
    }
    manifest = {
        "name": "fuzz",
        "data": data,
        "approach": {"kind": "lora", "model": str(place.model)},
        "gate": {"task": "format"},
    }
    (place.case / "m.yaml").write_bytes(json.dumps(manifest).encode("utf-8", "surrogatepass"))
    return Case(number=number, kind="data", commands=(("plan", "m.yaml"),))


def _clear(place: Place) -> None:
    shutil.rmtree(place.case, ignore_errors=True)
    shutil.rmtree(place.cache, ignore_errors=True)
    for folder in (place.case / "data", place.cache):
        folder.mkdir(parents=True)


def _manifest_case(rng: random.Random, number: int, place: Place) -> Case:
    raw, sets = make_manifest(rng, str(place.model), hostile.odd_paths(str(place.outside), str(place.home)))
    name = _odd_manifest(rng, place) if rng.random() < 0.03 else "m.yaml"
    if name == "m.yaml":
        (place.case / name).write_bytes(raw)
    for path in (ROOT / "manifests" / "data").iterdir():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (place.case / "data" / path.name).write_text("".join(lines[:90]), encoding="utf-8")
    for link, target in (
        ("link.jsonl", place.outside / "secret.jsonl"),
        ("link-folder", place.outside),
        ("loop.jsonl", "loop.jsonl"),
        ("dangling.jsonl", "nothing"),
    ):
        (place.case / link).symlink_to(target)
    os.mkfifo(place.case / "fifo.jsonl")
    (place.case / "own.py").write_text(OWN_METRICS)
    chosen = [argument for text in sets for argument in ("--set", text.replace("\0", ""))]
    form = rng.choice(["json", "text", "github"])
    return Case(
        number=number, kind="manifest", commands=(("validate", "--format", form, name), ("plan", name, *chosen))
    )


def _odd_manifest(rng: random.Random, place: Place) -> str:
    """A path to a manifest that is no ordinary file, or has a name that hurts."""
    name = rng.choice(["folder", "fifo", "zero", "missing", "huge", "loop", "odd", "out", "null"])
    path = place.case / name
    if name == "folder":
        path.mkdir()
    elif name == "fifo":
        os.mkfifo(path)
    elif name in ("zero", "null"):
        path.symlink_to(f"/dev/{name}")
    elif name == "loop":
        path.symlink_to(path)
    elif name == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    elif name == "odd":
        path = place.case / rng.choice(
            ["a\nb.yaml", "\x1b[31mred.yaml", "\udcff.yaml", "é.yaml", "-.yaml", "a b.yaml", "%0A::error::x.yaml"]
        )
        path.write_text("nme: x\n")
    return f"./{path.name}"
