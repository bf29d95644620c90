"""The plan: every value resolved, and for each the reason why it is what it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.backends.base import CheckpointPlan, Hyperparameters, ModelFacts
from runner.manifest import load_manifest
from runner.plan import DeliveryPlan, Plan, make_plan, without_secrets
from runner.rules import ADAPTER_KEYS
from tests.fakes import make_test_plan

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
FULL = ("roi=null", "eval.max_new_tokens=64", "approach.kind=full", "hyperparameters={}")
IN_STEPS = ("hyperparameters={ max_steps: 9, batch_tokens: 4096 }",)
PAIRS = ("epochs", "max_steps", "batch_size", "batch_tokens")
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
        ("hyperparameters.weight_decay", "derived: adapters begin at zero and stay small"),
        ("hyperparameters.target_modules", "derived: every linear layer of the decoder's blocks (llama)"),
        ("hyperparameters.max_steps", "default"),
        ("approach.processes", "default"),
        ("checkpoint.keep", "default"),
        ("delivery.merge", "default"),
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


@pytest.mark.parametrize("overrides", [(), FULL, IN_STEPS])
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
    plan = plan_of(tmp_path, f"approach.kind={kind}", "hyperparameters={}", size=size)
    assert (plan.hyperparameters.learning_rate, plan.hyperparameters.batch_size) == (learning_rate, batch_size)
    assert plan.origins["hyperparameters.learning_rate"] == f"derived: {reason}"


def test_a_written_value_beats_the_one_that_would_be_derived(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "hyperparameters.alpha=5", "hyperparameters.learning_rate=3e-4")
    assert (plan.hyperparameters.alpha, plan.hyperparameters.learning_rate) == (5, 3e-4)
    assert plan.origins["hyperparameters.alpha"] == plan.origins["hyperparameters.learning_rate"] == "--set"


def test_alpha_is_twice_the_rank_that_holds(tmp_path: Path) -> None:
    assert plan_of(tmp_path).hyperparameters.alpha == 16
    assert plan_of(tmp_path, "hyperparameters={}").hyperparameters.alpha == 64
    assert plan_of(tmp_path, "hyperparameters={}", size=LARGE).hyperparameters.alpha == 32


@pytest.mark.parametrize("rank", [4, 16, 32, 256])
def test_alpha_makes_a_scale_of_two_with_rslora_and_without(tmp_path: Path, rank: int) -> None:
    own, root = (
        plan_of(tmp_path, f"hyperparameters={{ rank: {rank}, rslora: {on} }}").hyperparameters
        for on in ("false", "true")
    )
    assert own.alpha / rank == 2
    assert root.alpha / math.sqrt(rank) == pytest.approx(2, rel=0.03)
    assert (own.rslora, root.rslora) == (False, True)


@pytest.mark.parametrize(
    ("kind", "size", "rank", "weight_decay"),
    [
        ("lora", SMALL, 32, 0),
        ("lora", EXACTLY, 16, 0),
        ("qlora", None, 16, 0),
        ("full", SMALL, None, 0.01),
        ("full", LARGE, None, 0.01),
    ],
)
def test_rank_and_weight_decay_follow_them_too(
    tmp_path: Path, kind: str, size: int | None, rank: int | None, weight_decay: float
) -> None:
    plan = plan_of(tmp_path, f"approach.kind={kind}", "hyperparameters={}", size=size)
    assert plan.hyperparameters.weight_decay == weight_decay
    assert plan.values["hyperparameters"]["rank"] == rank
    assert rank is None or plan.hyperparameters.rank == rank


def test_the_embedded_model_is_trained_as_before() -> None:
    """The quickstart's figures stand in the README."""
    resolved = make_test_plan().hyperparameters
    assert resolved == Hyperparameters(
        epochs=1,
        learning_rate=1e-3,
        batch_size=4,
        max_length=2048,
        schedule="cosine",
        warmup=0.1,
        weight_decay=0,
        max_grad_norm=1,
        rank=32,
        alpha=64,
        dropout=0,
        target_modules=None,
        top_layers=20,
        early_stopping_patience=3,
    )


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_an_empty_key_is_filled_in_like_one_that_is_not_written(tmp_path: Path, kind: str) -> None:
    keys = ("epochs", "batch_size", "learning_rate", "weight_decay", "rank", "alpha")
    empty = plan_of(tmp_path, f"approach.kind={kind}", f"hyperparameters={{ {', '.join(f'{k}: ' for k in keys)} }}")
    bare = plan_of(tmp_path, f"approach.kind={kind}", "hyperparameters={}")
    assert (empty.hyperparameters, empty.values["hyperparameters"]) == (
        bare.hyperparameters,
        bare.values["hyperparameters"],
    )
    assert empty.origins["hyperparameters.epochs"] == bare.origins["hyperparameters.epochs"]


