"""`runner lock`: writes what a manifest stands on, or says what is not as it was locked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.cli.opening import cache_folder, make_world, open_manifest
from runner.console import Console
from runner.credentials import keys_named_in, take_files
from runner.errors import Exit, RunnerError
from runner.lock import changes, find_drifts, find_unseen, lock_path, look, read_lock, write_lock
from runner.manifest import Manifest
from runner.packages import require_training
from runner.stopping import Stop
from runner.sweep import point_manifests


def lock(args: argparse.Namespace, console: Console, stop: Stop) -> Exit:
    """Writes the lock of a manifest, or only checks it."""
    manifest = replace(open_manifest(args.manifest), trust_remote_code=args.trust_remote_code)
    take_files(os.environ, keys_named_in(manifest.values).values())
    if args.check:
        return _check(manifest, args.format, console)
    require_training()
    from runner.lock.making import look_closely

    world = make_world(console, stop)
    backend = world.load_backend(manifest.values["approach"]["kind"])
    model = world.open_session(manifest, backend).facts
    facts = look_closely(manifest, point_manifests(manifest), backend, model, world.cache, world.watch)
    news = _news(manifest.path, facts)
    write_lock(manifest.path, facts)
    console.line(f"{lock_path(manifest.path)} {news}")
    return Exit.DONE


def _news(manifest: Path, facts: Mapping[str, Any]) -> str:
    """What becomes of the lock of a manifest, and which of its values change."""
    try:
        lines = changes(read_lock(manifest).facts, facts)
    except RunnerError as error:
        if error.problems[0].code == "lock/missing":
            return "is written: commit it beside the manifest"
        return f"is written anew; the one that was there could not be used: {error.problems[0].what}"
    return "\n   ".join(["is written anew; what changed:", *lines]) if lines else "is as it was"


def _check(manifest: Manifest, form: str, console: Console) -> Exit:
    locked = read_lock(manifest.path)
    here = look(manifest, cache_folder(), point_manifests(manifest))
    problems = find_drifts(locked, here, manifest)
    console.problems(problems, form)
    if form == "text":
        if unseen := find_unseen(locked, here):
            console.line(f"Not looked at, which a run does: {', '.join(unseen)}")
        differences = f"{len(problems)} difference{'s' if len(problems) != 1 else ''}"
        console.line(differences if problems else "Everything looked at is as it was locked.")
    return Exit.MANIFEST if problems else Exit.DONE
