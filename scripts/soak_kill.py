"""Is training impossible to lose? Whole runs on a tiny model, killed again and again, must end as one left alone.

    python scripts/soak_kill.py [--kills 50] [--per-run 10] [--ranks 1] [--method lora] [--mirror] [--seed N]
        [--keep DIR]

A checkpoint is due after every step, so saving takes a large share of the time. Each kill is a SIGKILL at a moment
drawn at random: in a save, between two, while the model's files are written, in another stage, while Python starts.
With several ranks the victim is drawn too: the runner, torchrun or one rank. After every kill no process may be left,
and the same command is given again. At the end of a run (exit 0) the sha256 of the weights, the training curve and the
scores have to be those of a run that nobody disturbed. Exits 1 at any difference.

With --mirror the run's directory has a mirror in an S3 store on localhost, and every kill takes the machine: the run
directory and the cache are gone, and the next attempt has only the store.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.store_server import BUCKET, StoreServer, serving_store  # noqa: E402
from tests.tiny import make_model  # noqa: E402
from tests.whole_runs import (  # noqa: E402
    SLOW_SECONDS,
    Different,
    Experiment,
    Run,
    left_alone,
    make_experiment,
    result,
    saved_step,
    unfinished,
)

POLL_SECONDS = 0.0005


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
    store: StoreServer | None = None,
    say: Callable[[str], None] = print,
) -> Soak:
    """Kills runs until there are enough kills, and lets each end after `per_run` of them; with a store, every kill
    takes the machine. Raises Different."""
    chance, done = random.Random(seed), Soak()
    model = make_model(folder / "model")
    experiment = make_experiment(folder / "alone", model, method=method, ranks=ranks)
    expected = left_alone(experiment, folder / "alone" / "run")
    say(f"left alone: weights {expected['weights_sha256'][:12]}, {expected['num_steps']} steps")
    while len(done.kills) < kills:
        name = f"run-{done.num_runs + 1}"
        experiment = make_experiment(folder / name, model, method=method, ranks=ranks)
        if store:
            experiment = replace(experiment, mirror=f"s3://{BUCKET}/{name}", store=store.environment)
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
        if experiment.mirror and not isinstance(found, int):
            experiment.lose_machine(out)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what happened; 1 at any difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--mirror", action="store_true", help="every kill takes the machine; a store has the mirror")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="where to leave the runs")
    args = parser.parse_args(argv)
    folder = args.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {args.seed}; runs in {folder}", flush=True)
    try:
        with serving_store() if args.mirror else nullcontext() as store:
            done = soak(
                folder,
                kills=args.kills,
                per_run=args.per_run,
                seed=args.seed,
                ranks=args.ranks,
                method=args.method,
                store=store,
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
