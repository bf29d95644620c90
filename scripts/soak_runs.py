"""Do many runs leave anything behind, and do they all say the same? Whole runs on a tiny model in one process.

    python scripts/soak_runs.py [--runs 200] [--steps 4]

Counted after every run: open file descriptors, threads, resident memory, files in the temporary folder; weights and
scores are compared too, and a last run with another seed has to differ. Exits 1 when something grew, or differed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.tiny import make_model  # noqa: E402
from tests.whole_runs import Experiment, make_experiment, result  # noqa: E402

WARM = 10  # runs until everything that is loaded once is loaded
GROWTH_MB = 20.0  # of resident memory, from the runs after the warm-up to the last ones; allocators are not exact


@dataclass(frozen=True, kw_only=True)
class Left:
    """What the process holds after a run."""

    descriptors: int
    threads: int
    memory_mb: float
    temporary_files: int


def left_after(temporary: Path) -> Left:
    """Counts what is open and what lies about."""
    gc.collect()
    memory = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return Left(
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        memory_mb=round(int(memory.split()[1]) / 1024, 1),
        temporary_files=sum(1 for _ in temporary.rglob("*")),
    )


def run(experiment: Experiment, out: Path, *more: str) -> dict[str, object]:
    """One whole run; what it found."""
    from runner.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([str(experiment.manifest), "--out", str(out), *more])
    if code != 0:
        raise SystemExit(f"a run ended with {code}:\n{said.getvalue()}")
    return {key: value for key, value in result(out).items() if key != "status"}


def soak(folder: Path, num_runs: int, num_steps: int) -> tuple[list[Left], set[str], str]:
    """What each run left, the different results (as JSON), and the result with another seed."""
    experiment = make_experiment(folder, make_model(folder / "model"), num_steps=num_steps)
    temporary = Path(tempfile.gettempdir())
    seen: list[Left] = []
    results = set()
    for number in range(num_runs):
        out = folder / "run"
        results.add(json.dumps(run(experiment, out), sort_keys=True))
        shutil.rmtree(out)
        seen.append(left_after(temporary))
        if number % 10 == 0:
            print(f"run {number + 1}/{num_runs}: {asdict(seen[-1])}", flush=True)
    return seen, results, json.dumps(run(experiment, folder / "other", "--set", "seed=7"), sort_keys=True)


def grown(seen: Sequence[Left]) -> list[str]:
    """What grew from the runs after the warm-up to the last ones."""
    size = max(1, (len(seen) - WARM) // 5)
    early, late = seen[WARM : WARM + size], seen[-size:]
    found = []
    for name in ("descriptors", "threads", "memory_mb", "temporary_files"):
        before, after = (statistics.median(getattr(left, name) for left in part) for part in (early, late))
        print(f"{name:<16} {before:g} after the warm-up, {after:g} at the end")
        if after > before + (GROWTH_MB if name == "memory_mb" else 0):
            found.append(name)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what happened; 1 when something grew or differed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="soak-runs-"))
    (folder / "tmp").mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
    os.environ.update({"RUNNER_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"})
    began = time.monotonic()
    try:
        seen, results, other = soak(folder / "work", args.runs, args.steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shas = {json.loads(found)["weights_sha256"] for found in results}
    print(f"{args.runs} runs in {time.monotonic() - began:.0f} s: {len(results)} result, weights {', '.join(shas)}")
    faults = grown(seen) + (["results"] if len(results) != 1 else [])
    faults += ["the other seed gave the same weights"] if json.loads(other)["weights_sha256"] in shas else []
    print("grew or differed: " + ", ".join(faults) if faults else "nothing grew, nothing differed but the other seed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
