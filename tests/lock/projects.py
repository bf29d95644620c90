"""A small experiment in a git repository of its own, with its model beside it and, where wanted, its lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.whole_runs import ROOT, make_experiment

MANIFEST = "soak.yaml"


def make_project(folder: Path, model: Path, **changes: Any) -> Path:
    """The folder with manifest, rows and a copy of the model, committed."""
    approach = {"model": "./model", **changes.pop("approach", {})}
    make_experiment(folder, model, num_steps=6, approach=approach, **changes)
    if not (folder / "model").exists():
        subprocess.run(["cp", "-r", str(model), str(folder / "model")], check=True)
    git(folder, "init", "-q")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    """Commits everything that is there."""
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b.test", "commit", "-qm", "more")


def git(folder: Path, *words: str) -> str:
    """What git says."""
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def call(folder: Path, *words: str, **more: str) -> tuple[int, str]:
    """The exit code and the output of the real command, started in the folder, with a cache beside it."""
    own = {"RUNNER_CACHE": str(folder.parent / f"{folder.name}-cache"), "RUNNER_LOG": "text", "HF_HUB_OFFLINE": "1"}
    path = os.pathsep.join(filter(None, [more.pop("PYTHONPATH", ""), str(ROOT)]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **own, "PYTHONPATH": path, **more}
    command = [sys.executable, "-m", "runner", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr
