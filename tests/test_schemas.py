"""The published schemas: strict, described, and the same as what the program does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runner.backends import APPROACHES
from runner.backends.base import CheckpointPlan, Endpoint, Hyperparameters, TrainJob
from runner.data.near import DEFAULT_SIMILARITY
from runner.data.reading import FORMATS
from runner.errors import Exit
from runner.gate.decide import TASKS
from runner.manifest import load_manifest
from runner.metrics import METRICS
from runner.plan import (
    BudgetPlan,
    DataPlan,
    DeliveryPlan,
    EvalPlan,
    ForgettingPlan,
    GatePlan,
    JudgePlan,
    OtherModel,
    Plan,
    ResourcesPlan,
    RoiPlan,
    ServingPlan,
    SourcePlan,
    SplitPlan,
    Template,
    TrackingPlan,
)
from runner.schema import read_schema

ROOT = Path(__file__).parents[1]
MANIFEST, REPORT = read_schema("manifest"), read_schema("report")
LOCK, RECORD = read_schema("lock"), read_schema("run.lock")
OPEN = {
    *("report.manifest.values", "report.tracking", "report.environment"),  # their keys are not ours to fix
    *(
        "manifest.sweep.grid",
        "manifest.sweep.points.*",
    ),  # those of a manifest, as each point is
}
WORDED = {  # keywords that runner.document finds words for, and those that say nothing of a value by themselves
    *("additionalProperties", "required", "type", "enum", "uniqueItems", "minItems", "minLength", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("$schema", "$id", "title", "description", "default", "examples", "properties", "items", "$ref", "$defs"),
    *("if", "then"),
}


def entries(schema: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every level of a schema with its dotted name."""
    yield name, schema
    for part in ("properties", "$defs"):
        for key, entry in schema.get(part, {}).items():
            yield from entries(entry, f"{name}.{key}")
    for part, sign in (("items", "[]"), ("additionalProperties", "*")):
        if isinstance(schema.get(part), Mapping):
            yield from entries(schema[part], f"{name}.{sign}")


LEVELS = [
    *entries(MANIFEST, "manifest"),
    *entries(REPORT, "report"),
    *entries(LOCK, "lock"),
    *entries(RECORD, "run.lock"),
]
KEYS = {name: level for name, level in LEVELS if "." in name and not name.endswith(("[]", "*", ".serving"))}


