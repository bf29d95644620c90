"""Scores of one answer, as pure functions in one table. A score that cannot be taken is None with a reason."""

from __future__ import annotations

from runner.metrics.base import Answer, Metric, Pool, Score
from runner.metrics.classes import Confusion, accuracy, confusion, find_classes, pool_macro_f1
from runner.metrics.custom import load_metric
from runner.metrics.fields import field_f1, json_valid
from runner.metrics.given import judge, loss, perplexity, pool_perplexity, similarity, stopped
from runner.metrics.matching import contains, exact_match, length, matches, normalised_match
from runner.metrics.overlap import bleu, chrf, rouge_l

__all__ = [
    "METRICS",
    "Answer",
    "Confusion",
    "Metric",
    "Pool",
    "Score",
    "confusion",
    "find_classes",
    "load_metric",
]

METRICS: dict[str, Metric] = {
    "exact_match": Metric(score=exact_match, title="exact match"),
    "normalised_match": Metric(score=normalised_match, title="normalised match"),
    "accuracy": Metric(score=accuracy, title="accuracy"),
    "macro_f1": Metric(score=accuracy, title="macro F1", pool=pool_macro_f1),
    "json_valid": Metric(score=json_valid, title="valid JSON", needs="schema"),
    "field_f1": Metric(score=field_f1, title="field F1"),
    "regex": Metric(score=matches, title="matches the pattern", needs="pattern"),
    "contains": Metric(score=contains, title="contains the answer"),
    "length": Metric(score=length, title="like length"),
    "chrf": Metric(score=chrf, title="chrF++"),
    "bleu": Metric(score=bleu, title="BLEU"),
    "rouge_l": Metric(score=rouge_l, title="ROUGE-L"),
    "similarity": Metric(score=similarity, title="similarity", needs="similarity"),
    "loss": Metric(score=loss, title="held-out loss", higher_is_better=False, unit="nats", bounds=None, needs="loss"),
    "perplexity": Metric(
        score=perplexity,
        title="perplexity",
        higher_is_better=False,
        unit="ppl",
        bounds=None,
        pool=pool_perplexity,
        needs="loss",
    ),
    "stopped": Metric(score=stopped, title="ends by itself"),
    "judge": Metric(score=judge, title="judge's mark", needs="judge"),
}
