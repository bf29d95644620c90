"""Scores that are measured elsewhere and passed on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.metrics.base import Answer, Pool, Score, share, unscored

if TYPE_CHECKING:
    import numpy as np


def similarity(answer: Answer) -> Score:
    """Cosine of the embeddings of both texts; one below 0 counts as 0."""
    if answer.similarity is None:
        return unscored("no embedding model gave one")
    if not math.isfinite(answer.similarity):
        return unscored("the similarity is not a finite number")
    return share(answer.similarity)


def loss(answer: Answer) -> Score:
    """Mean negative log-likelihood of the expected answer, in nats per token."""
    if answer.loss is None:
        return unscored("this model gives no token probabilities")
    if not math.isfinite(answer.loss):
        return unscored("the loss is not a finite number")
    return Score(value=answer.loss)


def perplexity(answer: Answer) -> Score:
    """exp of the loss: among how many tokens the model as good as chose, at each token of the expected answer."""
    found = loss(answer)
    if found.value is None:
        return found
    try:
        return Score(value=math.exp(found.value))
    except OverflowError:
        return unscored("the loss is too large for a perplexity")


def pool_perplexity(answers: Sequence[Answer]) -> Pool:
    """exp of the mean loss of answers with one; a mean of perplexities would be that of the worst row."""
    import numpy as np

    return Pool(rows=np.array([(answer.loss, 1.0) for answer in answers], float), statistic=_perplexity)


def _perplexity(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    found: np.ndarray = np.exp(sums[..., 0] / sums[..., 1])
    return found


def stopped(answer: Answer) -> Score:
    """1 when the answer ended by itself, 0 when it was cut."""
    if answer.finish is None:
        return unscored("how the answer ended is unknown")
    return share(answer.finish == "stop")


def judge(answer: Answer) -> Score:
    """The judge's mark as a share of its scale."""
    if answer.judged is None:
        return unscored(answer.unjudged or "no judge gave a mark")
    return share(answer.judged) if math.isfinite(answer.judged) else unscored("the mark is not a finite number")
