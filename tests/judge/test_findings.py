"""What is said of a judge beside its marks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.errors import Problem
from runner.judge import (
    choice_findings,
    comparison_findings,
    effects,
    is_pinned,
    same_family,
    snapshot_findings,
)
from tests.judge.scripted import (
    PLAN,
    PRICED,
    FakeChat,
    Script,
    always_first,
    good,
    judged,
    longer_wins,
    pair,
    right_and_wrong,
    rubbish,
)


@pytest.mark.parametrize(
    ("judge", "base", "family", "shared"),
    [
        ("Qwen/Qwen3-32B", "Qwen/Qwen2.5-0.5B-Instruct", "qwen2", "qwen"),
        ("meta-llama/Llama-3.3-70B-Instruct", "meta-llama/Llama-3.2-1B", "llama", "llama"),
        ("mixtral-8x7b", "mistralai/Mistral-7B-v0.3", "mistral", "mistral"),
        ("gemini-2.5-pro", "google/gemma-3-1b-it", "gemma3", "google"),
        ("gpt-4.1-2025-04-14", "openai/gpt-oss-20b", "gpt_oss", "openai"),
        ("o3-2025-04-16", "gpt-4o-mini", None, "openai"),
        ("deepseek-chat", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "qwen2", "deepseek"),
        ("Qwen/Qwen3-32B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "qwen2", "qwen"),
        ("llama-3.3-70b", "/models/ours", "llama", "llama"),
        ("HuggingFaceTB/SmolLM3-3B", "HuggingFaceTB/SmolLM2-135M-Instruct", "llama", "smollm"),
        ("llama-3.3-70b", "HuggingFaceTB/SmolLM2-135M-Instruct", "llama", None),  # built like one, taught by others
        ("gpt-4.1", "meta-llama/Llama-3.2-1B", "llama", None),
        ("cognitivecomputations/dolphin-2.9", "microsoft/phi-4", "phi3", None),
        ("claude-opus-4-1-20250805", "/models/ours", None, None),
        ("our-own", "/models/our-own/", None, "our-own"),
        ("gpt-4.1", "EleutherAI/gpt-neox-20b", None, None),
        ("unheard-of", "another", None, None),
    ],
)
def test_a_judge_of_the_models_own_family_is_known_by_its_name(
    judge: str, base: str, family: str | None, shared: str | None
) -> None:
    assert same_family(judge, base, family) == shared


@pytest.mark.parametrize(
    ("model", "pinned"),
    [
        ("gpt-4.1-2025-04-14", True),
        ("gpt-4-0613", True),
        ("claude-opus-4-1-20250805", True),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", True),
        ("gemini-2.0-flash-001", True),
        ("mistral-large-2411", True),
        ("Qwen/Qwen3-32B", True),
        ("meta-llama/Llama-3.3-70B-Instruct", True),
        ("openai/gpt-oss-20b", True),
        ("org/judge@1a2b3c4d", True),
        ("gpt-4-1106-preview", True),
        ("gpt-4-128k", False),
        ("gpt-4.1", False),
        ("gpt-4o", False),
        ("o3", False),
        ("claude-opus-4-1", False),
        ("claude-3-5-sonnet-latest", False),
        ("mistral-large-latest", False),
        ("gemini-2.5-pro", False),
        ("deepseek-chat", False),
        ("judge", False),
    ],
)
def test_a_name_is_pinned_when_it_stands_for_one_set_of_weights(model: str, pinned: bool) -> None:
    assert is_pinned(model) is pinned


def test_the_choice_of_judge_draws_findings() -> None:
    plan = replace(PLAN, endpoint=replace(PRICED, model="gpt-4.1"))
    found = choice_findings(plan, "openai/gpt-oss-20b", None)
    assert [(f.code, f.severity) for f in found] == [
        ("judge/own-family", "warning"),
        ("judge/snapshot-not-pinned", "note"),
    ]
    assert choice_findings(PLAN, "openai/gpt-oss-20b", None) == []


def test_a_snapshot_that_changes_within_the_run_is_told() -> None:
    one = judged(FakeChat(script=good, models=("m-1",)), right_and_wrong(3))
    two = judged(FakeChat(script=good, models=("m-2",)), right_and_wrong(3))
    assert snapshot_findings([one, one]) == []
    changed = snapshot_findings([one, two])
    assert [f.code for f in changed] == ["judge/snapshot-changed"] and "m-1, m-2" in changed[0].what
    assert snapshot_findings([judged(FakeChat(script=good, models=(None,)), right_and_wrong(3)), one]) == []


def told(script: Script, num_rows: int = 20, **changes: float) -> list[Problem]:
    pairs = right_and_wrong(num_rows)
    plan = replace(PLAN, **changes)  # type: ignore[arg-type]
    found = judged(script, pairs, plan)
    return comparison_findings(plan, found, effects(found.judgements, pairs))


def test_a_steady_comparison_draws_no_finding() -> None:
    assert told(good) == []


def test_many_flips_are_a_warning() -> None:
    found = told(always_first)
    assert [(f.code, f.severity) for f in found] == [("judge/flips", "warning")] and "100.0 %" in found[0].what
    assert told(always_first, max_flips=1.0) == []


@pytest.mark.parametrize(("limit", "severity"), [(1.0, "note"), (0.5, "error")])
def test_unscored_rows_are_always_told_and_an_error_beyond_the_limit(limit: float, severity: str) -> None:
    found = told(rubbish, max_unscored=limit)
    assert [(f.code, f.severity) for f in found] == [("judge/unscored", severity)]
    assert "20 of 20 rows (100.0 %): the reply was no JSON (20)" in found[0].what


def test_a_clear_length_effect_is_told_and_a_warning_where_it_turns_the_result() -> None:
    steady = [pair(i, "x" * (50 + i * 7 % 60), "y" * (50 + i * 11 % 60)) for i in range(60)]
    found = judged(longer_wins, steady)
    codes = {f.code for f in comparison_findings(PLAN, found, effects(found.judgements, steady))}
    assert codes == {"judge/length-effect"}
    bias = effects(found.judgements, steady)
    for adjusted, severity in ((0.9, "note"), (0.1, "warning")):
        one_way = replace(bias, length=replace(bias.length, win_rate=0.7, adjusted_win_rate=adjusted))
        assert [f.severity for f in comparison_findings(PLAN, found, one_way)] == [severity]
