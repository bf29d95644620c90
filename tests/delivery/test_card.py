"""The model card: everything a reader must know, nothing of this machine, and the same text for the same facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.backends.base import Form
from runner.data.ledger import SourceTotals
from runner.delivery.card import CardFacts, data_fingerprint, make_card
from runner.stats import Interval
from tests.delivery.test_delivery import AGREEING
from tests.fakes import (
    SMALL,
    UNKNOWN,
    make_dataset,
    make_evaluation,
    make_ledger,
    make_side,
    make_test_plan,
    trained_model,
)

SOURCE = SourceTotals(
    path="/home/me/secret place/rows.jsonl",
    part="train",
    container="jsonl",
    format="chat",
    evidence="all of them",
    sha256="ab" * 32,
    num_bytes=9,
    num_rows=490,
    kept=480,
    repaired=0,
    truncated=0,
    dropped=10,
)
FORMS: tuple[Form, ...] = ("adapter", "full", "merged")


def facts(*overrides: str, **changes: Any) -> CardFacts:
    usual: dict[str, Any] = {
        "plan": make_test_plan(*overrides),
        "dataset": make_dataset(ledger=replace(make_ledger(490), sources=(SOURCE,))),
        "trained": trained_model(model_dir="/home/me/out/model", weights_sha256="cd" * 32),
        "evaluation": make_evaluation(),
        "checks": [AGREEING],
        "base": "org/small",
        "run_id": "abc123",
    }
    return CardFacts(**{**usual, **changes})


def front(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(head)
    return values


def test_the_front_matter_is_what_the_hub_reads() -> None:
    assert front(make_card(facts(), "adapter")) == {
        "base_model": "small",
        "base_model_relation": "adapter",
        "license": "apache-2.0",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["runner", "lora", "format"],
    }
    merged = front(make_card(facts(), "merged"))
    assert (merged["library_name"], merged["base_model_relation"]) == ("transformers", "merge")
    assert front(make_card(facts(), "full"))["base_model_relation"] == "finetune"


def test_it_tells_where_the_weights_come_from_and_what_they_are() -> None:
    card = make_card(facts(), "adapter")
    given = facts()
    for expected in (
        "# quickstart",
        "strict JSON?",
        "small, revision r1",
        "apache-2.0",
        f"`{data_fingerprint(given.dataset)}`",
        "400 for training, 30 for development, 60 for the test",
        "| rows.jsonl | train | 490 | 480 | `" + "ab" * 32 + "` |",
        "Tokens in a pass over the training rows: 40,000",
        "| learning_rate | 0.001 |",
        "lora, 1,000,000 of 135,000,000 parameters trained",
        "| exact_match | 0.500 (0.400 to 0.600) | 0.500 (0.400 to 0.600) |",
        "Tuning helped.",
        "What it forgot was not measured.",
        "`" + "cd" * 32 + "`",
        "run abc123",
        "vllm serve org/small --revision r1 --enable-lora --lora-modules quickstart=. --max-lora-rank 32",
    ):
        assert expected in card, expected


def test_the_best_untuned_way_has_a_column_of_its_own() -> None:
    arm = make_side(scores={"exact_match": Interval(mean=0.7, low=None, high=None)})
    evaluation = make_evaluation(tuned=make_side(scores={"exact_match": None}))
    evaluation = replace(evaluation, best_arm="few_shot", sides={**evaluation.sides, "few_shot": arm})
    card = make_card(facts(evaluation=evaluation), "adapter")
    assert "| metric | base model | best un-tuned (few_shot) | this model |" in card
    assert "| exact_match | 0.500 (0.400 to 0.600) | 0.700 | no score |" in card


def test_a_licence_that_is_not_known_is_called_unknown() -> None:
    card = make_card(facts(plan=make_test_plan(facts=UNKNOWN)), "adapter")
    assert front(card)["license"] == "unknown"
    assert "Licence of the base model: unknown: look it up" in card
    assert "Parameters:" not in card.split("## Data")[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["small", "/home/me/models/base"])
def test_no_path_of_this_machine_stands_in_it(form: Form, name: str) -> None:
    plan = make_test_plan(facts=replace(SMALL, name=name))
    card = make_card(facts(plan=plan, base="/home/me/models/base"), form)
    assert "/home" not in card
    assert "secret place" not in card


def test_a_base_that_is_a_folder_is_explained() -> None:
    card = make_card(facts(base="/cache/models/small-1"), "adapter")
    assert "`BASE` below stands for the folder of the base model: `runner prepare small` makes it" in card
    assert "vllm serve BASE" in card
    plan = make_test_plan(facts=replace(SMALL, name="/m/mine"))
    assert "the folder `mine` that it was trained from" in make_card(facts(plan=plan, base="/m/mine"), "adapter")


def test_each_folder_is_told_how_it_itself_is_served() -> None:
    adapter, merged = (make_card(facts(), form) for form in ("adapter", "merged"))
    assert "transformers serve ." not in adapter and "`transformers serve` takes no adapter" in adapter
    assert "transformers serve ." in merged and "--enable-lora" not in merged
    assert "4 bits" in make_card(facts("approach.kind=qlora"), "adapter")
    full = make_card(facts("approach.kind=full", "hyperparameters={}"), "full")
    assert "vllm serve . --served-model-name quickstart" in full


def test_hostile_text_stays_text() -> None:
    plan = replace(make_test_plan(), description="---\nlicense: mit\n# Big\n<script>x</script> a | b")
    source = replace(SOURCE, path="a|b`<i>.jsonl")
    dataset = make_dataset(ledger=replace(make_ledger(490), sources=(source,)))
    card = make_card(facts(plan=plan, dataset=dataset), "adapter")
    assert front(card)["license"] == "apache-2.0"
    assert "<script>" not in card and "<i>" not in card
    assert "\n# Big" not in card
    assert r"a\|b" in card


def test_the_same_facts_make_the_same_card() -> None:
    assert make_card(facts(), "adapter") == make_card(facts(), "adapter")


def test_the_fingerprint_follows_the_data_and_not_where_it_lies() -> None:
    own = facts().dataset
    moved = replace(own, ledger=replace(own.ledger, sources=(replace(SOURCE, path=str(Path("/x/y.jsonl"))),)))
    changed = replace(own, ledger=replace(own.ledger, sources=(replace(SOURCE, sha256="00" * 32),)))
    divided = replace(own, split=replace(own.split, train=399))
    assert data_fingerprint(moved) == data_fingerprint(own)
    assert len({data_fingerprint(data) for data in (own, changed, divided)}) == 3
