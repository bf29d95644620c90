"""Lines that serve what was delivered: only those that work."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from runner.delivery.serve import serve_lines
from runner.plan import Plan
from tests.fakes import SMALL, make_test_plan

LOCAL = replace(SMALL, revision=None)


def plan_for(kind: str = "lora", rank: int = 16, *, dora: bool = False, revision: str | None = None) -> Plan:
    plan = make_test_plan(f"approach.kind={kind}", "hyperparameters={}", facts=replace(LOCAL, revision=revision))
    return replace(plan, hyperparameters=replace(plan.hyperparameters, rank=rank, dora=dora))


def commands(plan: Plan, merged: str | None = None) -> list[str]:
    return [line.command for line in serve_lines(plan, "org/base", "out/model", merged)]


def test_an_adapter_is_served_on_top_of_its_base() -> None:
    expected = "vllm serve org/base --enable-lora --lora-modules quickstart=out/model"
    assert commands(plan_for()) == [expected]
    assert commands(plan_for(revision="abc")) == [expected.replace("org/base", "org/base --revision abc")]


@pytest.mark.parametrize(("rank", "most"), [(1, None), (16, None), (17, 32), (32, 32), (100, 128), (512, 512)])
def test_vllm_is_told_of_a_rank_above_its_default(rank: int, most: int | None) -> None:
    (command,) = commands(plan_for(rank=rank))
    assert command.endswith(f" --max-lora-rank {most}" if most else "quickstart=out/model")


def test_an_adapter_of_4_bit_weights_is_served_on_such() -> None:
    (command,) = commands(plan_for("qlora"))
    assert "vllm serve org/base --quantization bitsandbytes --enable-lora" in command


@pytest.mark.parametrize("plan", [plan_for(dora=True), plan_for(rank=513)])
def test_what_no_server_takes_as_an_adapter_is_served_merged_alone(plan: Plan) -> None:
    assert commands(plan) == []
    assert commands(plan, "out/merged") == [
        "vllm serve out/merged --served-model-name quickstart",
        "transformers serve out/merged",
    ]


def test_an_adapter_that_was_merged_is_served_either_way() -> None:
    assert [line.name for line in serve_lines(plan_for(), "org/base", "out/model", "out/merged")] == [
        "vLLM with the adapter",
        "vLLM",
        "transformers serve",
    ]


def test_a_full_tune_is_served_from_its_own_folder() -> None:
    assert commands(plan_for("full")) == [
        "vllm serve out/model --served-model-name quickstart",
        "transformers serve out/model",
    ]


def test_a_path_with_spaces_can_be_pasted() -> None:
    (line,) = serve_lines(plan_for(), "/my models/base", "my runs/$x/model", None)
    assert shlex.split(line.command)[2] == "/my models/base"
    assert "quickstart=my runs/$x/model" in shlex.split(line.command)
