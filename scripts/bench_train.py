"""Training and evaluation against stock TRL and plain generation: the table of bars, each with its figure.

    python scripts/bench_train.py cpu-train [--arm trl-tuned]   trained tokens/s on the quickstart's rows
    python scripts/bench_train.py cpu-busy                      the same beside a neighbour whose threads spin
    python scripts/bench_train.py cpu-eval                      base and tuned answers, loading included
    python scripts/bench_train.py gpu-train [--parts chat,...]  8B and 1B at random: speed, utilisation, peak memory
    python scripts/bench_train.py gpu-eval                      as cpu-eval, with an 8B model at random on disk
    python scripts/bench_train.py memory                        the memory plan's estimate against the peak
    ... --rounds N --steps N --json FILE                        of every sub-command

Arms take turns (ABAB..., every second round backwards), one runs twice a round for the noise, and ratios are taken
round by round. Only real tokens count, never padding. Loading and looks at the dev rows are left out of training.
`cpu-train` and `cpu-eval` need the embedded model's cache (`./scripts/setup`) or `--model FOLDER`; GPU figures need a
CUDA device, and are "not measured" without.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from bench import answering, figures, gpu, models, neighbour, training  # noqa: E402 (the path first)
from bench.figures import Line, Result  # noqa: E402

CACHE = Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")
MODEL = "smollm2-135m-instruct"
NO_GPU = "no CUDA device"
BUSY = 0.5  # load average per core from which a figure is not for the record


def main(words: Sequence[str] | None = None) -> None:
    """Runs one sub-command, prints its table and writes the JSON file."""
    args = _parser().parse_args(words)
    if args.run is run_child:
        run_child(args)
        return
    facts = figures.machine()
    print(_headline(facts), flush=True)
    lines, rounds = args.run(args)
    lines = [replace(line, toy=args.toy) for line in lines]
    print(figures.show(lines))
    if args.json:
        figures.write_json(args.json, lines, rounds, facts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, run in VERBS.items():
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("--rounds", type=int, default=2 if name.startswith("gpu") else 3)
        verb.add_argument("--steps", type=int, default=4 if name == "gpu-train" else 3, help="timed steps of an arm")
        verb.add_argument("--warm", type=int, default=1, help="steps before them (at least 1)")
        verb.add_argument("--json", type=Path)
        verb.add_argument("--model", help="a model folder in place of the embedded model")
        verb.add_argument("--toy", action="store_true", help=argparse.SUPPRESS)  # the GPU's code path on any machine
        verb.add_argument(
            "--batch", type=int, default=4 if name in ("cpu-train", "cpu-busy") else 64, help="rows a step or a batch"
        )
        verb.add_argument("--arm", action="append", choices=["trl-tuned"], default=[], help="a further arm")
        verb.add_argument("--prompts", type=int, default=64)
        verb.add_argument("--new-tokens", type=int, default=128)
        verb.add_argument("--parts", default=",".join(gpu.PARTS), help="parts of gpu-train, separated by commas")
        verb.add_argument("--minutes", type=float, default=7.5, help="gpu-train starts no arm later than this")
    child = verbs.add_parser("arm")
    child.add_argument("name", choices=sorted(CHILDREN))
    child.add_argument("options", type=Path)
    child.set_defaults(run=run_child)
    return parser


def _headline(facts: dict[str, Any]) -> str:
    packages = facts["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers", "trl") if name in packages)
    where = ", ".join(facts["gpus"]) or f"{facts['num_cores']} cores, {facts['num_threads']} threads"
    busy = facts["load"][0] > BUSY * (facts["num_cores"] or 1)
    note = "; OTHER WORK IS GOING ON HERE: not for the record" if busy else ""
    return f"{facts['date']}, {where}, {versions}, load {facts['load'][0]}{note}"


# --- arms in processes of their own ----------------------------------------------------------------------------------

CHILDREN = {
    "ours": training.ours_on_quickstart,
    "trl": training.trl_on_quickstart,
    "trl-tuned": training.trl_on_quickstart,
    "one copy": answering.ours,
    "two loads": answering.two_loads,
}


def run_child(args: argparse.Namespace) -> None:
    """One arm: reads its options from a file and writes what it measured into the same file."""
    options = json.loads(args.options.read_text())
    args.options.write_text(json.dumps(CHILDREN[args.name](options)))


def in_process(
    name: str, options: dict[str, Any], own: Mapping[str, str | None] | None = None, label: str = ""
) -> Result:
    """Runs an arm in a process of its own, in a work folder of its own; one that fails says how it ended. `own` is
    added to its environment, or taken from it (None)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "options.json"
        path.write_text(json.dumps({**options, "work": folder}))
        command = [sys.executable, __file__, "arm", name, str(path)]
        started = time.perf_counter()
        environment = {name: value for name, value in {**os.environ, **(own or {})}.items() if value is not None}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        lines = (ended.stderr or ended.stdout).strip().splitlines() or ["no output"]
        failed = {"failed": f"exit {ended.returncode}: {lines[-1][:300]}"}
        result = json.loads(path.read_text()) if ended.returncode == 0 else failed
    told = result.get("failed") or _told(result)
    print(f"  {label or name}: {told} ({time.perf_counter() - started:.0f} s with start and imports)", flush=True)
    return dict(result)


