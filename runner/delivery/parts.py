"""What a delivery consists of."""

from __future__ import annotations

from dataclasses import dataclass

from runner.backends.base import Form
from runner.delivery.serve import ServeLine


@dataclass(frozen=True, kw_only=True)
class DeliveredFile:
    """A file by its name within the run directory, its size and its contents' hash."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was evaluated beside what its files give, loaded again.

    The losses (mean nats per answer token) are of `num_rows` test rows; the primary metric's scores are of
    `num_answers` of these, which were answered again, and `same_answers` of them word for word. A score that is not
    taken again is None, and `unscored` says why.
    """

    form: Form
    num_rows: int
    loss_evaluated: float
    loss_delivered: float
    num_answers: int
    same_answers: int
    score_evaluated: float | None
    score_delivered: float | None
    unscored: str | None
    agrees: bool


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where delivered files were sent (`delivery.to`), by their names there; `pushed_at` is None while some are
    missing, `commit` in a bucket."""

    url: str
    pushed_at: str | None
    commit: str | None
    files: tuple[DeliveredFile, ...]
    serve: tuple[ServeLine, ...]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What the run leaves to be used; without a card and lines that serve it where a check does not agree."""

    model_dir: str
    files: tuple[DeliveredFile, ...]
    merged_dir: str | None
    checks: tuple[Check, ...]
    serve: tuple[ServeLine, ...]
    card: str | None
    to: Pushed | None = None
