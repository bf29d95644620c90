"""Is training impossible to lose? Whole runs on a tiny model, killed again and again, must end as one left alone.

    python scripts/soak_kill.py [--kills 50] [--per-run 10] [--ranks 1] [--method lora] [--seed N] [--keep DIR]

A checkpoint is due after every step, so saving takes a large share of the time. Each kill is a SIGKILL at a moment
drawn at random: in a save, between two, while the model's files are written, in another stage, while Python starts.
With several ranks the victim is drawn too: the runner, torchrun or one rank. After every kill no process may be left,
and the same command is given again. At the end of a run (exit 0) the sha256 of the weights, the training curve and the
scores have to be those of a run that nobody disturbed. Exits 1 at any difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.tiny import make_model  # noqa: E402

MARK = "RUNNER_SOAK"  # in the environment of every process that a run starts, however far it goes away
POLL_SECONDS = 0.0005
GONE_SECONDS = 10.0  # for the kernel to end what dies with its parent
SLOW_SECONDS = 300.0  # a run that takes longer than this hangs


class Different(Exception):
    """A run ended otherwise than one left alone, or left something behind."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A manifest and where its runs keep what they cache."""

    manifest: Path
    cache: Path

    def command(self, out: Path, *before: str) -> list[str]:
        """The command line of a run; `before` stands between Python and the runner."""
        return [sys.executable, *before, "-m", "runner", str(self.manifest), "--out", str(out)]

    def environment(self, mark: str) -> dict[str, str]:
        """The environment of a run whose processes can be told by a mark."""
        own = {"RUNNER_CACHE": str(self.cache), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", MARK: mark}
        return {**os.environ, "OMP_NUM_THREADS": "1", **own}


@dataclass(frozen=True, kw_only=True)
class Kill:
    """Where a run was when it was killed, as its folder shows it."""

    stage: str
    where: str
    step: int
    victim: str


@dataclass(kw_only=True)
class Soak:
    """What has happened so far."""

    kills: list[Kill] = field(default_factory=list)
    resumed: Counter[int] = field(default_factory=Counter)
    quarantined: int = 0
    num_runs: int = 0


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
    }
    for section, values in changes.items():
        manifest[section] = {**manifest.get(section, {}), **values}
    path = folder / "soak.yaml"
    path.write_text(json.dumps(manifest, indent=2))  # JSON is YAML
    return Experiment(manifest=path, cache=folder / "cache")


