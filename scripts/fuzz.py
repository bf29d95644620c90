"""Does anything that a person may hand in break the runner? Hostile manifests and data files, thousands of them.

    python scripts/fuzz.py [--cases 10000] [--seed 1] [--only N] [--workers 2] [--every 100] [--keep DIR]

Three of five cases are manifests, through `runner validate` and, where it passes, `runner plan`; the others are data
files, through `runner plan`. They run in worker processes on a tiny model; every so many also as a command of its own.
Of each must hold: no traceback and an exit code of the table, problems with place and cure, nothing read or written
outside the roots (RUNNER_ROOTS, the manifest's folder, the cache), bounds of time and memory, no control characters
on the terminal. What fails is kept in DIR, with the line that repeats it. Exits 1 when anything failed.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from fuzzing.cases import Place, make_case  # noqa: E402
from fuzzing.checks import faults  # noqa: E402
from fuzzing.processes import Worker, as_command  # noqa: E402

from tests.tiny import make_model  # noqa: E402


@dataclass(kw_only=True)
class Tally:
    """What has been found so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    failed: dict[int, list[str]] = field(default_factory=dict)
    slowest: dict[str, tuple[float, int]] = field(default_factory=dict)
    largest: dict[str, tuple[float, int]] = field(default_factory=dict)
    num_commands: int = 0
    num_done: int = 0

    def add(self, answer: dict[str, Any]) -> list[str]:
        """Counts a case; what does not hold of it."""
        number, found = answer["number"], [answer["died"]] if "died" in answer else []
        for result in answer["results"]:
            verb = f"{result['kind']} {result['arguments'][0]}"
            self.kinds[verb] += 1
            self.codes[f"{verb} {result['code']}"] += 1
            self.problems.update({problem["code"] for problem in result["problems"]})
            for best, value in ((self.slowest, result["seconds"]), (self.largest, result["num_bytes"] / 2**20)):
                best[verb] = max(best.get(verb, (0.0, 0)), (round(value, 2), number))
            found += faults(result)
        if found:
            self.failed[number] = found
        return found


def fuzz(
    numbers: Sequence[int],
    seed: int,
    workers: Sequence[Worker],
    *,
    every: int,
    keep: Path | None,
    say: Callable[[str], None],
) -> Tally:
    """Tries the cases on all workers; every so many also as commands of their own."""
    tally, lock, waiting = Tally(), threading.Lock(), queue.SimpleQueue[int]()
    for number in numbers:
        waiting.put(number)

    def work(worker: Worker) -> None:
        with suppress(queue.Empty):
            while True:
                number = waiting.get_nowait()
                answer = worker.attempt(seed, number)
                more = as_command(seed, number, Place(base=worker.base)) if every and number % every == 0 else []
                with lock:
                    tally.num_commands += bool(every and number % every == 0)
                    if found := [*tally.add(answer), *more]:
                        tally.failed[number] = found
                        say(f"case {number}: {'; '.join(found)[:600]}")
                        say(f"   {sys.executable} {sys.argv[0]} --seed {seed} --only {number}")
                    tally.num_done += 1
                    if tally.num_done % 250 == 0:
                        say(f"{tally.num_done} of {len(numbers)} cases tried, {len(tally.failed)} failed")
                    if found and keep:
                        _keep(seed, number, answer, Path(keep), worker.base)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def _keep(seed: int, number: int, answer: dict[str, Any], keep: Path, base: Path) -> None:
    folder = keep / f"case-{seed}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_case(seed, number, Place(base=base))
    for path in Place(base=base).case.iterdir():
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 50_000_000:
            shutil.copy(path, folder / ascii(path.name)[1:-1].replace("/", "_")[:200])
    (folder / "answer.json").write_text(json.dumps(answer, indent=1))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what happened; 1 when anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--every", type=int, default=100, help="every so many cases also as a command of its own; 0: none"
    )
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args(argv)
    base = Path(tempfile.mkdtemp(prefix="fuzz-"))
    began = time.monotonic()
    try:
        model = make_model(base / "model")
        workers = [Worker(base / f"worker-{i}", model) for i in range(args.workers)]
        numbers = [args.only] if args.only is not None else range(args.first, args.first + args.cases)
        tally = fuzz(
            numbers, args.seed, workers, every=args.every, keep=args.keep, say=lambda line: print(line, flush=True)
        )
        for worker in workers:
            worker.close()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    for name in ("kinds", "codes", "problems", "slowest", "largest"):
        print(f"{name:<9}", dict(sorted(getattr(tally, name).items())))
    tried = f"{len(numbers)} cases (seed {args.seed}), {tally.num_commands} of them also as commands"
    print(f"{tried}, in {time.monotonic() - began:.0f} s: {len(tally.failed)} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
