"""What does a mirror cost? The quickstart with `--out s3://...`, the store on localhost, over the same without.

    python scripts/bench_mirror.py [--rounds 2] [MANIFEST] [KEY=VALUE ...]

Arms take turns, every second round backwards; each is a process of its own with an empty cache but for the converted
model, and its seconds are those of the whole command. The store (moto's S3 server) runs on the same machine and takes
its share of the processor, which a real one does not. The bar is 1.05.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from tests.store_server import BUCKET, StoreServer, serving_store  # noqa: E402

BAR = 1.05
CACHE = Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")
ARMS = ("alone", "mirror")


def run(arm: str, folder: Path, manifest: Path, overrides: list[str], server: StoreServer) -> tuple[float, str]:
    """Seconds of the whole command, and the hash of the weights."""
    (folder / "cache").mkdir(parents=True)
    (folder / "cache" / "models").symlink_to(CACHE / "models")
    own = {"RUNNER_CACHE": str(folder / "cache"), "RUNNER_OUT": str(folder / "run"), "RUNNER_LOG": "text"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **own, **server.environment}
    command = [sys.executable, "-m", "runner", str(manifest), *(f"--set={value}" for value in overrides)]
    command += ["--out", f"s3://{BUCKET}/{folder.name}"] if arm == "mirror" else []
    began = time.monotonic()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if ended.returncode not in (0, 3):
        raise SystemExit(f"{arm} ended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    report = json.loads((folder / "run" / "report.json").read_text())
    return seconds, report["training"]["weights_sha256"]


def main() -> int:
    """Prints each round and the median of the ratios; 1 above the bar, or where the weights differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("manifest", type=Path, nargs="?", default=ROOT / "manifests" / "quickstart.yaml")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    ratios, hashes = [], set()
    with serving_store() as server, tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            seconds = {}
            for arm in ARMS if number % 2 == 0 else ARMS[::-1]:
                place = Path(folder) / f"{arm}-{number}"
                seconds[arm], digest = run(arm, place, args.manifest, args.overrides, server)
                hashes.add(digest)
                print(f"round {number + 1}: {arm} {seconds[arm]:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
            ratios.append(seconds["mirror"] / seconds["alone"])
        num_files = len(server.names("mirror-0/"))
    median = statistics.median(ratios)
    shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    weights = ", ".join(sorted(digest[:16] for digest in hashes))
    print(f"mirror over alone {median:.3f} ({shown}; bar {BAR}); {num_files} files; weights {weights}")
    return 1 if median > BAR or len(hashes) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