@pytest.mark.parametrize("schema", [MANIFEST, REPORT, LOCK, RECORD], ids=["manifest", "report", "lock", "run.lock"])
def test_a_schema_is_valid_json_schema_2020_12(schema: Mapping[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


def test_no_level_takes_keys_that_it_does_not_know() -> None:
    groups = {name: level for name, level in LEVELS if "object" in level.get("type", ())}
    assert len(groups) > 30
    open_groups = {name for name, level in groups.items() if level.get("additionalProperties", True) is True}
    assert open_groups == OPEN


def test_what_a_level_requires_is_among_its_keys() -> None:
    for name, level in LEVELS:
        assert set(level.get("required", ())) <= set(level.get("properties", ())), name


def test_every_key_is_described() -> None:
    assert [name for name, entry in KEYS.items() if not entry.get("description") and "$ref" not in entry] == []


def test_every_manifest_key_has_an_example() -> None:
    own = {name: entry for name, entry in KEYS.items() if name.startswith("manifest.") and "$ref" not in entry}
    assert [name for name, entry in own.items() if not entry.get("examples")] == []


def test_every_example_and_every_default_is_valid_where_it_stands() -> None:
    for name, entry in entries(MANIFEST, "manifest"):
        validator = Draft202012Validator({**entry, "$defs": MANIFEST["$defs"]})
        for value in [*entry.get("examples", ()), *([entry["default"]] if "default" in entry else [])]:
            assert validator.is_valid(value), (name, value)


def test_every_keyword_of_the_manifest_schema_has_words() -> None:
    used = {keyword for _, level in entries(MANIFEST, "manifest") for keyword in level}
    assert used <= WORDED


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_manifest_is_valid_and_helps_editors(path: Path) -> None:
    load_manifest(path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    start, _, schema = first.partition("=")
    assert start == "# yaml-language-server: $schema"
    assert (path.parent / schema).resolve() == ROOT / "schemas" / "manifest.schema.json"


@pytest.mark.parametrize(
    ("key", "known"),
    [
        (("approach", "kind"), APPROACHES),
        (("gate", "task"), TASKS),
    ],
)
def test_a_choice_of_the_schema_is_what_the_program_knows(key: tuple[str, str], known: Mapping[str, Any]) -> None:
    entry = MANIFEST["properties"][key[0]]["properties"][key[1]]
    assert entry.get("items", entry)["enum"] == list(known)


def test_a_metric_of_the_schema_is_one_of_the_table() -> None:
    assert MANIFEST["$defs"]["metric"]["then"]["enum"] == list(METRICS)


def test_the_report_knows_every_exit_code() -> None:
    assert REPORT["properties"]["exit_code"]["enum"] == sorted(Exit)


@pytest.mark.parametrize(
    ("section", "plan", "renamed"),
    [
        (
            "",
            Plan,
            {"approach.kind": "approach"} | {f"approach.{key}": key for key in ("model", "processes", "accelerator")},
        ),
        ("data.split", SplitPlan, {}),
        ("template", Template, {}),
        ("hyperparameters", Hyperparameters, {}),
        ("checkpoint", CheckpointPlan, {}),
        ("delivery", DeliveryPlan, {}),
        ("gate", GatePlan, {}),
        ("eval", EvalPlan, {}),
        ("eval.judge", JudgePlan, {}),
        ("eval.forgetting", ForgettingPlan, {}),
        ("endpoint", Endpoint, {}),
        ("other_model", OtherModel, {}),
        ("roi", RoiPlan, {}),
        ("roi.current", ServingPlan, {}),
        ("tracking", TrackingPlan, {}),
        ("budget", BudgetPlan, {}),
        ("resources", ResourcesPlan, {}),
    ],
)
def test_the_plan_has_a_field_for_every_key_of_the_schema(section: str, plan: type, renamed: dict[str, str]) -> None:
    entry = MANIFEST["$defs"].get(section, MANIFEST)
    for part in section.split(".") if section and entry is MANIFEST else ():
        entry = entry["properties"][part]
    if "$ref" in entry:
        entry = MANIFEST["$defs"]["serving"]
    flattened = {name.partition(".")[0] for name in renamed}
    keys = (set(entry["properties"]) - flattened) | set(renamed.values())
    keys -= {"sweep"} if plan is Plan else set()  # a plan is of one point
    own = {Plan: {"model_facts", "manifest_path", "values", "origins"}, EvalPlan: {"custom"}}.get(plan, set())
    assert {field.name for field in fields(plan)} == keys | own


def test_the_defaults_of_the_checkpoints_are_those_of_the_schema() -> None:
    schema = MANIFEST["properties"]["checkpoint"]["properties"]
    assert CheckpointPlan() == CheckpointPlan(**{key: entry["default"] for key, entry in schema.items()})
    assert {"processes", "checkpoint"} <= {field.name for field in fields(TrainJob)}


def test_the_plan_takes_every_key_of_the_data() -> None:
    """Some keys of the data are those of each of its sources."""
    keys = set(MANIFEST["properties"]["data"]["properties"])
    own, shared = {field.name for field in fields(DataPlan)}, {field.name for field in fields(SourcePlan)}
    assert keys <= own | shared
    assert own <= keys
    assert shared == set(MANIFEST["$defs"]["source"]["properties"]) | {"system", "group_by", "class_by"}


def test_every_format_can_be_named() -> None:
    assert MANIFEST["$defs"]["format"]["enum"] == ["auto", *FORMATS]


def test_questions_are_near_duplicates_by_the_searchs_own_measure() -> None:
    split = MANIFEST["properties"]["data"]["properties"]["split"]["properties"]
    assert split["similarity"]["default"] == DEFAULT_SIMILARITY
