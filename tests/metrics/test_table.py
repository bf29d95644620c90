"""What holds for every metric of the table."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.metrics import METRICS, Answer
from runner.schema import read_schema
from tests.metrics.scores import JSON, SCHEMA, TEXTS, score

SHARES = [name for name, metric in METRICS.items() if metric.unit == "share"]
NATS = {"loss", "perplexity"}
LONG = 100_000
FACTS = {
    "schema": SCHEMA,
    "pattern": "a+b",
    "classes": frozenset({"yes", "no"}),
    "loss": 1.5,
    "finish": "stop",
    "similarity": 0.5,
    "judged": 0.25,
}


def test_the_manifest_can_name_every_metric() -> None:
    assert read_schema("manifest")["$defs"]["metric"]["then"]["enum"] == list(METRICS)


@pytest.mark.parametrize("name", SHARES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_every_share_lies_between_nothing_and_all_or_has_a_reason(name: str, data: st.DataObject) -> None:
    found = score(name, data.draw(TEXTS), data.draw(TEXTS), **FACTS)
    assert found.reason if found.value is None else 0 <= found.value <= 1 and found.reason is None


@pytest.mark.parametrize("name", SHARES)
@settings(deadline=None, max_examples=25)
@given(TEXTS | JSON.map(str))
def test_the_expected_answer_itself_has_the_full_share(name: str, text: str) -> None:
    facts = {**FACTS, "schema": {}, "pattern": "", "similarity": 1.0, "judged": 1.0}
    found = score(name, text, text, **facts)
    if name == "json_valid":
        assert found.value == (score("field_f1", text, text).value or 0)
    else:
        assert found.reason if found.value is None else found.value == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_needs_a_fact_says_so_where_it_is_missing(name: str) -> None:
    found = score(name, "yes", "yes")
    needs = METRICS[name].needs
    if needs is not None:
        assert found.value is None and found.reason
    assert needs in {None, "schema", "pattern", "loss", "similarity", "judge"}
    assert score(name, '{"a": 1}', '{"a": 1}', **FACTS).value is not None


@pytest.mark.parametrize("name", METRICS)
def test_units_bounds_and_direction_go_together(name: str) -> None:
    metric = METRICS[name]
    assert metric.bounds == (None if name in NATS else (0, 1))
    assert (metric.unit == "share") == (name not in NATS)
    assert metric.higher_is_better == (name not in NATS)
    assert metric.title


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    "text", ["word " * (LONG // 5), "荷" * LONG, "[" * LONG, " " * LONG + "x", "." * LONG, "1." * LONG]
)
def test_a_very_long_answer_does_not_hold_up_the_run(name: str, text: str) -> None:
    started = time.perf_counter()
    score(name, text, text[: LONG // 2] + "!", **FACTS)
    assert time.perf_counter() - started < 10


def test_a_metric_looks_at_nothing_but_the_answer() -> None:
    answer = Answer(output="a b", expected="a c", **FACTS)  # type: ignore[arg-type]
    assert {name: metric.score(answer) for name, metric in METRICS.items()} == {
        name: metric.score(answer) for name, metric in METRICS.items()
    }


def test_the_table_is_cheap_to_import() -> None:
    heavy = ["sacrebleu", "rapidfuzz", "jsonschema", "regex", "torch", "scipy", "pyarrow", "runner.plan"]
    code = f"import sys, runner.metrics; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
