"""What the pages say of the code is what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from runner.data.reading import FORMATS
from runner.data.review.checks import CHECKS
from runner.errors import EXIT_CODES
from runner.gate.decide import GateVerdict
from runner.metrics import METRICS
from runner.schema import read_schema
from runner.stats import Verdict

ROOT = Path(__file__).parents[1]


def codes_in(text: str) -> set[str]:
    return set(re.findall(r"`(data/[a-z-]+)`", text))


def test_the_page_about_data_names_every_finding_and_every_format() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert set(CHECKS) <= codes_in(page)
    assert set(FORMATS) <= set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))


def test_the_page_about_data_names_no_finding_that_does_not_exist() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "runner" / "data").rglob("*.py"))
    assert [code for code in codes_in(page) if f'"{code}"' not in source] == []


def test_the_readme_lists_every_exit_code_with_its_meaning() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES.items():
        assert f"| {int(code)} | {meaning.meaning} | {'yes' if meaning.retry else 'no'} |" in readme


def test_the_page_about_evaluation_names_every_metric_every_arm_and_every_verdict() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    gate = read_schema("manifest")["properties"]["gate"]["properties"]
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|", page, re.MULTILINE)
    assert [name for name in rows if name in METRICS] == list(METRICS)
    assert set(gate["arms"]["items"]["enum"]) <= set(rows)
    assert {*get_args(GateVerdict)} - {"skipped"} <= set(re.findall(r"`([a-z_]+)`", page))
    assert {*get_args(Verdict)} <= set(rows)


def test_the_page_about_training_names_every_hyperparameter_and_every_finding() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    asked = read_schema("manifest")["properties"]["hyperparameters"]["properties"]
    assert set(asked) <= set(re.findall(r"`([a-z_]+)`", page))
    source = (ROOT / "runner" / "backends" / "local" / "findings.py").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(train/[a-z-]+)` \|", page, re.MULTILINE)
    assert set(re.findall(r'"(train/[a-z-]+)"', source)) == set(found)
