"""Whole runs of the runner on a tiny model, in processes of their own, that can be killed at any moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARK = "RUNNER_SOAK"  # in the environment of every process that a run starts, however far it goes away
GONE_SECONDS = 10.0  # for the kernel to end what dies with its parent
SLOW_SECONDS = 300.0  # a run that takes longer than this hangs


class Different(Exception):
    """A run ended otherwise than one left alone, or left something behind."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A manifest, where its runs keep what they cache, and the URL of their mirror with what reaches its store."""

    manifest: Path
    cache: Path
    mirror: str | None = None
    store: Mapping[str, str] = field(default_factory=dict)

    def command(self, out: Path, *before: str) -> list[str]:
        """The command line of a run; `before` stands between Python and the runner."""
        return [sys.executable, *before, "-m", "runner", str(self.manifest), "--out", self.mirror or str(out)]

    def environment(self, mark: str, out: Path | None = None) -> dict[str, str]:
        """The environment of a run whose processes can be told by a mark; with a mirror, `out` is where it works."""
        own = {"RUNNER_CACHE": str(self.cache), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", MARK: mark}
        place = {"RUNNER_OUT": str(out)} if self.mirror and out else {}
        return {**os.environ, "OMP_NUM_THREADS": "1", **own, **self.store, **place}

    def lose_machine(self, out: Path) -> None:
        """Takes away every disk that a run had."""
        for folder in (out, self.cache):
            shutil.rmtree(folder, ignore_errors=True)


def make_experiment(
    folder: Path, model: Path, *, method: str = "lora", ranks: int = 1, num_steps: int = 20, **changes: Any
) -> Experiment:
    """Sixty rows and a manifest that saves after every step; `changes` are merged into its sections."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ("red", "green", "blue", "white")
    rows = [{"prompt": f"say {words[i % 4]} to {i}", "completion": f"{words[i % 4]} {i % 7}"} for i in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest: dict[str, Any] = {
        "name": "soak",
        "data": {"train": "rows.jsonl", "split": {"dev": 0.1, "test": 0.2}},
        "approach": {"kind": method, "model": str(model), "processes": ranks},
        "hyperparameters": {"max_steps": num_steps, "learning_rate": 1e-3, "max_length": 128, "batch_size": 8},
        "checkpoint": {"every_steps": 1},
        "gate": {"task": "format", "policy": "skip", "reason": "a soak"},
        "eval": {"metrics": ["chrf", "loss"], "max_new_tokens": 8, "forgetting": {"measure": False}, "resamples": 1000},
        "tracking": {"wandb": "off"},
        "budget": {"max_idle_attempts": None},  # a soak may kill three times before anything is saved
    }
    for section, values in changes.items():
        manifest[section] = {**manifest.get(section, {}), **values}
    path = folder / "soak.yaml"
    path.write_text(json.dumps(manifest, indent=2))  # JSON is YAML
    return Experiment(manifest=path, cache=folder / "cache")


class Run:
    """One attempt in processes of its own."""

    def __init__(self, experiment: Experiment, out: Path, *before: str, environment: Mapping[str, str] | None = None):
        self.out = out
        self.mark = uuid.uuid4().hex
        self._events = _size(out / "events.jsonl")
        self._log = out.with_suffix(".log").open("a")
        self.process = subprocess.Popen(
            experiment.command(out, *before),
            cwd=ROOT,
            env=experiment.environment(self.mark, out) | dict(environment or {}),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def is_over(self) -> bool:
        """Whether the first process has ended."""
        return self.process.poll() is not None

    @property
    def stage(self) -> str:
        """The last stage that this attempt began."""
        stage = "start"
        with suppress(OSError), (self.out / "events.jsonl").open() as file:
            file.seek(self._events)
            for line in file:
                if line.endswith("\n") and (event := json.loads(line))["event"] == "stage":
                    stage = event["stage"]
        return stage

    def members(self) -> dict[str, list[int]]:
        """The numbers of this attempt's processes that live, by what they are: runner, torchrun, rank or other."""
        found: dict[str, list[int]] = {}
        for pid in processes(self.mark):
            found.setdefault(_role(pid, self.process.pid), []).append(pid)
        return found

    def wait(self, seconds: float = SLOW_SECONDS) -> int:
        """The exit code. Raises Different when it takes too long, or leaves a process behind."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Different(f"the run hangs; see {self._log.name}") from None
        self.check_gone()
        return code

    def kill(self) -> None:
        """Ends the whole process group."""
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def check_gone(self) -> None:
        """Raises Different when a process of this attempt outlives it, after having ended it."""
        deadline = time.monotonic() + GONE_SECONDS
        while (left := self.members()) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._log.close()
        for pid in (pid for pids in left.values() for pid in pids):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if left:
            raise Different(f"processes were left behind: {left}")


def processes(mark: str) -> list[int]:
    """The processes, of whatever session, that have the mark in their environment and are no zombies."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").iterdir():
        with suppress(OSError):
            ours = path.name.isdigit() and wanted in (path / "environ").read_bytes().split(b"\0")
            if ours and (path / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(int(path.name))
    return found


def _role(pid: int, runner: int) -> str:
    if pid == runner:
        return "runner"
    line = b""
    with suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    if b"torch.distributed.run" in line:
        return "torchrun"
    return "rank" if b"worker" in line or b"runner" in line else "other"


def result(out: Path) -> Mapping[str, Any]:
    """What a run found that no interruption may change."""
    report = json.loads((out / "report.json").read_text())
    training, evaluation = report["training"], report["evaluation"]
    return {
        "status": report["status"],
        "weights_sha256": training["weights_sha256"],
        "curve": training["curve"],
        "num_steps": training["num_steps"],
        "best_step": training["best_step"],
        "scores": {name: side["scores"] for name, side in evaluation["sides"].items()},
        "comparisons": evaluation["comparisons"],
    }


def left_alone(experiment: Experiment, out: Path) -> Mapping[str, Any]:
    """The result of a run that nobody disturbs."""
    code = Run(experiment, out).wait()
    if code != 0:
        raise Different(f"a run that nobody disturbed ended with {code}; see {out.with_suffix('.log')}")
    return result(out)


def unfinished(out: Path) -> str | None:
    """What is being written or removed at this moment, as the folder shows it."""
    with suppress(OSError):
        folders = sorted((out / "train" / "checkpoints").glob("[bc]*-*"))
        done = [path.name for path in folders if (path / "COMMIT.json").is_file()]
        for path in folders:
            if path.name not in done:
                newer = any(name > path.name for name in done if name[0] == path.name[0])
                return "removing" if newer else "save" if path.name[0] == "c" else "save of best"
    if (out / "model").is_dir() and any((out / "model").iterdir()) and not (out / "train" / "outcome.json").is_file():
        return "delivery"
    return None


def saved_step(out: Path) -> int:
    """The step of the newest committed checkpoint; 0 where there is none."""
    with suppress(OSError):
        paths = (out / "train" / "checkpoints").glob("checkpoint-*/COMMIT.json")
        return max((int(path.parent.name.rpartition("-")[2]) for path in paths), default=0)
    return 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
