"""The shipped example that needs no tuning, with the embedded model that it is about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.errors import Exit
from tests.test_lifecycle import run

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_task_that_the_base_model_does_with_a_good_prompt_ends_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")
    (tmp_path / "cache").mkdir()
    if (usual / "models").is_dir():  # converted at set-up; answers are given anew
        (tmp_path / "cache" / "models").symlink_to(usual / "models")
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    few = ("--set", "gate.arms=[zero_shot, few_shot]", "--set", "tracking.wandb=off", "--set", "budget.max_hours=null")
    code, report = run(ROOT / "manifests" / "order-number.yaml", tmp_path / "out", *few)
    assert (code, report["status"], report["verdict"]) == (Exit.SAID_NO, "refused", "prompting_enough")
    assert report["training"] is None and report["evaluation"] is None
    arms = {arm["name"]: arm["side"]["scores"]["exact_match"] for arm in report["gate"]["arms"]}
    assert arms["few_shot"]["low"] >= report["gate"]["target"]["value"] > arms["zero_shot"]["high"]
    assert "few_shot reaches the target without tuning" in report["verdict_text"]
    assert (tmp_path / "out/gate/few_shot.prompt.json").exists()
