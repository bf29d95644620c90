"""Statistics of the evaluation: intervals by cluster, tests of paired rows, verdicts and sample sizes."""

from runner.stats.intervals import CONFIDENCE, Interval, mean_interval, pooled_interval
from runner.stats.paired import SignTest, cohens_kappa, holm, sign_test
from runner.stats.verdicts import (
    Verdict,
    effective_rows,
    judge,
    minimum_detectable,
    rows_needed,
    rows_to_clear,
)

__all__ = [
    "CONFIDENCE",
    "Interval",
    "SignTest",
    "Verdict",
    "cohens_kappa",
    "effective_rows",
    "holm",
    "judge",
    "mean_interval",
    "minimum_detectable",
    "pooled_interval",
    "rows_needed",
    "rows_to_clear",
    "sign_test",
]
