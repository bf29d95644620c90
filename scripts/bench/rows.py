"""What is trained on and asked: the quickstart's rows, and rows made up for speed alone."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "manifests" / "quickstart.yaml"
ROWS = ROOT / "manifests" / "data" / "support-tickets.jsonl"
DATA_STAGE_ONLY = ("datasets", "pyarrow")
SIGMA = 0.8  # of the log-normal chat lengths
SHORTEST = 16


def local_backend() -> Any:
    """The local backend, importable also where packages are missing that made-up rows do not need."""
    from runner.machine.threads import settled

    settled()  # as the command does: before torch
    import peft  # noqa: F401 (before the stand-ins: it looks for packages itself)
    import transformers  # noqa: F401

    with _stood_in_for(DATA_STAGE_ONLY):
        from runner.backends import local
        from runner.backends.local import loop, train  # noqa: F401
        from runner.backends.local.ranks import job  # noqa: F401
    return local


@contextmanager
def _stood_in_for(names: Sequence[str]) -> Iterator[None]:
    """Empty stand-ins for packages that are not installed, while importing."""
    import importlib.util

    missing = [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]
    sys.modules.update({name: MagicMock() for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def quickstart_examples(count: int) -> list[Any]:
    """The first `count` shipped tickets (all, if there are fewer) as conversations with the quickstart's prompt."""
    import yaml

    from runner.conversation import Example, Message

    system = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["data"]["system"]
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()[:count]]
    return [
        Example(
            messages=(
                Message(role="system", content=system),
                Message(role="user", content=row["prompt"]),
                Message(role="assistant", content=row["completion"]),
            ),
            source=f"tickets:{i}",
        )
        for i, row in enumerate(rows)
    ]


def hyperparameters(**changes: Any) -> Any:
    """The quickstart's, but on every layer: rank 32 on all linear layers, alpha 64, batches of 4 rows; the dev rows are
    looked at before the first step and after the last only."""
    from runner.backends.base import Hyperparameters

    usual: dict[str, Any] = {
        "epochs": 1,
        "learning_rate": 1e-3,
        "batch_size": 4,
        "max_length": 1024,
        "schedule": "linear",
        "warmup": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "rank": 32,
        "alpha": 64,
        "dropout": 0.0,
        "target_modules": None,
        "eval_steps": 10**9,
    }
    return Hyperparameters(**{**usual, **changes})


class MadeUpRows(Sequence[Any]):
    """Random tokens, the last half of each row labelled, or all of it; stands where the trainer takes encoded rows."""

    def __init__(self, lengths: np.ndarray, vocabulary: int, *, all_labelled: bool = False, seed: int = 0):
        from runner.backends.base import TokenCounts
        from runner.backends.local.encode import Encoded

        draw = np.random.default_rng(seed)
        begins = [1 if all_labelled else int(n) // 2 for n in lengths]
        self._rows = [
            Encoded(draw.integers(3, vocabulary, int(n)).tolist(), [(begin, int(n))])
            for n, begin in zip(lengths, begins, strict=True)
        ]
        labelled = np.array([row.num_labelled for row in self._rows], np.int64)
        self.counts = TokenCounts(total=np.asarray(lengths, np.int64), labelled=labelled, problems={})
        self.fingerprint = f"made-up-{seed}"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]


def chat_lengths(count: int, mean: float, longest: int, seed: int = 0) -> np.ndarray:
    """Log-normal lengths in tokens (count,) of that mean, cut at `longest` (TRL cuts there too)."""
    drawn = np.random.default_rng(seed).lognormal(math.log(mean) - SIGMA**2 / 2, SIGMA, count)
    return np.clip(drawn, SHORTEST, longest).astype(np.int64)
