"""What a metric may look at, and what it says: a value, or None with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np  # loaded by the functions that compute with it: the report's page needs titles and units alone

Need = Literal["schema", "pattern", "similarity", "loss", "judge"]
SHARE = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer beside what was expected, with the facts about both that are measured elsewhere.

    `prompt` is the text of the last user turn, `schema` the JSON Schema of answers, `pattern` a regular expression.
    `classes` are the normalised classes among the expected answers of the whole part; None: they are no classes.
    `loss` is the mean nats per token of the expected answer under the model, `finish` how the answer ended (None:
    unknown), `similarity` the cosine of both texts' embeddings, `judged` a judge's mark as a share of its scale, and
    `unjudged` why there is none.
    """

    output: str
    expected: str
    prompt: str = ""
    schema: Mapping[str, Any] | None = None
    pattern: str | None = None
    classes: frozenset[str] | None = None
    loss: float | None = None
    finish: str | None = None
    similarity: float | None = None
    judged: float | None = None
    unjudged: str | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value, or None and the reason why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A score of many answers that is no mean of theirs: `statistic` turns sums of `rows` (N, d), of any leading shape
    (..., d), into the scores (...) of the rows summed."""

    rows: np.ndarray
    statistic: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A way to score; `unit` says how to read it, `bounds` between which values it lies (None: anywhere).

    `pool` makes the score of many scored answers, which is their mean where it is None. `needs` names the fact that
    must be given beside the texts.
    """

    score: Callable[[Answer], Score]
    title: str
    higher_is_better: bool = True
    unit: str = "share"
    bounds: tuple[float, float] | None = SHARE
    pool: Callable[[Sequence[Answer]], Pool] | None = None
    needs: Need | None = None


def share(value: bool | float) -> Score:
    """A score from 0 to 1; rounding may have carried it a hair outside."""
    return Score(value=min(max(float(value), 0.0), 1.0))


def unscored(reason: str) -> Score:
    """No score, and why."""
    return Score(value=None, reason=reason)