def test_a_length_in_steps_and_a_batch_in_tokens_decide_over_epochs_and_rows(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, *IN_STEPS)
    assert (plan.hyperparameters.max_steps, plan.hyperparameters.batch_tokens) == (9, 4096)
    shown = {key: (plan.values["hyperparameters"][key], plan.origins[f"hyperparameters.{key}"]) for key in PAIRS}
    assert shown == {
        "epochs": (None, "unused: max_steps decides"),
        "max_steps": (9, "--set"),
        "batch_size": (None, "unused: batch_tokens decides"),
        "batch_tokens": (4096, "--set"),
    }


def test_a_full_tune_shows_no_value_of_an_adapter(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "approach.kind=full", "hyperparameters={ rslora: false, top_layers: 2 }")
    shown = plan.values["hyperparameters"]
    assert [key for key in shown if plan.origins[f"hyperparameters.{key}"] == "unused: full tuning has no adapter"] == [
        key for key in shown if key in ADAPTER_KEYS
    ]
    assert [shown[key] for key in ADAPTER_KEYS] == [None] * 6
    assert (shown["top_layers"], plan.hyperparameters.top_layers) == (2, 2)


@pytest.mark.parametrize(
    ("written", "modules", "origin"),
    [
        ("auto", None, "--set"),
        ("[q_proj, v_proj]", ("q_proj", "v_proj"), "--set"),
        ("[auto]", ("auto",), "--set"),
    ],
)
def test_layers_to_adapt_are_those_listed_or_all(
    tmp_path: Path, written: str, modules: tuple[str, ...] | None, origin: str
) -> None:
    plan = plan_of(tmp_path, f"hyperparameters.target_modules={written}")
    assert plan.hyperparameters.target_modules == modules
    assert plan.origins["hyperparameters.target_modules"] == origin
    assert plan_of(tmp_path).hyperparameters.target_modules is None


def test_processes_checkpoints_and_delivery_come_through(tmp_path: Path) -> None:
    bare = plan_of(tmp_path)
    assert (bare.processes, bare.checkpoint) == (None, CheckpointPlan())
    assert bare.delivery == DeliveryPlan(merge=False, to=None, private=True)
    plan = plan_of(tmp_path, "approach.processes=2", "checkpoint={ every_steps: 7, keep: 1 }", "delivery.merge=true")
    assert (plan.processes, plan.delivery) == (2, DeliveryPlan(merge=True, to=None, private=True))
    assert plan.checkpoint == CheckpointPlan(every_steps=7, keep=1)


@pytest.mark.parametrize(
    ("batch", "steps", "passes"),
    [
        ("batch_size: 8", None, 2),
        ("batch_size: 8", 13, 1),  # 100 rows make 13 batches, the last one of 4
        ("batch_size: 8", 26, 2),
        ("batch_size: 500", 3, 3),
        ("batch_tokens: 2048", 40, 2),  # 40,000 tokens make 20
        ("batch_tokens: 2049", 40, 2),
        ("batch_tokens: 2048, max_length: 16", 5, 0.25),
        ("batch_tokens: 16, max_length: 16", 50, 0.5),  # no step is smaller than a row
    ],
)
def test_steps_make_passes_over_the_rows(tmp_path: Path, batch: str, steps: int | None, passes: float) -> None:
    written = f"hyperparameters={{ {batch}, max_steps: {steps or 'null'} }}"
    assert plan_of(tmp_path, written).hyperparameters.passes(100, 40_000) == passes


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
    assert plan_of(tmp_path, text=text).hyperparameters.batch_size == 8


def test_what_a_url_hides_is_not_among_the_values_that_are_shown(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, 'data.train="https://user:pass@host/a.jsonl?sig=SECRET"')
    assert plan.data.train[0].source == "https://user:pass@host/a.jsonl?sig=SECRET"
    assert plan.values["data"]["train"] == "https://host/a.jsonl"
    assert without_secrets(["data.train=s3://k:v@b/x", "see https://a.b/c?d=e there"]) == [
        "data.train=s3://b/x",
        "see https://a.b/c?d=e there",
    ]
