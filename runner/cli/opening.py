"""What the verbs begin with: a manifest, checked, and the world around a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.console import Console
from runner.errors import Problem
from runner.lock import Locked
from runner.manifest import Manifest, load_manifest
from runner.progress import LiveWatch
from runner.roots import check_paths
from runner.stopping import Stop
from runner.sweep import point_manifests

if TYPE_CHECKING:
    from runner.world import World


def open_manifest(path: Path, overrides: Sequence[str] = (), *, stands_for: Path | None = None) -> Manifest:
    """The manifest and every point of its sweep, checked; raises RunnerError (64, 66, 78) with every fault found."""
    manifest = load_manifest(path, overrides, stands_for=stands_for)
    check_paths([manifest, *point_manifests(manifest)], os.environ)
    return manifest


def cache_folder() -> Path:
    """Where models, rows and answers are kept between runs."""
    return Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")


def make_world(console: Console, stop: Stop, locked: Locked | None = None, told: Sequence[Problem] = ()) -> World:
    """What a run of this process may ask of the outside, what it is held to, and what was told of it before."""
    from runner.world import World

    watch = LiveWatch(console, stop)
    return World(watch=watch, cache=cache_folder(), environment=os.environ, locked=locked, told=told)
