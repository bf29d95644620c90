"""What does tracking cost a run when W&B is down, slow or has no disk? Its seconds, and that its result is the same.

    python scripts/time_tracking.py

Whole runs on a tiny model, each a process of its own: without tracking, with a server that nobody reaches, with one
that takes connections and never answers, and with a full disk where W&B keeps its files (needs the right to mount).
Exits 1 when a result differs, when more than 30 s are added, or when the report does not say that it is not synced.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from runner.identity import identify  # noqa: E402
from runner.manifest import load_manifest  # noqa: E402
from runner.rundir import RunDirectory  # noqa: E402
from tests.tiny import make_model  # noqa: E402
from tests.whole_runs import Experiment, make_experiment, result  # noqa: E402

MOST_SECONDS = 30.0
KEY = "0" * 40


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections, as the system does for it, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def full_disk(experiment: Experiment, out: Path) -> Iterator[bool]:
    """The folder of W&B within a run directory on a disk without room; False where nothing can be mounted."""
    directory = RunDirectory(out)
    directory.write_json("run.lock.json", {"run_id": identify(load_manifest(experiment.manifest))})
    directory.close()
    folder = out / "wandb"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)


def run(experiment: Experiment, out: Path, **more: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole run, and its report."""
    environment = {**experiment.environment("tracking"), "HOME": str(out.parent), **more}
    environment.pop("WANDB_MODE", None)
    began = time.monotonic()
    ended = subprocess.run(experiment.command(out), cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode != 0:
        raise SystemExit(f"a run ended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return time.monotonic() - began, json.loads((out / "report.json").read_text())


def main() -> int:
    """Prints a line for each kind of trouble; 1 when a bar is missed."""
    folder = Path(tempfile.mkdtemp(prefix="tracking-"))
    model = make_model(folder / "model")
    off = make_experiment(folder / "off", model)
    auto = make_experiment(folder / "auto", model, tracking={"wandb": "auto"})
    faults: list[str] = []
    try:
        run(off, folder / "warm")
        alone, _ = run(off, folder / "alone")
        expected = result(folder / "alone")
        print(f"without tracking: {alone:.1f} s", flush=True)

        def tell(name: str, out: Path, **more: str) -> None:
            seconds, report = run(auto, out, **more)
            tracking = report["tracking"]
            print(f"{name}: {seconds - alone:+.1f} s; {tracking['wandb']}: {tracking['note']}", flush=True)
            faults.extend([f"{name}: another result"] if result(out) != expected else [])
            faults.extend([f"{name}: too long"] if seconds - alone > MOST_SECONDS else [])
            faults.extend([f"{name}: not told"] if tracking.get("synced") is not False else [])

        tell("down", folder / "down", WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9")
        with silent_server() as url:
            tell("slow", folder / "slow", WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
        with full_disk(auto, folder / "full") as mounted:
            if mounted:
                tell("no disk", folder / "full")
            else:
                print("no disk: NOT TRIED, nothing can be mounted here")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("; ".join(faults) or "the same result each time, told as not synced, in time")
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
