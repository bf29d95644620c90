"""Parts that the run did not come to, and facts that are not known: left out, or said outright."""

from __future__ import annotations

from typing import Any

import pytest

from runner.render import render_html
from runner.schema import read_schema
from tests.render.pages import KEPT, Report, assert_sound, assert_valid, headings, problem, read_report, section, words


def is_nullable(entry: Report) -> bool:
    return "null" in entry.get("type", ()) or None in entry.get("enum", ())


NULLABLE = [key for key, entry in read_schema("report")["properties"].items() if is_nullable(entry)]


def without_later_stages(report: Report, status: str) -> Report:
    return {**report, "status": status, "verdict": None, "training": None, "evaluation": None, "roi": None}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("part", NULLABLE)
def test_any_part_may_be_null(name: str, part: str) -> None:
    assert_sound(render_html(read_report(name) | {part: None}))


@pytest.mark.parametrize("status", ["failed", "interrupted", "refused", "done"])
def test_all_parts_may_be_null_at_once(report: Report, status: str) -> None:
    report |= dict.fromkeys(NULLABLE) | {"status": status, "environment": {}, "timings": {}, "tracking": {}}
    report["manifest"] = {"path": None, "overrides": [], "values": None, "origins": None}
    report["problems"] = []
    report["verdict_text"] = "Nothing came of it."
    page = render_html(report)
    assert_sound(page)
    assert "Nothing came of it." in page
    assert "The run did not come to: model, data, cost, gate, training, evaluation." in page


def holes(part: Any, schema: Report, root: Report) -> int:
    """Makes null whatever the schema lets be null, deep inside; how many there were."""
    schema = root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    found = 0
    entries = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in list(entries):
        inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or schema.get("items")
        if not isinstance(inner, dict):
            continue
        whole = root["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        if "null" in whole.get("type", ()) and not isinstance(value, dict | list):
            part[key] = None
            found += 1
        else:
            found += holes(value, inner, root)
    return found


@pytest.mark.parametrize("name", KEPT)
def test_every_number_and_word_that_may_be_unknown_may_be_unknown_at_once(name: str) -> None:
    report = read_report(name)
    schema = read_schema("report")
    for part in ("model", "gate", "cost", "training", "evaluation", "roi"):
        if report[part]:
            assert holes(report[part], schema["properties"][part], schema) > 0
    assert_valid(report)
    page = render_html(report)
    assert_sound(page)
    assert "unknown" in page


def test_every_null_deep_inside_is_left_out_or_named(report: Report) -> None:
    report["model"] |= dict.fromkeys(("revision", "family", "num_parameters", "context_tokens", "license"))
    report["training"]["memory"] |= dict.fromkeys(("available_bytes", "peak_bytes"))
    report["cost"]["estimate"] |= dict.fromkeys(("hours", "usd", "matmul_tflops"))
    report["cost"]["actual"]["usd"] = None
    for comparison in (report["evaluation"]["comparison"], *report["evaluation"]["comparisons"]):
        comparison |= {"ci_low": None, "ci_high": None, "rows_needed": None}
    assert_valid(report)
    page = render_html(report)
    assert_sound(page)
    assert "too few rows for an interval" in page
    assert "Estimate unknown unknown" in words(section(page, "cost"))
    assert "The manifest gives no price of the machine." in page


def test_a_refused_run_shows_its_reason_and_its_cure_before_all_else(report: Report) -> None:
    refused = without_later_stages(report, "refused") | {"verdict": "try_retrieval", "exit_code": 3}
    where = {"path": "quickstart.yaml", "line": 22, "column": 3, "key": "gate.task"}
    reason, fix = "The task is 'knowledge': tuning teaches behaviour.", "Put the facts into the prompt by retrieval."
    finding = problem(reason, code="gate/wrong-tool", where=where, fix=fix)
    refused |= {"problems": [finding], "verdict_text": f"Not trained: the run was refused. {reason}"}
    refused["gate"] |= {"verdict": "try_retrieval", "says_no": True, "task": "knowledge", "findings": [finding]}
    refused["gate"] |= {"arms": [], "best": None, "text": reason}
    page = render_html(refused)
    assert_sound(page)
    assert "Refused: try retrieval first" in page
    assert f"Not trained: the run was refused. {reason}" in words(page.partition("<section")[0])
    assert headings(page) == ["problems", "gate", "model", "data", "cost", "record"]
    told = words(section(page, "problems"))
    assert f"error {reason} Fix: {fix} quickstart.yaml:22:3 gate.task [gate/wrong-tool]" in told
    assert "No: retrieval is the better tool for this." in section(page, "gate")


def test_what_is_empty_has_no_heading(report: Report) -> None:
    page = render_html(report)
    report["data"] |= {"shown": [], "findings": []}
    report["data"]["ledger"] |= {"dropped": 0, "reasons": {}, "repairs": {}}
    report["data"]["split"]["classes"] = {}
    for side in ("questions", "answers"):
        report["data"]["diversity"][side]["openings"] = []
    report["training"]["findings"] = report["evaluation"]["samples"] = report["problems"] = []
    report["gate"] |= {"findings": [], "arms": []}
    bare = render_html(report | {"timings": {}, "environment": {}, "tracking": {}})
    found = ["Problems and notes", "Why rows were dropped", "What was repaired", "Classes", "Answers to look at"]
    found += [f"Most frequent openings of {side}" for side in ("questions", "answers")]
    found += ["Rows as the model sees them", "Findings", "Environment", "Tracking", "Time by stage"]
    found += ["What un-tuned ways of answering reach"]
    for heading in found:
        assert f">{heading}<" in page
        assert f">{heading}<" not in bare
    assert_sound(bare)


def test_a_run_that_failed_after_its_evaluation_shows_both(report: Report) -> None:
    fault = problem("The disk is full.", code="run/io")
    page = render_html(report | {"status": "failed", "exit_code": 74, "problems": [fault]})
    head = words(page.partition("<section")[0])
    assert "The run failed after its evaluation. The disk is full. The evaluation says:" in head
    assert report["verdict_text"] in head


def test_a_missing_return_says_whether_the_manifest_asked_for_one(report: Report) -> None:
    report["roi"] = None
    assert "The run did not come to computing the return." in render_html(report)
    report["manifest"]["values"]["roi"] = None
    assert "The manifest gives no roi , so no return was computed." in words(section(render_html(report), "roi"))


def test_a_return_that_never_comes_is_called_never(report: Report) -> None:
    report["roi"] |= {"payback_months": None, "pays_back": False, "saving_usd_per_month": -5.5}
    text = words(section(render_html(report), "roi"))
    assert "Payback never" in text and "Saving a month -$5.50" in text
    assert "The circle" not in text


def test_a_payback_beyond_the_horizon_is_marked_as_such(report: Report) -> None:
    report["roi"] |= {"payback_months": 50.02, "pays_back": False}
    page = render_html(report)
    assert "50 months of $40.02 invested, beyond the 12 months counted" in words(page)
    assert "<circle" not in section(page, "roi")
