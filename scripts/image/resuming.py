"""Containers that are stopped, killed, run twice or kept short: each ends as the contract says."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from image.bench import FULL, Bench, Failed, expect, expect_code, last_lines, report, stage, wait_for
from image.building import ROOT
from image.engine import call

THREADS = "2"
QUICKSTART = "manifests/quickstart.yaml"
PATIENT = ("--set", "budget.max_hours=24")  # a busy machine is no reason to refuse
SLOWNESS = float(os.environ.get("RUNNER_TEST_SLOWNESS", "2"))  # 1 holds to the bars, on a quiet machine
GRACE_SECONDS = 10.0
LOCKED_SECONDS = 2.0
KILLS = 12  # tries to hit a save, which takes milliseconds


def check_resuming(bench: Bench) -> None:
    """The checks on the tiny model."""
    whole: dict[str, str] = {}
    bench.check("tiny run, hardened, as user and group of its own", lambda b: _whole(b, whole))
    bench.check("no USER, no HOME, no passwd entry", lambda b: _nobody(b, whole))
    bench.check("killed with -9 in a save, then gone on with", lambda b: _killed(b, whole))
    bench.check("two containers on one folder", _two)
    bench.check("64 MB of shared memory, two ranks", lambda b: _small_shm(b))


def check_memory(bench: Bench) -> None:
    """A limit that the plan just fits in. Open: delivery holds the model twice, and was killed in one of two runs."""
    bench.check("2 GB of memory", _small_memory)


def check_quickstart(bench: Bench) -> None:
    """The quickstart in a container: stopped while it trains, gone on with, compared with a run on this machine."""
    out = bench.fresh("quickstart")
    bench.check("quickstart, docker stop while it trains", lambda b: _stopped(b, out))
    if bench.check("quickstart, gone on with to its verdict", lambda b: _verdict(b, out)):
        bench.check("quickstart, same weights as on the host", lambda b: _same(b, out))


def _tiny(bench: Bench, name: str, *more: str) -> tuple[Path, dict[str, Any]]:
    out = bench.fresh(name)
    expect_code(bench.run("plain/soak.yaml", "--out", "/out/run", out=out, more=(*_threads(), *more)), 0)
    return out, report(out / "run")


def _threads() -> tuple[str, str]:
    return ("-e", f"OMP_NUM_THREADS={THREADS}")


def _whole(bench: Bench, whole: dict[str, str]) -> str:
    out, found = _tiny(bench, "whole")
    whole["sha256"] = found["training"]["weights_sha256"]
    unreadable = [path.name for path in out.rglob("*") if path.is_file() and not path.stat().st_mode & 0o004]
    expect(not unreadable, f"others cannot read {unreadable}")
    return f"weights {whole['sha256'][:16]}, every file readable by others"


def _nobody(bench: Bench, whole: dict[str, str]) -> str:
    """As docker runs a user without a passwd entry; podman makes such an entry unless it is told not to."""
    out = bench.fresh("nobody")
    options = bench.options(out, *_threads(), "--entrypoint", "env")
    if bench.engine.name == "podman":
        options += ["--passwd=false"]
    command = ["-u", "USER", "-u", "HOME", "runner", "plain/soak.yaml", "--out", "/out/run"]
    expect_code(bench.engine.run(FULL, *command, options=options), 0)
    return _compare(report(out / "run"), whole)


def _compare(found: dict[str, Any], whole: dict[str, str]) -> str:
    sha256 = found["training"]["weights_sha256"]
    expect(sha256 == whole.get("sha256"), f"weights {sha256[:16]} instead of {whole.get('sha256', 'nothing')[:16]}")
    return f"weights {sha256[:16]}, the same"


def _killed(bench: Bench, whole: dict[str, str]) -> str:
    """SIGKILL to the container's first process while a checkpoint without its commit file is on the disk."""
    from tests.whole_runs import saved_step, unfinished

    for attempt in range(KILLS):
        out = bench.fresh(f"killed-{attempt}")
        with bench.start("plain/soak.yaml", "--out", "/out/run", out=out, more=_threads()) as container:
            pid = container.pid
            try:
                wait_for(lambda: unfinished(out / "run") == "save", container, 300)  # noqa: B023
            except Failed:
                continue
            os.kill(pid, 9)
            code = container.wait()
        if unfinished(out / "run") == "save":
            step = saved_step(out / "run")
            done = bench.run("plain/soak.yaml", "--out", "/out/run", out=out, more=_threads())
            expect_code(done, 0)
            return f"exit code {code} after step {step}, then 0; {_compare(report(out / 'run'), whole)}"
    raise Failed(f"none of {KILLS} kills fell into a save")


