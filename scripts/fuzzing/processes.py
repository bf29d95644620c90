"""The processes in which cases are tried: workers that live through many, and commands of their own."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzzing.cases import Place, make_case

ROOT = Path(__file__).parents[2]
CASE_SECONDS = 60.0  # of the processor, or without using it: on a busy machine a case may take many times as long
START_SECONDS = 300.0


class Worker:
    """A process that tries cases; started anew when it dies or hangs."""

    def __init__(self, base: Path, model: Path):
        self.base = base
        base.mkdir(parents=True, exist_ok=True)
        if not (base / "model").exists():
            shutil.copytree(model, base / "model")
        self._process: subprocess.Popen[str] | None = None

    def attempt(self, seed: int, number: int) -> dict[str, Any]:
        """What became of a case; `died` says how, where the worker did not live through it."""
        try:
            process = self._started()
            assert process.stdin
            process.stdin.write(json.dumps([seed, number]) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._answer(process.pid))
            return answer
        except (OSError, ValueError, queue.Empty) as error:
            hung = isinstance(error, queue.Empty)
            code = self.close()
            return {
                "number": number,
                "results": [],
                "died": f"hangs after {CASE_SECONDS:.0f} s" if hung else f"the process died with {code}",
            }

    def close(self) -> int:
        """Ends the process; its exit code."""
        if self._process is None:
            return 0
        with suppress(OSError):
            self._process.kill() if self._process.poll() is None else None
        code, self._process = self._process.wait(), None
        return code

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}", "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-P", "-m", "fuzzing.worker", str(self.base)]
            log = (self.base / "worker.log").open("a")
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.base,
            )
            log.close()
            self._lines: queue.Queue[str] = queue.Queue()
            threading.Thread(target=self._read, args=(self._process.stdout, self._lines), daemon=True).start()
            assert self._line(START_SECONDS) == "ready\n", f"see {self.base / 'worker.log'}"
        return self._process

    def _answer(self, pid: int) -> str:
        """The answer to a case; raises queue.Empty where none is to be expected any more."""
        began = used = _processor_seconds(pid)
        moved = time.monotonic()
        while used - began < CASE_SECONDS and time.monotonic() - moved < CASE_SECONDS:
            with suppress(queue.Empty):
                return self._line(1.0)
            if (now := _processor_seconds(pid)) > used:
                used, moved = now, time.monotonic()
        raise queue.Empty

    def _line(self, seconds: float) -> str:
        return self._lines.get(timeout=seconds)

    @staticmethod
    def _read(pipe: Iterable[str], lines: queue.Queue[str]) -> None:
        for line in pipe:
            lines.put(line)
        lines.put("")  # the end, which is no JSON


def _processor_seconds(pid: int) -> float:
    """What a process and its threads have used of the processors; nothing once it is gone."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def as_command(seed: int, number: int, place: Place) -> list[str]:
    """Tries a case as commands of their own; what does not hold."""
    case = make_case(seed, number, place)
    own = {
        "RUNNER_CACHE": place.cache,
        "RUNNER_ROOTS": place.model,
        "HOME": place.home,
        "PYTHONPATH": ROOT,
        "HF_HUB_OFFLINE": "1",
    }
    environment = {**os.environ, **{name: str(value) for name, value in own.items()}, "OMP_NUM_THREADS": "1"}
    found = []
    for arguments in case.commands:
        command = [sys.executable, "-m", "runner", *map(_argument, arguments)]
        try:
            ended = subprocess.run(command, cwd=place.case, env=environment, capture_output=True, timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            return [*found, f"as a command: hangs after {START_SECONDS:.0f} s"]
        if (
            ended.returncode in (70, 74)
            or ended.returncode < 0
            or b"Traceback (most recent" in ended.stderr + ended.stdout
        ):
            found.append(
                f"as a command: exit code {ended.returncode}: {ended.stderr.decode(errors='replace').strip()[-300:]}"
            )
        if ended.returncode not in (0, 3):
            break
    return found


def _argument(text: str) -> bytes:
    """The argument's bytes; half a character, which has none, becomes a question mark."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
