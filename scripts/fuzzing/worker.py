"""A worker: tries numbered cases in its own process, as it is told on stdin, and answers each with one line of JSON."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import io
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

ADDRESS_SPACE = 6 << 30  # bytes beyond those of the idle worker: a bomb ends in MemoryError here, not on the machine
FILE_SIZE = 2 << 30
STUCK_SECONDS = 40.0  # after which the log says where it is


def prepare(base: Path) -> Any:
    """The folders, the environment and the limits; loads everything once, and returns how to try a case."""
    from fuzzing.cases import Place
    from fuzzing.hostile import SECRET

    place = Place(base=base)
    for folder in (place.outside, place.home, place.cache, place.case):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (place.outside, place.home):
        (folder / "secret.jsonl").write_text(json.dumps({"prompt": SECRET, "completion": SECRET}) + "\n")
    own = {
        "RUNNER_CACHE": place.cache,
        "RUNNER_ROOTS": place.model,
        "HOME": place.home,
        "TMPDIR": place.cache,
        "HF_HOME": place.cache / "hf",
    }
    os.environ.update({name: str(path) for name, path in own.items()})
    os.environ.update({"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "TOKENIZERS_PARALLELISM": "false"})
    os.environ.pop("RUNNER_OUT", None)
    return place


def warm(place: Any) -> None:
    """Runs two sound cases, so that what is loaded once counts for none of the others."""
    from fuzzing.files import GOOD
    from runner.backends import local
    from runner.machine import gpu

    (place.case / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GOOD))
    approach = {"kind": "lora", "model": str(place.model)}
    manifest = {"name": "warm", "data": {"train": "rows.jsonl"}, "approach": approach, "gate": {"task": "format"}}
    (place.case / "warm.yaml").write_text(json.dumps(manifest))
    driver = gpu._ask_driver(os.environ)  # asked once too: it is asked in a process of its own
    gpu._ask_driver = lambda _: driver
    local.matmul_rate = functools.cache(local.matmul_rate)  # the machine's, measured once: a second of work each time
    with contextlib.chdir(place.case):
        for _ in range(2):
            ended = answer(("plan", "warm.yaml"))
            assert ended["code"] in (0, 3), ended["output"]


def limit() -> None:
    """Bounds the address space and the size of files; a bug of ours must not take the machine with it."""
    now = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)
    resource.setrlimit(resource.RLIMIT_AS, (now * 1024 + ADDRESS_SPACE, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(arguments: tuple[str, ...]) -> dict[str, Any]:
    """What the command says: its exit code, what it printed, and the problems that it showed."""
    from runner.cli import main

    shown: list[Any] = []
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    with _recorded(shown), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = int(main(list(arguments)))
    return {"code": code, "output": out.buffer.getvalue().decode(), "problems": [asdict(problem) for problem in shown]}  # type: ignore[attr-defined]


@contextlib.contextmanager
def _recorded(shown: list[Any]) -> Iterator[None]:
    """Keeps the problems that are shown while open, beside showing them."""
    from runner.console import Console

    real = Console.problems

    def recording(self: Console, problems: Any, *more: Any, **given: Any) -> None:
        problems = list(problems)
        shown.extend(problems)
        real(self, problems, *more, **given)

    Console.problems = recording  # type: ignore[method-assign]
    try:
        yield
    finally:
        Console.problems = real  # type: ignore[method-assign]


def attempt(seed: int, number: int, place: Any, watch: Any) -> Iterator[dict[str, Any]]:
    """Tries a case's commands in its folder: what each said, used and touched."""
    from fuzzing.cases import make_case
    from fuzzing.watch import measured

    case = make_case(seed, number, place)
    gc.collect()
    with contextlib.chdir(place.case):
        for arguments in case.commands:
            with measured() as used, watch.on():
                said = answer(arguments)
            yield {
                "kind": case.kind,
                "arguments": arguments,
                **said,
                **asdict(used),
                "escapes": sorted(set(watch.escapes)),
            }
            if said["code"] not in (0, 3):
                return


def main() -> None:
    """Reads `[seed, number]` a line; answers `{"number": ..., "results": [...], "wall": seconds}`."""
    from fuzzing.watch import Watch, libraries

    answers, sys.stdout = sys.stdout, sys.stderr
    place = prepare(Path(sys.argv[1]))
    time.sleep = lambda _: None  # nobody is reached here, so nobody needs to be waited for
    warm(place)
    limit()
    watch = Watch(readable=(place.case, place.model, *libraries()), writable=(place.cache,))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        seed, number = json.loads(line)
        faulthandler.dump_traceback_later(STUCK_SECONDS)
        began = time.monotonic()
        results = list(attempt(seed, number, place, watch))
        print(
            json.dumps({"number": number, "results": results, "wall": time.monotonic() - began}),
            file=answers,
            flush=True,
        )


if __name__ == "__main__":
    main()
