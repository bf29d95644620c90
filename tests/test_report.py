"""The report: one form whatever happened, and held to its published schema."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError

from runner.attempt import _exit_of_verdict, check_report
from runner.backends.base import CurvePoint, Segment
from runner.cost import estimate_cost
from runner.data.ledger import SourceTotals
from runner.data.prepare import Shown
from runner.errors import Exit, Interrupted, Problem, Refused, RunnerError, Where
from runner.gate.decide import decide_for_free
from runner.report import Facts, Status, all_problems, make_report, to_json
from runner.roi import compute_roi
from runner.schema import read_schema
from runner.scoring import read_scoring
from tests.fakes import (
    UNKNOWN,
    make_comparison,
    make_dataset,
    make_evaluation,
    make_ledger,
    make_test_plan,
    quickstart,
    trained_model,
)

STAGES = ("manifest", "plan", "data", "estimate", "decision", "training", "evaluation", "roi")
SOURCE = SourceTotals(
    path="rows.jsonl",
    part="train",
    container="jsonl",
    format="chat",
    evidence="chat: 200 of 200 rows looked at have messages",
    sha256="0" * 64,
    num_bytes=9,
    num_rows=490,
    kept=490,
    repaired=0,
    truncated=0,
    dropped=0,
)
SHOWN = Shown(
    source="rows.jsonl:1", segments=(Segment(text="Why?\n", trained=False), Segment(text="So.", trained=True))
)
ENDS: dict[Status, Exit] = {
    "done": Exit.DONE,
    "refused": Exit.SAID_NO,
    "failed": Exit.IO,
    "interrupted": Exit.INTERRUPTED,
}


def facts_up_to(stage: str | None, *overrides: str, num_train: int = 400) -> Facts:
    """What is known when the run has come through that stage."""
    plan = make_test_plan(*overrides)
    data = make_dataset(num_train, ledger=replace(make_ledger(490), sources=(SOURCE,)), shown=(SHOWN,))
    evaluation = make_evaluation()
    known: dict[str, Any] = {
        "manifest": quickstart(*overrides),
        "plan": plan,
        "data": data,
        "estimate": estimate_cost(plan, data, lambda: 1e11),
        "decision": decide_for_free(plan, data, read_scoring(plan)),
        "training": trained_model(),
        "evaluation": evaluation,
        "roi": compute_roi(plan, 1.0, evaluation),
    }
    kept = STAGES[: STAGES.index(stage) + 1] if stage else ()
    return Facts(run_id="abc", timings={"data": 1.23456}, **{name: known[name] for name in kept})


def report(facts: Facts, status: Status = "done", exit_code: Exit | None = None) -> dict[str, Any]:
    """The report as it is written and read again, held to its schema."""
    made = make_report(facts, status, ENDS[status] if exit_code is None else exit_code, "2026-01-01T00:00:00+00:00")
    check_report(made)
    read: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    assert read == made
    return read


@pytest.mark.parametrize("stage", [None, *STAGES])
@pytest.mark.parametrize("status", ENDS)
def test_the_report_keeps_its_form_wherever_and_however_the_run_ended(stage: str | None, status: Status) -> None:
    made = report(facts_up_to(stage), status)
    parts = {"data": "data", "estimate": "cost", "decision": "gate", "training": "training", "roi": "roi"}
    come_to = STAGES[: STAGES.index(stage) + 1] if stage else ()
    assert {part for part in parts.values() if made[part] is not None} == {parts[s] for s in come_to if s in parts}
    assert (made["status"], made["exit_code"]) == (status, int(ENDS[status]))


def test_the_data_is_all_there_but_for_the_rows_which_are_files() -> None:
    data = report(facts_up_to("data"))["data"]
    assert set(data) == set(read_schema("report")["properties"]["data"]["properties"])
    assert "question 399" not in json.dumps(data)
    assert data["ledger"]["sources"] == [asdict(SOURCE)]
    assert data["shown"][0]["segments"] == [{"text": "Why?\n", "trained": False}, {"text": "So.", "trained": True}]
    assert data["tokens"]["histogram"] == [[100, 490]]


@pytest.mark.parametrize("exit_code", Exit)
def test_every_exit_code_is_allowed_and_explained(exit_code: Exit) -> None:
    assert report(facts_up_to("plan"), "failed", exit_code)["exit_meaning"]


def test_a_model_of_which_nothing_is_known_makes_a_report_too() -> None:
    facts = facts_up_to("plan")
    facts.plan = plan = make_test_plan(facts=UNKNOWN)
    facts.data = make_dataset()
    facts.estimate = estimate_cost(plan, facts.data, lambda: 1e11)
    made = report(facts, "failed")
    assert made["model"]["num_parameters"] is None and made["cost"]["estimate"]["hours"] is None


def test_the_report_names_every_value_with_its_origin() -> None:
    made = report(facts_up_to("roi", "seed=7"))
    assert made["manifest"]["overrides"] == ["seed=7"]
    assert made["manifest"]["values"]["seed"] == 7
    assert made["manifest"]["origins"]["seed"] == "--set"
    assert made["timings"] == {"data": 1.235}
    assert made["cost"]["actual"]["hours"] == pytest.approx(1.23456 / 3600)


def test_a_manifest_that_was_never_resolved_still_gives_the_run_its_name() -> None:
    made = report(facts_up_to("manifest"), "failed")
    assert made["name"] == "quickstart" and made["manifest"]["values"] is None
    assert report(facts_up_to(None), "failed")["name"] is None


def test_numbers_that_are_none_become_null() -> None:
    facts = facts_up_to("training")
    facts.training = trained_model(curve=(CurvePoint(step=1, loss=math.nan),))
    facts.environment = {"nested": [math.inf, -math.inf, 1.5, Path("a/b"), (1, None, True)]}
    made = report(facts, "failed")
    assert made["training"]["curve"][0]["loss"] is None
    assert made["environment"] == {"nested": [None, None, 1.5, "a/b", [1, None, True]]}


@pytest.mark.parametrize("value", ["text", 3, True, None, 0.0])
def test_plain_values_stay_as_they_are(value: object) -> None:
    assert to_json({"key": [value]}) == {"key": [value]}


WRONG = ("gate.task=knowledge",)
KEYED = Problem(code="gate/x", what="No.", where=Where(key="gate.task"))


@pytest.mark.parametrize(("raised", "found"), [([KEYED], [KEYED]), ([KEYED, KEYED], []), ([], [KEYED])])
def test_a_problem_is_listed_once_with_its_place_however_often_it_is_told(
    raised: list[Problem], found: list[Problem]
) -> None:
    facts = facts_up_to("data")
    facts.problems = raised
    facts.data = make_dataset(findings=tuple(found))
    assert facts.manifest is not None
    (listed,) = all_problems(facts)
    assert listed == KEYED.at(facts.manifest.document.where(("gate", "task")))
    assert listed.where.line is not None


def test_the_same_fault_in_two_rows_is_two_problems() -> None:
    faults = [
        Problem(code="data/row", what="A message is empty.", where=Where(path="rows.jsonl", line=n)) for n in (3, 7)
    ]
    facts = facts_up_to("plan")
    facts.problems.extend(faults)
    assert all_problems(facts) == faults


def test_what_training_found_is_among_the_problems_with_its_place() -> None:
    finding = Problem(
        code="train/overfit", what="They parted.", where=Where(key="hyperparameters.epochs"), severity="warning"
    )
    facts = facts_up_to("evaluation")
    facts.training = trained_model(findings=(finding,))
    made = report(facts)
    (listed,) = (problem for problem in made["problems"] if problem["code"] == "train/overfit")
    assert facts.manifest is not None and listed["where"]["path"] == str(facts.manifest.path)
    assert listed["where"]["line"] is not None and listed["what"] == "They parted."
    assert [found["what"] for found in made["training"]["findings"]] == ["They parted."]


def test_the_training_is_told_whole() -> None:
    trained = trained_model(resumed_from=(1,), num_processes=4, strategy="sharded", stopped_early=True)
    facts = facts_up_to("evaluation")
    facts.training = trained
    made = report(facts)["training"]
    assert set(made) == set(read_schema("report")["properties"]["training"]["properties"])
    assert made["memory"] == asdict(trained.memory)
    assert (made["resumed_from"], made["strategy"], made["stopped_early"]) == ([1], "sharded", True)
    facts.training = trained_model(strategy="alone together")
    with pytest.raises(ValidationError, match="alone together"):
        report(facts)


def test_what_ended_the_run_stands_before_what_was_found_on_the_way() -> None:
    facts = facts_up_to("decision", *WRONG, num_train=10)
    assert facts.decision is not None
    errors = [finding for finding in facts.decision.findings if finding.severity == "error"]
    facts.problems.extend(Refused(errors).problems)
    problems = report(facts, "refused")["problems"]
    assert [p["code"] for p in problems[:2]] == ["gate/wrong-tool", "gate/too-few-rows"]
    codes = [p["code"] for p in problems]
    assert len(codes) == len(set(codes))


def test_a_refusal_is_told_with_its_place_in_the_manifest() -> None:
    facts = facts_up_to("decision", "gate.task=format", num_train=10)
    assert facts.decision is not None and facts.manifest is not None
    facts.problems.extend(Refused([f for f in facts.decision.findings if f.severity == "error"]).problems)
    (problem,) = (p for p in report(facts, "refused")["problems"] if p["code"] == "gate/too-few-rows")
    lines = facts.manifest.path.read_text().splitlines()
    assert problem["where"]["path"] == str(facts.manifest.path)
    assert lines[problem["where"]["line"] - 1].strip().startswith("train:")


@pytest.mark.parametrize(
    ("overrides", "num_train", "verdict"),
    [
        (("gate.task=knowledge",), 5000, "try_retrieval"),
        (("gate.task=reasoning",), 5000, "try_prompting"),
        (("gate.task=format",), 10, "need_data"),
        (("gate.task=format",), 5000, None),
    ],
)
def test_a_refused_run_has_the_gates_verdict_if_it_was_the_gate(
    overrides: tuple[str, ...], num_train: int, verdict: str | None
) -> None:
    assert report(facts_up_to("decision", *overrides, num_train=num_train), "refused")["verdict"] == verdict


@pytest.mark.parametrize("status", ["failed", "interrupted", "done"])
def test_the_gate_speaks_no_verdict_of_a_run_that_went_on(status: Status) -> None:
    assert report(facts_up_to("training", *WRONG), status)["verdict"] is None


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (
            "refused",
            Refused(KEYED),
            "Not trained: the run was refused before it spent anything. No.",
        ),
        ("failed", RunnerError(KEYED, Exit.IO), "No verdict: the run failed. No."),
        ("interrupted", Interrupted("train"), "No verdict yet: the run was interrupted."),
        ("failed", RunnerError(replace(KEYED, severity="warning"), Exit.IO), "No verdict: the run failed."),
    ],
)
def test_without_an_evaluation_the_report_says_why(status: Status, error: RunnerError, text: str) -> None:
    facts = facts_up_to("plan")
    facts.problems.extend(error.problems)
    assert report(facts, status)["verdict_text"] == text


@pytest.mark.parametrize("verdict", ["improved", "equivalent", "worse", "inconclusive"])
@pytest.mark.parametrize(("policy", "refuses"), [("enforce", True), ("warn", False), ("skip", False)])
def test_only_an_enforced_gate_refuses_a_run_that_did_not_help(verdict: str, policy: str, refuses: bool) -> None:
    facts = facts_up_to("roi", f"gate.policy={policy}", "gate.reason=because")
    facts.evaluation = make_evaluation(comparison=make_comparison(verdict=verdict))
    exit_code = _exit_of_verdict(facts)
    assert exit_code == (Exit.SAID_NO if refuses and verdict != "improved" else Exit.DONE)
    made = report(facts, "done", exit_code)
    assert (made["verdict"], made["exit_code"], made["status"]) == (verdict, int(exit_code), "done")


@pytest.mark.parametrize(
    ("task", "verdict", "identical", "exit_code"),
    [
        ("cost", "equivalent", 0.9, Exit.DONE),
        ("latency", "equivalent", 0.9, Exit.DONE),
        ("latency", "inconclusive", 0.9, Exit.SAID_NO),
        ("cost", "worse", 0.9, Exit.SAID_NO),
        ("format", "equivalent", 0.9, Exit.SAID_NO),
        ("cost", "equivalent", 1.0, Exit.SAID_NO),
    ],
)
def test_answers_as_good_as_before_are_enough_where_tuning_is_for_their_price(
    task: str, verdict: str, identical: float, exit_code: Exit
) -> None:
    facts = facts_up_to("roi", f"gate.task={task}", "gate.policy=enforce")
    facts.evaluation = make_evaluation(comparison=make_comparison(verdict=verdict), identical_share=identical)
    assert _exit_of_verdict(facts) == exit_code
