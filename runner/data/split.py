"""Train, dev or test, decided by the question itself."""

from __future__ import annotations

import hashlib
from typing import Literal

Part = Literal["train", "dev", "test"]


def part_of(question_id: str, seed: int, dev: float, test: float) -> Part:
    """The part a question belongs to. The same question always lands in the same part, whatever the order of the
    rows and whatever rows are added later."""
    digest = hashlib.sha256(f"{seed}:{question_id}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < test:
        return "test"
    return "dev" if share < test + dev else "train"
