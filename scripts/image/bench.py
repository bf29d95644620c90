"""What the checks work with: the engine, the images, folders, a tiny experiment, and the list of what passed."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from image.building import ROOT
from image.engine import Container, Done, Engine

FULL, SLIM = "localhost/runner:latest", "localhost/runner:slim"
ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "timeout_seconds": 1}  # nobody listens there


class Failed(Exception):
    """A check that did not hold; says what was seen instead."""


class Bench:
    """One round of checks. `uid` is a random user that no passwd file knows."""

    def __init__(self, engine: Engine, folder: Path):
        self.engine = engine
        self.folder = folder / f"checks-{os.getpid()}"
        self.uid = random.randrange(20_000, 60_000)
        self.passed = self.failed = 0
        (self.folder / "work").mkdir(parents=True)
        self.cache = self.fresh("cache")

    @property
    def hardened(self) -> list[str]:
        """As little as a careful cluster grants: nothing can be written but /out, /cache and /tmp, nothing reached."""
        return [
            *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--network", "none", "--user", f"{self.uid}:0", "-v", f"{self.cache}:/cache"),
        ]

    def fresh(self, name: str) -> Path:
        """A new folder that the random user may write to."""
        path = self.folder / name
        path.mkdir()
        os.chown(path, self.uid, 0)
        return path

    def options(self, out: Path, *more: str) -> list[str]:
        """Options of a hardened container with the tiny experiments mounted, which keeps its run in a folder."""
        return [*self.hardened, "-v", f"{self.folder / 'work'}:/work:ro", "-v", f"{out}:/out", *more]

    def run(self, *arguments: str, out: Path, more: tuple[str, ...] = (), timeout: float = 600) -> Done:
        """Runs a hardened container to its end."""
        return self.engine.run(FULL, *arguments, options=self.options(out, *more), timeout=timeout)

    def start(self, *arguments: str, out: Path, more: tuple[str, ...] = ()) -> Container:
        """Starts a hardened container."""
        return self.engine.start(FULL, *arguments, options=self.options(out, *more))

    def check(self, name: str, look: Callable[[Bench], str]) -> bool:
        """Does one check and prints a line: PASS and what was measured, or FAIL and what was seen."""
        started = time.monotonic()
        try:
            verdict, seen = "PASS", look(self)
        except Exception as error:
            verdict, seen = "FAIL", str(error) if isinstance(error, Failed) else traceback.format_exc()
        self.passed, self.failed = self.passed + (verdict == "PASS"), self.failed + (verdict == "FAIL")
        print(f"{verdict} {name}: {seen} [{time.monotonic() - started:.0f} s]", flush=True)
        return verdict == "PASS"

    def clear(self) -> None:
        """Removes the folders of this round."""
        shutil.rmtree(self.folder, ignore_errors=True)


def expect(holds: object, seen: str) -> None:
    """Raises Failed with what was seen, unless it holds."""
    if not holds:
        raise Failed(seen)


def expect_code(done: Done, code: int) -> None:
    """Raises Failed with the last lines of a container that ended with another code."""
    expect(done.code == code, f"exit code {done.code} instead of {code}: {last_lines(done.text)}")


def last_lines(text: str, count: int = 12) -> str:
    """The end of what a container wrote."""
    return "\n    ".join(["", *text.strip().splitlines()[-count:]])


def wait_for(holds: Callable[[], bool], container: Container, seconds: float) -> None:
    """Waits until something holds. Raises Failed when the container ends first, or the time does."""
    deadline = time.monotonic() + seconds
    looked = time.monotonic()
    while not holds():
        if time.monotonic() - looked > 1:
            expect(not container.is_over, f"the container ended early: {last_lines(container.logs())}")
            looked = time.monotonic()
        expect(time.monotonic() < deadline, f"nothing happened within {seconds:.0f} s: {last_lines(container.logs())}")
        time.sleep(0.0005)


def stage(out: Path) -> str:
    """The last stage that a run's events name."""
    try:
        events = (json.loads(line) for line in (out / "events.jsonl").read_text().splitlines() if line.endswith("}"))
        return [event["stage"] for event in events if event.get("event") == "stage"][-1]
    except (OSError, IndexError):
        return ""


def report(out: Path) -> dict[str, Any]:
    """A run's report. Raises Failed where there is none."""
    expect((out / "report.json").is_file(), f"there is no report in {out}")
    read: dict[str, Any] = json.loads((out / "report.json").read_text())
    return read


def make_experiments(bench: Bench) -> str:
    """A tiny model, made in the image itself, and manifests that use it."""
    work = bench.folder / "work"
    os.chown(work, bench.uid, 0)
    mounts = ["-v", f"{ROOT / 'tests'}:/src/tests:ro", "-e", "PYTHONPATH=/src", "--entrypoint", "python"]
    script = "from pathlib import Path; from tests.tiny import make_model; make_model(Path('/out/model'))"
    options = [*bench.hardened, *mounts, "-v", f"{work}:/out"]
    expect_code(bench.engine.run(FULL, "-c", script, options=options), 0)
    from tests.whole_runs import make_experiment

    judged = {"metrics": ["judge"], "judge": {"endpoint": ENDPOINT, "rubric": "Which is better?"}}
    keyed = {
        "metrics": ["judge"],
        "judge": {"endpoint": {**ENDPOINT, "api_key_env": "NO_SUCH_KEY"}, "rubric": "Which?"},
    }
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "long": {"hyperparameters": {"max_steps": 200}},
        "rejected": {},
        "unreached": {"eval": judged},
        "keyless": {"eval": keyed},
        "idle": {
            "hyperparameters": {"max_steps": 1000},
            "checkpoint": {"every_steps": 1000},
            "budget": {"max_idle_attempts": 1},
        },
    }
    for name, change in changes.items():
        make_experiment(work / name, Path("/work/model"), **change)
    (work / "rejected" / "rows.jsonl").write_text('{"prompt": "a", "completion": ""}\n' * 9)
    return f"{len(changes)} manifests, model made in the image"
