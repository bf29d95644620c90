"""The plan: every value resolved, and for each the reason why it is what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.backends.base import ModelFacts
from runner.manifest import load_manifest
from runner.plan import Plan, make_plan, without_secrets

TEXT = """\
name: tickets
data:
  train: [a.jsonl, ../b.jsonl]
  split: { dev: 0.2 }
approach:
  kind: lora
  model: ./model
gate: { task: format }
hyperparameters:
  # a comment
  rank: 8
roi:
  requests_per_month: 100
  current: { usd_per_month: 9 }
  tuned: {}
"""
SMALL, EXACTLY, LARGE = 999_999_999, 1_000_000_000, 7_000_000_000


def plan_of(folder: Path, *overrides: str, size: int | None = SMALL, text: str = TEXT) -> Plan:
    path = folder / "tickets.yaml"
    path.write_text(text, encoding="utf-8")
    facts = ModelFacts(
        name="model", revision=None, family="llama", num_parameters=size, context_tokens=None, license=None
    )
    return make_plan(load_manifest(path, overrides), facts)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize(
    ("key", "origin"),
    [
        ("name", "tickets.yaml:1"),
        ("data.train", "tickets.yaml:3"),
        ("data.split.dev", "tickets.yaml:4"),
        ("data.split.test", "default"),
        ("data.format", "default"),
        ("hyperparameters.rank", "tickets.yaml:11"),
        ("hyperparameters.max_length", "--set"),
        ("hyperparameters.alpha", "derived: twice the rank"),
        ("hyperparameters.epochs", "derived: an adapter learns a narrow task in few passes"),
        ("roi.current.usd_per_month", "tickets.yaml:14"),
        ("roi.tuned.usd_per_month", "default"),
        ("tracking.tags", "--set"),
        ("tracking.project", "default"),
        ("eval.max_new_tokens", "measured: a quarter more than the longest expected answer"),
    ],
)
def test_a_value_knows_where_it_comes_from(tmp_path: Path, key: str, origin: str) -> None:
    plan = plan_of(tmp_path, "hyperparameters.max_length=512", "tracking={ tags: [a] }")
    assert plan.origins[key] == origin


@pytest.mark.parametrize("overrides", [(), ("roi=null", "eval.max_new_tokens=64", "approach.kind=full")])
def test_every_value_has_an_origin_and_every_origin_a_value(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    plan = plan_of(tmp_path, *overrides)
    assert {*leaves(plan.values), "eval.max_new_tokens"} == set(plan.origins)


@pytest.mark.parametrize(
    ("kind", "size", "learning_rate", "batch_size", "reason"),
    [
        ("lora", SMALL, 1e-3, 8, "adapters, a model under 1B parameters"),
        ("lora", EXACTLY, 2e-4, 8, "adapters, a model of 1B parameters or more"),
        ("qlora", LARGE, 2e-4, 8, "adapters, a model of 1B parameters or more"),
        ("lora", None, 2e-4, 8, "adapters, a model of unknown size"),
        ("full", SMALL, 1e-4, 16, "full tuning, a model under 1B parameters"),
        ("full", LARGE, 2e-5, 16, "full tuning, a model of 1B parameters or more"),
        ("full", None, 2e-5, 16, "full tuning, a model of unknown size"),
    ],
)
def test_defaults_follow_the_approach_and_the_size_of_the_model(
    tmp_path: Path, kind: str, size: int | None, learning_rate: float, batch_size: int, reason: str
) -> None:
    plan = plan_of(tmp_path, f"approach.kind={kind}", size=size)
    assert (plan.hyperparameters.learning_rate, plan.hyperparameters.batch_size) == (learning_rate, batch_size)
    assert plan.origins["hyperparameters.learning_rate"] == f"derived: {reason}"


def test_a_written_value_beats_the_one_that_would_be_derived(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "hyperparameters.alpha=5", "hyperparameters.learning_rate=3e-4")
    assert (plan.hyperparameters.alpha, plan.hyperparameters.learning_rate) == (5, 3e-4)
    assert plan.origins["hyperparameters.alpha"] == plan.origins["hyperparameters.learning_rate"] == "--set"


def test_alpha_is_twice_the_rank_that_holds(tmp_path: Path) -> None:
    assert plan_of(tmp_path).hyperparameters.alpha == 16
    assert plan_of(tmp_path, "hyperparameters={}").hyperparameters.alpha == 64


def test_paths_start_from_the_folder_of_the_manifest(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "eval={ metrics: [json_valid], json_schema: s.json }")
    assert [source.source for source in plan.data.train] == [f"{tmp_path}/a.jsonl", f"{tmp_path}/../b.jsonl"]
    assert plan.eval.json_schema == tmp_path / "s.json"
    assert plan.model == str(tmp_path / "model")


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "org/name@0123abc", "/models/own"])
def test_a_model_that_is_no_relative_folder_keeps_its_name(tmp_path: Path, model: str) -> None:
    assert plan_of(tmp_path, f"approach.model={model}").model == model


def test_the_defaults_of_one_plan_do_not_leak_into_the_next(tmp_path: Path) -> None:
    text = TEXT.replace("hyperparameters:\n  # a comment\n  rank: 8\n", "")
    assert plan_of(tmp_path, text=text).hyperparameters.batch_size == 8
    assert plan_of(tmp_path, "approach.kind=full", text=text).hyperparameters.batch_size == 16


def test_what_a_url_hides_is_not_among_the_values_that_are_shown(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, 'data.train="https://user:pass@host/a.jsonl?sig=SECRET"')
    assert plan.data.train[0].source == "https://user:pass@host/a.jsonl?sig=SECRET"
    assert plan.values["data"]["train"] == "https://host/a.jsonl"
    assert without_secrets(["data.train=s3://k:v@b/x", "see https://a.b/c?d=e there"]) == [
        "data.train=s3://b/x",
        "see https://a.b/c?d=e there",
    ]
