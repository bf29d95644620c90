"""The static gate: what it says for which task, rows and hyperparameters."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import Severity
from runner.gate.decide import TASKS, Decision, decide_for_free
from runner.gate.static import GOOD_TEST, MIN_TEST
from runner.manifest import load_manifest
from runner.plan import make_plan
from runner.scoring import read_scoring
from tests.fakes import facts_of_size, make_dataset, make_test_plan

BEHAVIOUR = [name for name, task in TASKS.items() if task.instead is None]
SIZES = [None, 135_000_000, 999_999_999, 1_000_000_000, 70_000_000_000]


def gate(*overrides: str, num_train: int = 5000, num_test: int = 60, size: int | None = 135_000_000) -> Decision:
    plan = make_test_plan(*overrides, facts=facts_of_size(size))
    return decide_for_free(plan, make_dataset(num_train, num_test), read_scoring(plan))


def codes(decision: Decision, severity: Severity) -> list[str]:
    return [finding.code for finding in decision.findings if finding.severity == severity]


@pytest.mark.parametrize("task", BEHAVIOUR)
def test_behaviour_with_rows_enough_is_worth_tuning(task: str) -> None:
    decision = gate(f"gate.task={task}")
    assert (decision.verdict, decision.says_no, decision.task) == ("fine_tune", False, task)
    assert [f.code for f in decision.findings] == ["gate/task"]


@pytest.mark.parametrize(("task", "verdict"), [("knowledge", "try_retrieval"), ("reasoning", "try_prompting")])
@pytest.mark.parametrize("num_train", [10, 5000])
def test_knowledge_and_reasoning_are_sent_to_another_tool_however_many_rows(
    task: str, verdict: str, num_train: int
) -> None:
    decision = gate(f"gate.task={task}", num_train=num_train)
    assert (decision.verdict, decision.says_no) == (verdict, True)
    wrong = decision.findings[0]
    assert (wrong.code, wrong.severity, wrong.where.key) == ("gate/wrong-tool", "error", "gate.task")
    assert wrong.fix == TASKS[task].fix


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("bound", "shift", "expected"),
    [
        ("minimum", -1, ("error", "gate/too-few-rows")),
        ("minimum", 0, ("warning", "gate/few-rows")),
        ("recommended", -1, ("warning", "gate/few-rows")),
        ("recommended", 0, None),
    ],
)
def test_rows_are_judged_by_what_the_task_takes(
    task: str, bound: str, shift: int, expected: tuple[str, str] | None
) -> None:
    num_train = getattr(TASKS[task], bound) + shift
    found = [f for f in gate(f"gate.task={task}", num_train=num_train).findings if "rows" in f.code]
    assert [(f.severity, f.code) for f in found] == ([expected] if expected else [])
    assert all(f.what.startswith(f"{num_train} rows") for f in found)


def test_too_few_rows_of_a_fitting_task_need_data() -> None:
    decision = gate("gate.task=format", num_train=93)
    assert (decision.verdict, decision.says_no) == ("need_data", True)
    assert "Collect 7 more" in decision.findings[1].fix


@pytest.mark.parametrize(
    ("num_test", "verdict", "severity", "expected"),
    [
        (MIN_TEST - 1, "need_data", "error", ["gate/too-few-test-rows"]),
        (MIN_TEST, "fine_tune", "warning", ["gate/few-test-rows"]),
        (GOOD_TEST - 1, "fine_tune", "warning", ["gate/few-test-rows"]),
        (GOOD_TEST, "fine_tune", "warning", []),
    ],
)
def test_test_rows_must_be_enough_for_a_verdict(
    num_test: int, verdict: str, severity: Severity, expected: list[str]
) -> None:
    decision = gate(num_test=num_test)
    assert decision.verdict == verdict
    assert codes(decision, severity) == expected


@pytest.mark.parametrize("policy", ["enforce", "warn"])
def test_the_policy_changes_nothing_of_what_the_gate_says(policy: str) -> None:
    decision = gate("gate.task=knowledge", f"gate.policy={policy}", "gate.reason=measured")
    assert (decision.says_no, decision.policy, decision.reason) == (True, policy, "measured")
    assert decision.findings == gate("gate.task=knowledge").findings


def test_a_skipped_gate_does_not_look_and_says_so() -> None:
    decision = gate("gate.task=knowledge", "gate.policy=skip", "gate.reason=seen last month", num_train=1, num_test=1)
    assert (decision.verdict, decision.says_no) == ("skipped", False)
    (finding,) = decision.findings
    assert (finding.code, finding.severity) == ("gate/skipped", "warning")
    assert finding.what == "The gate was skipped: seen last month"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["lora", "qlora", "full"])
def test_our_own_defaults_are_usual(tmp_path: Path, kind: str, size: int | None) -> None:
    manifest = tmp_path / "manifest.yaml"
    approach = f"approach: {{kind: {kind}, model: m}}"
    manifest.write_text(f"name: bare\ndata: {{train: rows.jsonl}}\n{approach}\ngate: {{task: format}}\n")
    plan = make_plan(load_manifest(manifest), facts_of_size(size))
    decision = decide_for_free(plan, make_dataset(5000), read_scoring(plan))
    assert "gate/unusual" not in codes(decision, "warning")


@pytest.mark.parametrize(
    ("kind", "key", "value", "size", "unusual"),
    [
        ("lora", "epochs", "1", 135e6, False),
        ("lora", "epochs", "3", 135e6, False),
        ("lora", "epochs", "3.5", 135e6, True),
        ("lora", "epochs", "0.5", 135e6, True),
        ("lora", "batch_size", "2", 135e6, True),
        ("lora", "rank", "128", 135e6, True),
        ("lora", "dropout", "0.2", 135e6, True),
        ("lora", "learning_rate", "0.002", 135e6, False),
        ("lora", "learning_rate", "0.002", 999_999_999, False),
        ("lora", "learning_rate", "0.002", 1_000_000_000, True),
        ("qlora", "learning_rate", "0.00005", 7e9, True),
        ("lora", "learning_rate", "0.0021", None, True),
        ("lora", "learning_rate", "0.002", None, False),
        ("lora", "learning_rate", "0.0001", None, False),
        ("full", "learning_rate", "0.00009", None, False),
        ("full", "learning_rate", "0.000009", None, True),
        ("full", "learning_rate", "0.001", 135e6, True),
        ("full", "learning_rate", "0.0001", 7e9, True),
        ("full", "learning_rate", "0.00002", 7e9, False),
        ("full", "epochs", "3", 7e9, True),
        ("full", "batch_size", "8", 7e9, True),
    ],
)
def test_an_unusual_hyperparameter_warns_and_does_not_refuse(
    kind: str, key: str, value: str, size: float | None, unusual: bool
) -> None:
    number = None if size is None else int(size)
    decision = gate(f"approach.kind={kind}", f"hyperparameters.{key}={value}", size=number)
    found = [f for f in decision.findings if (f.code, f.where.key) == ("gate/unusual", f"hyperparameters.{key}")]
    assert [(f.where.key, f.severity) for f in found] == [(f"hyperparameters.{key}", "warning")] * unusual
    assert decision.verdict == "fine_tune"


def test_a_model_of_unknown_size_is_a_visible_note() -> None:
    assert "gate/unknown-size" in codes(gate(size=None), "note")
    assert "gate/unknown-size" not in codes(gate(), "note")


@pytest.mark.parametrize("task", TASKS)
def test_the_gate_says_no_just_when_it_found_an_error(task: str) -> None:
    for num_train, num_test in itertools.product((1, 150, 5000), (5, 30, 80)):
        decision = gate(f"gate.task={task}", num_train=num_train, num_test=num_test)
        assert decision.says_no == bool(codes(decision, "error"))
        assert all(f.fix for f in decision.findings if f.severity != "note")


@pytest.mark.parametrize(("steps", "unusual"), [(124, True), (125, False), (375, False), (376, True)])
def test_steps_are_judged_by_the_passes_that_they_make(steps: int, unusual: bool) -> None:
    plan = make_test_plan(f"hyperparameters={{ max_steps: {steps}, batch_size: 4 }}")
    found = [f for f in decide_for_free(plan, make_dataset(500), read_scoring(plan)).findings if "usual" in f.code]
    assert [f.where.key for f in found] == ["hyperparameters.max_steps"] * unusual
    assert all(f"max_steps {steps} ({steps / 125:.3g} passes over the rows) is outside" in f.what for f in found)


def test_epochs_and_rows_that_are_not_looked_at_are_not_judged() -> None:
    plan = make_test_plan("hyperparameters={ max_steps: 200, batch_tokens: 5000 }")
    plan = replace(plan, hyperparameters=replace(plan.hyperparameters, epochs=99, batch_size=999))
    assert "gate/unusual" not in codes(decide_for_free(plan, make_dataset(5000), read_scoring(plan)), "warning")


def test_what_a_full_tune_does_not_use_is_not_judged() -> None:
    plan = make_test_plan("approach.kind=full", "hyperparameters.top_layers=2", "hyperparameters.batch_size=16")
    plan = replace(plan, hyperparameters=replace(plan.hyperparameters, rank=999, dropout=0.9))
    assert "gate/unusual" not in codes(decide_for_free(plan, make_dataset(5000), read_scoring(plan)), "warning")


def test_rows_that_are_repeated_or_general_do_not_count_as_rows_to_learn_from() -> None:
    dataset = make_dataset(5000)
    few = replace(dataset, split=replace(dataset.split, num_own=40))
    plan = make_test_plan("gate.task=format")
    found = decide_for_free(plan, few, read_scoring(plan)).findings
    told = [f.what for f in found if f.code == "gate/too-few-rows"]
    assert told == ["40 rows to train on; 'format' takes at least 100."]
