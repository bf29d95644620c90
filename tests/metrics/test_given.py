"""Scores that are measured elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from runner.metrics import METRICS, Answer, Score
from tests.metrics.scores import score


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("loss", {"loss": 1.5}, 1.5),
        ("loss", {"loss": 0.0}, 0),
        ("perplexity", {"loss": 0.0}, 1),
        ("perplexity", {"loss": math.log(20)}, 20),
        ("similarity", {"similarity": 0.25}, 0.25),
        ("similarity", {"similarity": 1.0000001}, 1),
        ("similarity", {"similarity": -0.2}, 0),
        ("stopped", {"finish": "stop"}, 1),
        ("stopped", {"finish": "length"}, 0),
        ("judge", {"judged": 0.75}, 0.75),
        ("judge", {"judged": 0.0}, 0),
    ],
)
def test_what_was_measured_is_passed_on(name: str, given: dict[str, Any], value: float) -> None:
    found = score(name, "", **given)
    assert found.value == pytest.approx(value)
    assert found.reason is None


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("json_valid", {}, "no eval.json_schema given"),
        ("loss", {}, "this model gives no token probabilities"),
        ("loss", {"loss": math.nan}, "the loss is not a finite number"),
        ("loss", {"loss": math.inf}, "the loss is not a finite number"),
        ("perplexity", {}, "this model gives no token probabilities"),
        ("perplexity", {"loss": math.nan}, "the loss is not a finite number"),
        ("perplexity", {"loss": 1000.0}, "the loss is too large for a perplexity"),
        ("similarity", {}, "no embedding model gave one"),
        ("similarity", {"similarity": math.nan}, "the similarity is not a finite number"),
        ("stopped", {}, "how the answer ended is unknown"),
        ("judge", {}, "no judge gave a mark"),
        ("judge", {"unjudged": "no JSON twice"}, "no JSON twice"),
        ("judge", {"judged": math.nan}, "the mark is not a finite number"),
    ],
)
def test_a_score_that_cannot_be_taken_says_why(name: str, given: dict[str, Any], reason: str) -> None:
    assert score(name, "{}", "{}", **given) == Score(value=None, reason=reason)


def test_perplexity_of_many_rows_is_that_of_their_mean_loss() -> None:
    pool = METRICS["perplexity"].pool
    assert pool is not None
    pooled = pool([Answer(output="", expected="", loss=loss) for loss in (0.0, 1.0, 5.0)])
    assert float(pooled.statistic(pooled.rows.sum(axis=0))) == pytest.approx(math.exp(2))
    sums = np.stack([pooled.rows[[0, 0, 1]].sum(axis=0), pooled.rows[[2]].sum(axis=0)])
    assert pooled.statistic(sums) == pytest.approx([math.exp(1 / 3), math.exp(5)])
