"""How each of several processes ended, in a file of its own: torchrun itself ends with 1 whatever went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.distributed import DistError

from runner.errors import Exit, Interrupted, Problem, RunnerError, Where
from runner.files import write_whole
from runner.masking import masked_value


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
    write_whole(folder / f"status-{rank}.json", json.dumps(masked_value(status)))


def lost_another(error: BaseException) -> bool:
    """Whether a rank failed because another one was gone: torch has a type of its own for that with NCCL only."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def forget(folder: Path) -> None:
    """Removes what the ranks of an earlier attempt left word of."""
    for path in folder.glob("status-*.json"):
        path.unlink()


def raise_outcome(folder: Path, num_processes: int, code: int, interrupted: Interrupted | None) -> None:
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
