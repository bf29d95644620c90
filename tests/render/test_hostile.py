"""Text from outside stays text, wherever it may stand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from runner.render import render_html
from tests.render.data import DELIVERY
from tests.render.pages import ESCAPED, HOSTILE, Report, assert_sound, outline, problem


def in_sample(report: Report) -> None:
    sample = report["evaluation"]["samples"][0]
    sample |= {"question": HOSTILE, "expected": HOSTILE, "answers": dict.fromkeys(sample["answers"], HOSTILE)}


def in_problem(report: Report) -> None:
    report["problems"][0] |= {"what": HOSTILE, "fix": HOSTILE}
    report["problems"][0]["where"] |= {"path": HOSTILE, "key": HOSTILE}


def in_head(report: Report) -> None:
    report |= {"name": HOSTILE, "description": HOSTILE, "verdict_text": HOSTILE}


def in_record(report: Report) -> None:
    report["manifest"]["values"]["data"]["system"] = HOSTILE
    report["manifest"]["origins"]["data.system"] = HOSTILE
    report["manifest"]["overrides"] = [HOSTILE]
    report["environment"][HOSTILE] = HOSTILE


def in_files(report: Report) -> None:
    ledger = report["data"]["ledger"]
    ledger |= {"reasons": {HOSTILE: 36}, "repairs": {HOSTILE: 57}}
    ledger["sources"][0] |= {"path": HOSTILE, "container": HOSTILE, "format": HOSTILE, "evidence": HOSTILE}


def in_rows(report: Report) -> None:
    data = report["data"]
    data["split"]["classes"] = {HOSTILE: {"train": 1}}
    for side in ("questions", "answers"):
        data["diversity"][side]["openings"] = [[HOSTILE, 1]]
    segments = [{"text": HOSTILE, "trained": trained} for trained in (False, True)]
    data["shown"] = [{"source": HOSTILE, "segments": segments}]
    data["findings"][0]["what"] = HOSTILE


def in_gate(report: Report) -> None:
    report["gate"] |= {"text": HOSTILE, "reason": HOSTILE, "task": HOSTILE, "policy": HOSTILE}
    report["gate"]["arms"][0] |= {"description": HOSTILE, "kind": HOSTILE, "price_source": HOSTILE}
    report["gate"]["arms"][1] |= {"side": None, "left_out": HOSTILE}


def in_training(report: Report) -> None:
    report["training"] |= dict.fromkeys(("method", "model_dir", "dtype", "device", "weights_sha256"), HOSTILE)
    report["training"]["findings"] = [problem(HOSTILE, fix=HOSTILE)]


def in_delivery(report: Report) -> None:
    files = [{"name": HOSTILE, "bytes": 5, "sha256": HOSTILE}]
    serve = [{"name": HOSTILE, "command": HOSTILE}]
    checks = [DELIVERY["checks"][0] | {"form": HOSTILE}]
    to = {"url": HOSTILE, "pushed_at": HOSTILE, "commit": HOSTILE, "files": files, "serve": serve}
    paths = dict.fromkeys(("model_dir", "merged_dir", "card"), HOSTILE)
    report["delivery"] = {**paths, "files": files, "serve": serve, "checks": checks, "to": to}


@pytest.mark.parametrize(
    ("spoil", "times"),
    [
        (in_sample, 5),
        (in_problem, 4),
        (in_head, 4),
        (in_record, 5),
        (in_files, 6),
        (in_rows, 8),
        (in_gate, 8),
        (in_training, 8),
        (in_delivery, 14),
    ],
)
def test_hostile_text_stays_text(report: Report, spoil: Callable[[Report], None], times: int) -> None:
    spoil(report)
    page = render_html(report)
    assert page.count(ESCAPED) == times
    assert "<script" not in page and "<img" not in page
    assert_sound(page)


def poisoned(value: Any, key: str = "") -> Any:
    """Every text that a person or a model may have written, made hostile; names of sides too."""
    if isinstance(value, dict):
        free = key in ("kinds", "reasons", "unscored_reasons")
        return {HOSTILE if free and i == 0 else name: poisoned(v, name) for i, (name, v) in enumerate(value.items())}
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    keep = ("verdict", "status", "severity", "started_at", "metric", "by", "part", "code")
    return HOSTILE if isinstance(value, str) and key not in keep else value


@pytest.mark.parametrize("name", ["report", "classes", "enough", "unjudged"])
def test_no_text_at_all_becomes_markup(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name)
    tags = {tag for tag, _ in outline(render_html(report)).elements}
    page = render_html(poisoned(report))
    assert_sound(page)
    assert "<script" not in page and "<img" not in page and page.count(ESCAPED) > 20
    assert {tag for tag, _ in outline(page).elements} <= tags | {"i"}


def test_names_of_arms_and_sides_and_metrics_stay_text(classes: Report) -> None:
    text = json.dumps(classes)
    for word in ('"nearest"', '"accuracy"', '"billing"'):
        text = text.replace(word, json.dumps(HOSTILE + word.strip('"')))
    page = render_html(json.loads(text))
    assert_sound(page)
    assert "<script" not in page and "<img" not in page
    for word in ("nearest", "accuracy", "billing"):
        assert page.count(ESCAPED + word) > 3


def test_only_an_https_address_of_the_tracker_becomes_a_link(report: Report) -> None:
    report["tracking"] = {"url": "https://wandb.ai/a/b", "other": "javascript:alert(1)"}
    links = [attributes["href"] for tag, attributes in outline(render_html(report)).elements if tag == "a"]
    assert links == ["https://wandb.ai/a/b"]


def test_a_problem_that_says_it_is_markup_is_still_text(report: Report) -> None:
    report["evaluation"]["findings"] = [problem(HOSTILE, fix=HOSTILE, code="eval/x")]
    assert render_html(report).count(ESCAPED) == 2


def test_an_address_cannot_leave_its_attribute(report: Report) -> None:
    address = 'https://wandb.ai/a" onmouseover="alert(1)'
    report["tracking"] = {"url": address}
    page = render_html(report)
    (link,) = (attributes for tag, attributes in outline(page).elements if tag == "a")
    assert link["href"] == address and "onmouseover" not in link
    assert_sound(page)


def test_the_page_may_load_and_run_nothing_at_all(report: Report) -> None:
    elements = outline(render_html(report)).elements
    policies = (a for tag, a in elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    (policy,) = (attributes["content"] for attributes in policies)
    assert policy and policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    loading = {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "use"}
    assert not loading.intersection(tag for tag, _ in elements)
    assert not any(name.startswith("on") or name in ("src", "srcset") for _, a in elements for name in a)