def _two(bench: Bench) -> str:
    """The best of three tries counts: the first container works meanwhile, and the machine may do something else."""
    out = bench.fresh("two")
    with bench.start("long/soak.yaml", "--out", "/out/run", out=out) as first:
        wait_for(lambda: stage(out / "run") == "train", first, 600)
        tries = [bench.run("long/soak.yaml", "--out", "/out/run", out=out) for _ in range(3)]
        expect(not first.is_over, "the first ended too early to tell")
        first.kill()
        first.wait()
    for done in tries:
        expect_code(done, 73)
    seconds = min(done.seconds for done in tries)
    expect(seconds <= LOCKED_SECONDS * SLOWNESS, f"exit code 73, but after {seconds:.1f} s at best")
    expect_code(bench.run("long/soak.yaml", "--out", "/out/run", out=out, timeout=1200), 0)
    return f"the second ended with 73 after {seconds:.1f} s; the lock of the first, killed, was taken over"


def _small_shm(bench: Bench) -> str:
    out, found = bench.fresh("shm"), {}
    arguments = ("plain/soak.yaml", "--out", "/out/run", "--set", "approach.processes=2")
    done = bench.run(*arguments, out=out, more=("--shm-size", "64m", "-e", "OMP_NUM_THREADS=1"))
    expect_code(done, 0)
    found = report(out / "run")
    return f"{found['training']['num_steps']} steps on two ranks, weights {found['training']['weights_sha256'][:16]}"


def _small_memory(bench: Bench) -> str:
    """The embedded model either fits, and then trains, or the plan says that it does not; the kernel never decides."""
    limit = ("--memory", "2g", *_threads())
    out = bench.fresh("memory")
    mounts = [*bench.hardened, "-v", f"{out}:/out", *limit]
    short = ["hyperparameters.epochs=0.05", "gate.policy=skip", "gate.reason=memory", "eval.max_new_tokens=1"]
    settings = [part for value in (*short, "eval.forgetting.measure=false") for part in ("--set", value)]
    plan = bench.engine.run(FULL, "plan", QUICKSTART, *PATIENT, *settings, options=mounts)
    said = next((line.strip() for line in plan.text.splitlines() if "memory" in line.lower()), "nothing about memory")
    done = bench.engine.run(FULL, QUICKSTART, "--out", "/out/run", *PATIENT, *settings, options=mounts, timeout=1200)
    expect(done.code not in (137, 124), f"killed: {last_lines(done.text)}")
    problems = [problem["code"] for problem in report(out / "run")["problems"]]
    if done.code == 0:
        return f"it fits and trained {report(out / 'run')['training']['num_steps']} steps; plan: {said}"
    expect(any("memory" in code for code in problems), f"exit code {done.code}: {last_lines(done.text)}")
    return f"exit code {done.code}, {problems}; plan: {said}"


def _start_quickstart(bench: Bench, out: Path) -> list[str]:
    return [*bench.hardened, "-v", f"{out}:/out", *_threads(), "--shm-size", "64m"]


def _run_folder(out: Path) -> Path:
    """The run directory that a container made below its volume, as `runs/<name>-<run id>`."""
    return next(iter(sorted(out.glob("quickstart-*"))), out / "none")


def _stopped(bench: Bench, out: Path) -> str:
    with bench.engine.start(FULL, QUICKSTART, *PATIENT, options=_start_quickstart(bench, out)) as container:
        wait_for(lambda: stage(_run_folder(out)) == "train", container, 1800)
        time.sleep(15)
        seconds = container.stop(30)
        code = container.wait()
    expect(code == 75, f"exit code {code} instead of 75")
    expect(seconds < GRACE_SECONDS, f"it took {seconds:.1f} s")
    return f"exit code 75 after {seconds:.1f} s; user {bench.uid}, read-only, no network, no capabilities"


def _verdict(bench: Bench, out: Path) -> str:
    done = bench.engine.run(FULL, QUICKSTART, *PATIENT, options=_start_quickstart(bench, out), timeout=2400)
    expect_code(done, 0)
    found = report(_run_folder(out))
    line = next((line for line in done.out.splitlines() if found["evaluation"]["comparison"]["verdict"] in line), "")
    return f"verdict {found['verdict']}, {found['training']['num_steps']} steps {line.strip()}"


def _same(bench: Bench, out: Path) -> str:
    inside = report(_run_folder(out))
    host = ROOT / "runs" / _run_folder(out).name
    known = json.loads((host / "report.json").read_text()) if (host / "report.json").is_file() else {}
    made = "known"
    if known.get("status") != "done":
        made = "made now"
        host = bench.folder / "host"
        environment = {"OMP_NUM_THREADS": THREADS, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
        command = [str(ROOT / "scripts" / "run"), str(ROOT / QUICKSTART), *PATIENT, "--out", str(host)]
        expect_code(call(command, timeout=2400, environment=environment), 0)
        known = report(host)
    pair = [side["training"]["weights_sha256"] for side in (inside, known)]
    expect(pair[0] == pair[1], f"{pair[0]} in the container, {pair[1]} on the host ({made})")
    return f"{pair[0]} in both ({made})"
