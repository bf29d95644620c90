"""Several processes that train one job: started here by torchrun, or already started by whoever started us."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

from runner.backends.base import CheckpointPlan, Hyperparameters, Progress, TrainJob, Watch
from runner.backends.local.encoded import EncodedRows
from runner.backends.local.ranks import Ranks, joined, placed
from runner.errors import Exit, Interrupted, Problem, RunnerError, Where

FAREWELL_SECONDS = 5.0
WORD_SECONDS = 2.0  # for a rank that failed to leave word
MARK = '{"runner":'
PATIENCE_SECONDS = 60.0  # from the request to stop until processes that do not end are ended
MEETING_PORT = 29_400
SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)  # loaded before anything forks
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RankJob:
    """A job as its ranks read it: which model, which rows (tokenized once, before the ranks start), what to do."""

    model: str
    method: str
    cache: Path
    name: str
    job: TrainJob
    rows: EncodedRows
    dev: EncodedRows

    def write(self) -> Path:
        """The job as a file of its work folder."""
        folder = self.job.work_dir
        folder.mkdir(parents=True, exist_ok=True)
        job = {k: v for k, v in vars(self.job).items() if k not in ("train", "dev", "hyperparameters", "checkpoint")}
        values = {
            "model": self.model,
            "method": self.method,
            "cache": str(self.cache.resolve()),
            "name": self.name,
            "job": {**job, "work_dir": str(folder.resolve()), "model_dir": str(self.job.model_dir.resolve())},
            "hyperparameters": asdict(self.job.hyperparameters),
            "checkpoint": asdict(self.job.checkpoint),
            "rows": self.rows.save(folder / "rows.npz"),
            "dev": self.dev.save(folder / "dev.npz"),
        }
        path = folder / "job.json"
        path.write_text(json.dumps(values))
        return path

    @classmethod
    def read(cls, path: Path) -> RankJob:
        """The job of a file."""
        values = json.loads(path.read_text())
        hyper, job = values["hyperparameters"], values["job"]
        modules = hyper["target_modules"]
        return cls(
            model=values["model"],
            method=values["method"],
            cache=Path(values["cache"]),
            name=values["name"],
            job=TrainJob(
                **{**job, "work_dir": Path(job["work_dir"]), "model_dir": Path(job["model_dir"])},
                train=(),
                dev=(),
                hyperparameters=Hyperparameters(**{**hyper, "target_modules": tuple(modules) if modules else None}),
                checkpoint=CheckpointPlan(**values["checkpoint"]),
            ),
            rows=EncodedRows.open(values["rows"]),
            dev=EncodedRows.open(values["dev"]),
        )


class RankWatch:
    """How a rank tells what it does: rank 0 writes lines that the process which shows them reads; a request to stop is
    only noted, since all ranks must agree on the step at which they do."""

    def __init__(self, rank: int, out: IO[str]):
        self.asked = False
        self._out = out if rank == 0 else None

    def ask(self, *_: object) -> None:
        """Notes a request to stop."""
        self.asked = True

    def tell(self, event: str, **facts: Any) -> None:
        """One line for the process that shows it."""
        if self._out is not None:
            with suppress(BrokenPipeError):
                self._out.write(json.dumps({"runner": event, **facts}) + "\n")
                self._out.flush()

    def stage(self, name: str) -> None:
        """Not told: a rank knows one stage only."""

    def say(self, line: str) -> None:
        """Tells something about the work."""
        self.tell("say", line=line)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Passes points of a curve on."""
        self.tell("log", values=dict(values), step=step)

    def send_curves_to(self, sink: Callable[[Mapping[str, float], int], None]) -> None:
        """Curves go to the process that reads the lines."""

    def check(self) -> None:
        """Never raises; see above."""

    def interruptible(self, grace_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Nothing is."""
        return nullcontext()

    def progress(self, label: str, total: int) -> Progress:
        """Told as it moves."""
        return _ToldProgress(self, label, total)


class _ToldProgress:
    def __init__(self, watch: RankWatch, label: str, total: int):
        self._watch, self._label, self._total = watch, label, total

    def __enter__(self) -> Progress:
        self._watch.tell("begin", label=self._label, total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.tell("end", label=self._label)

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        self._watch.tell("advance", label=self._label, amount=amount, facts=facts)


def spawn(path: Path, num_processes: int, watch: Watch) -> None:
    """Trains the job of a file in processes of its own, by torchrun; they end with this one, whatever ends it.

    Raises Interrupted when asked to stop (checkpoint saved), and what the ranks say went wrong.
    """
    folder = path.parent
    forget(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_processes)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(round(PATIENCE_SECONDS)),  # else ranks are killed amid a long save
    }
    with (folder / "ranks.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-m", "runner.backends.local.worker", str(path)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # a Ctrl-C comes to us alone, and goes to them once
            preexec_fn=die_with_parent,
        )
        interrupted = _follow_lines(process, watch)
    _raise_outcome(folder, num_processes, process.returncode, interrupted)


def die_with_parent() -> None:
    """Makes the kernel end this process with the one that started it."""
    _LIBC.prctl(SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)


def has_torchrun() -> bool:
    """Whether torchrun is still above us: it may have ended before the kernel knew that we are to end with it."""
    with suppress(OSError):
        return b"torch.distributed.run" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    return False


def _follow_lines(process: subprocess.Popen[str], watch: Watch) -> Interrupted | None:
    """Shows what rank 0 tells until the processes have ended; passes a request to stop on to them."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    shown = _Shown(watch)
    interrupted: Interrupted | None = None
    give_up = float("inf")
    try:
        while True:
            with suppress(queue.Empty):
                line = lines.get(timeout=0.1)
                if line is None:
                    break
                shown.tell(line)
            if interrupted is None:
                try:
                    watch.check()
                except Interrupted as error:
                    interrupted, give_up = error, time.monotonic() + PATIENCE_SECONDS + 10
                    process.terminate()
            if time.monotonic() > give_up:
                process.kill()
        process.wait()
    finally:
        shown.close()
        if process.poll() is None:
            process.kill()
            process.wait()
    return interrupted


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


class _Shown:
    """Turns the lines of rank 0 back into progress; a request to stop is left to `_follow_lines`."""

    def __init__(self, watch: Watch):
        self._watch = watch
        self._bars: dict[str, Any] = {}

    def tell(self, line: str) -> None:
        if not line.startswith(MARK):
            return
        event = json.loads(line)
        kind = event["runner"]
        if kind == "say":
            self._watch.say(event["line"])
        elif kind == "log":
            self._watch.log(event["values"], event["step"])
        elif kind == "begin":
            self._bars[event["label"]] = self._watch.progress(event["label"], event["total"]).__enter__()
        elif kind == "advance":
            with suppress(Interrupted):
                self._bars[event["label"]].advance(event["amount"], **event["facts"])
        elif kind == "end":
            self._bars.pop(event["label"]).__exit__(None, None, None)

    def close(self) -> None:
        for bar in self._bars.values():
            bar.__exit__(None, None, None)


def leave_status(folder: Path, rank: int, error: BaseException | None) -> None:
    """A rank's outcome as a file: torchrun itself ends with 1 whatever went wrong."""
    status: dict[str, Any] = {"outcome": "done"}
    if isinstance(error, Interrupted):
        status = {"outcome": "interrupted"}
    elif isinstance(error, RunnerError):
        problems = [{**vars(p), "where": vars(p.where)} for p in error.problems]
        status = {"outcome": "failed", "exit_code": int(error.exit_code), "problems": problems}
    elif error is not None and lost_another(error):
        status = {"outcome": "alone"}
    elif error is not None:
        status = {"outcome": "bug", "what": f"{type(error).__name__}: {error}"}
    partial = folder / f".status-{rank}.json"
    partial.write_text(json.dumps(status))
    os.replace(partial, folder / f"status-{rank}.json")


def lost_another(error: BaseException) -> bool:
    """Whether a rank failed because another one was gone: torch has a type of its own for that with NCCL only."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def forget(folder: Path) -> None:
    """Removes what the ranks of an earlier attempt left word of."""
    for path in folder.glob("status-*.json"):
        path.unlink()


def _raise_outcome(folder: Path, num_processes: int, code: int, interrupted: Interrupted | None) -> None:
    """What the ranks say; a rank that says nothing was killed."""
    found = [_status(folder / f"status-{rank}.json") for rank in range(num_processes)]
    for status in found:
        if status and status["outcome"] == "failed":
            problems = [Problem(**{**p, "where": Where(**p["where"])}) for p in status["problems"]]
            raise RunnerError(problems, Exit(status["exit_code"]))
    for status in found:
        if status and status["outcome"] == "bug":
            raise RuntimeError(f"a training process failed: {status['what']} (see {folder / 'ranks.log'})")
    if all(status and status["outcome"] == "done" for status in found):
        return
    if interrupted is not None or any(status and status["outcome"] == "interrupted" for status in found):
        raise interrupted or Interrupted("train")
    silent = [str(rank) for rank, status in enumerate(found) if status is None] or ["(unknown)"]
    raise RunnerError(
        Problem(
            code="train/rank-lost",
            what=f"Training process {', '.join(silent)} of {num_processes} ended without a word (torchrun: {code}); "
            "the machine may have run out of memory.",
            fix=f"Run the same command again: it goes on from the last checkpoint. The log is {folder / 'ranks.log'}.",
        ),
        Exit.IO,
    )


def _status(path: Path) -> Mapping[str, Any] | None:
    try:
        value: Mapping[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value


class AgreedWatch:
    """Rank 0's own watch, but for requests to stop, which the ranks follow together."""

    def __init__(self, watch: Watch):
        self._watch = watch

    def is_stopped(self) -> bool:
        """Whether this rank was asked to stop."""
        try:
            self._watch.check()
        except Interrupted:
            return True
        return False

    def check(self) -> None:
        """Never raises; see above."""

    def progress(self, label: str, total: int) -> Progress:
        """Shown as it moves."""
        return _Heedless(self._watch.progress(label, total))

    def interruptible(self, grace_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Nothing is."""
        return nullcontext()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watch, name)


class _Heedless:
    """A bar that only shows."""

    def __init__(self, shown: Progress):
        self._shown = shown

    def __enter__(self) -> Progress:
        self._shown.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.__exit__(*error)

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        with suppress(Interrupted):
            self._shown.advance(amount, **facts)


def lead(path: Path, ranks: Ranks, watch: Watch, work: Callable[[Watch, Callable[[], bool]], T]) -> T:
    """Rank 0 of processes that somebody else started: hands the job out and takes part in it."""
    agreed = AgreedWatch(watch)
    meet = meeting()
    forget(path.parent)
    meet.hand_out(path)
    try:
        with joined(ranks, meet.room):
            return work(agreed, agreed.is_stopped)
    except Exception as error:
        if not lost_another(error):
            raise
        leave_status(path.parent, ranks.rank, error)
        time.sleep(WORD_SECONDS)  # what the other one died of is worth more than that it did
        _raise_outcome(path.parent, ranks.size, 1, None)
        raise


@functools.cache
def meeting() -> Meeting:
    """Where the ranks of this job meet; each process has one."""
    return Meeting(placed(), os.environ)


class Meeting:
    """Where ranks that somebody else started (torchrun, Kubeflow, srun) wait for rank 0 to have a job for them."""

    def __init__(self, ranks: Ranks, environment: Mapping[str, str]):
        self.ranks = ranks
        hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        whole = TCPStore(
            environment.get("MASTER_ADDR") or environment.get("SLURM_LAUNCH_NODE_IPADDR") or socket.gethostname(),
            int(environment.get("MASTER_PORT") or MEETING_PORT + int(environment.get("SLURM_JOB_ID", 0)) % 1000),
            ranks.size,
            is_master=ranks.rank == 0 and not hosted,
            timeout=timedelta(minutes=10),
        )
        self.store = PrefixStore(environment.get("TORCHELASTIC_RESTART_COUNT", "0"), whole)  # torchrun keeps it
        self.room = PrefixStore("runner/train", self.store)

    def hand_out(self, path: Path) -> None:
        """Rank 0: gives the job to the others."""
        self.store.set("runner/job", str(path.resolve()))

    def dismiss(self, exit_code: int) -> None:
        """Rank 0: lets the others go, with the same exit code; the store may be ours, so they are waited for."""
        self.store.set("runner/end", str(exit_code))
        give_up = time.monotonic() + FAREWELL_SECONDS
        while self.store.add("runner/left", 0) < self.ranks.size - 1 and time.monotonic() < give_up:
            time.sleep(0.02)

    def job(self) -> Path | None:
        """The others: the job, when there is one."""
        return Path(self.store.get("runner/job").decode()) if self.store.check(["runner/job"]) else None

    def end(self) -> int | None:
        """The others: rank 0's exit code, when it has ended."""
        if not self.store.check(["runner/end"]):
            return None
        code = int(self.store.get("runner/end"))
        self.store.add("runner/left", 1)
        return code