class Run:
    """One attempt in processes of its own."""

    def __init__(self, experiment: Experiment, out: Path, *before: str):
        self.out = out
        self.mark = uuid.uuid4().hex
        self._events = _size(out / "events.jsonl")
        self._log = out.with_suffix(".log").open("a")
        self.process = subprocess.Popen(
            experiment.command(out, *before),
            cwd=ROOT,
            env=experiment.environment(self.mark),
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


def draw_moment(run: Run, chance: random.Random) -> Callable[[], bool]:
    """When to kill, as a test of the run: half of the moments lie in saves."""
    begun = time.monotonic()
    is_trained = (run.out / "train" / "outcome.json").is_file()
    kind = chance.choice(("start", "stage") if is_trained else ("save",) * 5 + ("between", "between", "stage", "start"))
    if kind == "start":
        seconds = chance.uniform(0, 4)
        return lambda: time.monotonic() - begun > seconds
    if kind == "stage":
        names = ("evaluate", "roi") if is_trained else ("plan", "data", "gate", *("train",) * 4, "evaluate")
        name = chance.choice(names)
        return _later(lambda: run.stage == name, chance.uniform(0, 0.5))
    skipped = chance.randrange(6)
    seen: set[tuple[str, int]] = set()
    if kind == "between":
        target = saved_step(run.out) + skipped
        return _later(lambda: saved_step(run.out) > target, chance.uniform(0, 0.05))

    def in_save() -> bool:
        what = unfinished(run.out)
        if what is not None:
            seen.add((what, saved_step(run.out)))
        return what is not None and len(seen) > skipped

    return in_save


def _later(reached: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    since: list[float] = []

    def test() -> bool:
        if not since and reached():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > seconds

    return test


def kill_once(experiment: Experiment, out: Path, chance: random.Random, ranks: int) -> Kill | int:
    """Begins or goes on with a run and kills it at a moment drawn by chance; its exit code, where it ended before."""
    run = Run(experiment, out)
    is_due = draw_moment(run, chance)
    deadline = time.monotonic() + SLOW_SECONDS
    while not run.is_over and not is_due():
        if time.monotonic() > deadline:
            run.kill()
            raise Different(f"the run hangs; see {out.with_suffix('.log')}")
        time.sleep(POLL_SECONDS)
    if run.is_over:
        return run.wait()
    victim = _kill_someone(run, chance) if ranks > 1 else "runner"
    if victim == "runner":
        run.kill()
    kill = Kill(stage=run.stage, where=unfinished(out) or "between", step=saved_step(out), victim=victim)
    if victim != "runner":
        code = run.wait()
        if code in (0, 70):
            raise Different(f"after the death of its {victim} the run ended with {code}")
    else:
        run.check_gone()
    return kill


def _kill_someone(run: Run, chance: random.Random) -> str:
    """Kills torchrun or a rank where they are and the dice say so; else says that it is the runner's turn."""
    members = run.members()
    role = chance.choice(sorted({"runner", *members} - {"other"}))
    if role != "runner":
        with suppress(OSError):
            os.kill(chance.choice(members[role]), signal.SIGKILL)
    return role


def soak(
    folder: Path,
    *,
    kills: int,
    per_run: int,
    seed: int,
    ranks: int = 1,
    method: str = "lora",
    say: Callable[[str], None] = print,
) -> Soak:
    """Kills runs until there are enough kills, and lets each end after `per_run` of them. Raises Different."""
    chance, done = random.Random(seed), Soak()
    model = make_model(folder / "model")
    experiment = make_experiment(folder / "alone", model, method=method, ranks=ranks)
    expected = left_alone(experiment, folder / "alone" / "run")
    say(f"left alone: weights {expected['weights_sha256'][:12]}, {expected['num_steps']} steps")
    while len(done.kills) < kills:
        name = f"run-{done.num_runs + 1}"
        experiment = make_experiment(folder / name, model, method=method, ranks=ranks)
        out, budget = folder / name / "run", min(per_run, kills - len(done.kills))
        for kill in _kills(experiment, out, chance, ranks, budget):
            done.kills.append(kill)
            shown = f"{kill.victim} in {kill.stage}, {kill.where}, step {kill.step}"
            say(f"{name}: kill {len(done.kills)}/{kills}: {shown}")
        _check_end(experiment, out, expected)
        _tally(out, done)
        say(f"{name}: the same")
    return done


def _kills(experiment: Experiment, out: Path, chance: random.Random, ranks: int, budget: int) -> Iterator[Kill]:
    for _ in range(budget):
        found = kill_once(experiment, out, chance, ranks)
        if isinstance(found, int):
            if found != 0:
                raise Different(f"the run ended with {found}; see {out.with_suffix('.log')}")
            return
        yield found


def _check_end(experiment: Experiment, out: Path, expected: Mapping[str, Any]) -> None:
    code = Run(experiment, out).wait()
    if code != 0:
        raise Different(f"the last attempt ended with {code}; see {out.with_suffix('.log')}")
    found = result(out)
    unlike = [key for key in expected if found[key] != expected[key]]
    if unlike:
        raise Different(f"not as in the run left alone: {', '.join(unlike)}; see {out}")


def _tally(out: Path, done: Soak) -> None:
    done.num_runs += 1
    training = json.loads((out / "report.json").read_text())["training"]
    done.resumed.update(training["resumed_from"])
    with suppress(OSError):
        notes = out / "train" / "checkpoints" / "quarantine" / "notes.jsonl"
        done.quarantined += len(notes.read_text().splitlines())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what happened; 1 at any difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="where to leave the runs")
    args = parser.parse_args(argv)
    folder = args.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {args.seed}; runs in {folder}", flush=True)
    try:
        done = soak(
            folder,
            kills=args.kills,
            per_run=args.per_run,
            seed=args.seed,
            ranks=args.ranks,
            method=args.method,
            say=lambda line: print(line, flush=True),
        )
    except Different as error:
        print(f"DIFFERENT: {error}", flush=True)
        return 1
    for name in ("victim", "stage", "where"):
        print(f"{name:<8}", dict(Counter(getattr(kill, name) for kill in done.kills)))
    print("resumed from", dict(sorted(done.resumed.items())), "quarantined", done.quarantined)
    print(f"{len(done.kills)} kills over {done.num_runs} runs: all as the run left alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