def _told(result: Result) -> str:
    return f"{figures.rate([result]):,.1f} tokens/s" if "tokens" in result else f"{result['seconds']:.1f} s"


def _folder(args: argparse.Namespace) -> str:
    """The model's folder, the embedded model converted if that was not done before."""
    if args.model:
        return str(Path(args.model).resolve())
    from bench.rows import local_backend

    session = local_backend().open_session(MODEL, "lora", CACHE, training.Clock())
    return str(session.folder)


# --- the sub-commands ------------------------------------------------------------------------------------------------


def cpu_train(args: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    """Ours and TRL's trainer on the quickstart's rows."""
    options = _train_options(args, "lora")

    def run(name: str) -> Result:
        return in_process(name, {**options, "tuned": name == "trl-tuned"})

    rounds = figures.in_rounds(["ours", "trl", *args.arm, "ours"], args.rounds, run)
    tuned = figures.ratios(rounds, "ours", "trl-tuned")
    notes = [figures.compare_losses(rounds, "ours", "trl")]
    notes += [f"over TRL packed, no checkpointing, float32: {figures.show_spread(tuned, 'x')}"] if tuned else []
    line = Line(
        bar="cpu-train",
        values=figures.ratios(rounds, "ours", "trl"),
        noise=figures.noise(rounds, "ours"),
        reason=figures.failures(rounds, "ours", "trl"),
        notes=tuple(notes),
    )
    return [line], {"cpu-train": rounds}


# What the libraries do when nobody says anything, said by a variable, so that `runner` leaves it alone.
SPINNING = {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}


def cpu_busy(args: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    """Ours beside a neighbour of as many spinning threads as cores, over ours alone and over its fair share: with the
    waiting that `runner` sets, and with the libraries' own."""
    options, cores = _train_options(args, "lora"), neighbour.num_cores()
    waits = {"passive": {}, "default": SPINNING}

    def run(name: str) -> Result:
        wait, place = name.split(", ")
        with neighbour.spinning(cores if place == "busy" else 0):
            return in_process("ours", options, waits[wait], name)

    order = ["passive, quiet", "passive, busy", "default, busy", "default, quiet", "passive, quiet"]
    rounds = figures.in_rounds(order, args.rounds, run)
    share = neighbour.fair_share(cores, cores, cores)
    found = {
        wait: tuple(ratio / share for ratio in figures.ratios(rounds, f"{wait}, busy", f"{wait}, quiet"))
        for wait in waits
    }
    line = Line(
        bar="cpu-busy",
        values=found["passive"],
        noise=figures.noise(rounds, "passive, quiet"),
        reason=figures.failures(rounds, "passive, busy", "passive, quiet"),
        notes=(
            f"the fair share is {share:g} of the quiet speed: {cores} threads of ours, {cores} of the neighbour's",
            f"with the libraries' own waiting: {figures.show_spread(found['default'], 'x')} of the fair share",
            *(
                f"{name}: {figures.show_spread(_steps_per_second(rounds, name))} steps/s"
                for name in dict.fromkeys(order)
            ),
            f"passive over default, quiet: "
            f"{figures.show_spread(figures.ratios(rounds, 'passive, quiet', 'default, quiet'), 'x')}",
        ),
    )
    return [line], {"cpu-busy": rounds}


def _steps_per_second(rounds: figures.Rounds, name: str) -> tuple[float, ...]:
    every = (figures.good(found.get(name)) for found in rounds)
    return tuple(len(result["seconds"]) / sum(result["seconds"]) for results in every for result in results)


def _train_options(args: argparse.Namespace, method: str) -> dict[str, Any]:
    return {
        "model": _folder(args),
        "method": method,
        "rows": (args.warm + args.steps) * args.batch,
        "warm": args.warm,
        "steps": args.steps,
        "seed": 0,
        "hyper": {"batch_size": args.batch},
    }


def cpu_eval(args: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    """Base and tuned answers of ours and of two loads."""
    return _evaluate("cpu-eval", _folder(args), args)


def gpu_eval(args: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    """The same with an 8B llama at random, written to disk first."""
    if not _has_gpu(args):
        return [Line(bar="gpu-eval", reason=NO_GPU)], {}
    with tempfile.TemporaryDirectory() as folder:
        models.write_model("toy" if args.toy else "8b", Path(folder))
        return _evaluate("gpu-eval", folder, args)


def _evaluate(bar: str, model: str, args: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        answering.make_adapter(model, Path(folder))
        models.free()
        options = {
            "model": model,
            "adapter": folder,
            "prompts": args.prompts,
            "new_tokens": args.new_tokens,
            "batch": args.batch,
        }
        order = ["one copy", "two loads", "one copy"]
        rounds = figures.in_rounds(order, args.rounds, lambda name: in_process(name, options))
    mine, other = (figures.good(rounds[0].get(name)) for name in ("one copy", "two loads"))
    line = Line(
        bar=bar,
        values=figures.ratios(rounds, "two loads", "one copy", _mean_seconds),
        noise=figures.noise(rounds, "one copy", _mean_seconds),
        reason=figures.failures(rounds, "one copy", "two loads"),
        notes=(answering.same_share(mine[0], other[0]),) if mine and other else (),
    )
    return [line], {bar: rounds}


def _mean_seconds(results: Sequence[Result]) -> float:
    return float(sum(result["seconds"] for result in results) / len(results))


def gpu_train(args: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    """The parts of the GPU's table, as far as time allows; what was measured is written after each."""
    bars = ("gpu-chat", "gpu-long", "gpu-mfu", "gpu-peak", "gpu-qlora", "gpu-full", "gpu-memory")
    if not _has_gpu(args):
        return [Line(bar=bar, reason=NO_GPU) for bar in bars], {}
    args.deadline = time.perf_counter() + 60 * args.minutes
    found: dict[str, Any] = {"ceilings": models.ceilings(args.toy)}
    print("  ".join(f"{name} {value:.3g}/s" for name, value in found["ceilings"].items()), flush=True)
    lines: list[Line] = []
    for name in args.parts.split(","):
        lines += [replace(line, toy=args.toy) for line in gpu.run_part(name, args, found)]
        if args.json:
            figures.write_json(args.json, lines, found, figures.machine())
    lines.append(gpu.memory_line(found))
    asked = {line.bar for line in lines}
    return lines + [Line(bar=bar, reason="not asked for") for bar in bars if bar not in asked], found


def memory(args: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    """The error of the estimate for each approach and two sizes of a step, each in a fresh process."""
    if _has_gpu(argparse.Namespace(toy=False)):
        print("on a GPU, gpu-train measures this with every run of ours")
        return [Line(bar="gpu-memory", reason="run gpu-train")], {}
    rounds: figures.Rounds = []
    for method in ("lora", "full", "qlora"):
        for batch in (4, 16):
            asked = argparse.Namespace(**{**vars(args), "batch": batch})
            result = in_process("ours", _train_options(asked, method))
            rounds.append({f"{method}, {batch} rows": [result]})
    errors = [(name, run) for found in rounds for name, some in found.items() for run in figures.good(some)]
    known = [(name, run) for name, run in errors if run["memory_error"] is not None]
    notes = [_estimate(name, run) for name, run in known] + [figures.failures(rounds, *(n for f in rounds for n in f))]
    values = tuple(run["memory_error"] for _, run in known)
    lines = [Line(bar="cpu-memory", values=values, notes=tuple(notes)), Line(bar="gpu-memory", reason=NO_GPU)]
    return lines, {"memory": rounds}


def _estimate(name: str, run: Result) -> str:
    error = run["estimate_bytes"] / run["peak_bytes"] - 1
    return f"{name}: {run['estimate_bytes'] / 1e9:.3f} of {run['peak_bytes'] / 1e9:.3f} GB, {error:+.1%}"


def _has_gpu(args: argparse.Namespace) -> bool:
    import torch

    return bool(args.toy or torch.cuda.is_available())


VERBS = {
    "cpu-train": cpu_train,
    "cpu-busy": cpu_busy,
    "cpu-eval": cpu_eval,
    "gpu-train": gpu_train,
    "gpu-eval": gpu_eval,
    "memory": memory,
}

if __name__ == "__main__":
    main()
