"""The real W&B library, offline; and W&B being unusable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.cli import main
from runner.errors import Exit
from runner.gate import ArmResult
from runner.report import Facts
from runner.stats import Interval
from runner.tracking import _summary
from tests.fakes import make_comparison, make_decision, make_evaluation, make_side, trained_model

Write = Callable[..., Path]
QUICK = {"gate": {"policy": "warn", "reason": "a test"}, "hyperparameters": {"epochs": 0.2}}


def report_of(manifest: Path, out: Path) -> dict[str, Any]:
    assert main([str(manifest), "--out", str(out)]) == Exit.DONE
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.mark.slow
def test_an_offline_run_holds_config_curves_and_scores(write_experiment: Write, tmp_path: Path) -> None:
    report = report_of(write_experiment(tracking={"wandb": "auto"}, **QUICK), tmp_path / "out")
    assert report["tracking"]["wandb"] == "offline"
    assert report["tracking"]["note"] is None
    (file,) = (tmp_path / "out/wandb").rglob("*.wandb")
    written = file.read_bytes()
    for key in (b"hyperparameters", b"train/loss", b"train/dev_loss", b"evaluation/base/exact_match/difference"):
        assert key in written


@pytest.mark.slow
def test_an_unreachable_server_changes_nothing_but_a_note(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_experiment(**QUICK)
    untracked = report_of(manifest, tmp_path / "off")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("runner.backends.wandb.INIT_TIMEOUT_SECONDS", 5)
    tracked = report_of(write_experiment(tracking={"wandb": "online"}, **QUICK), tmp_path / "on")
    assert tracked["tracking"]["note"]
    assert tracked["evaluation"]["comparisons"] == untracked["evaluation"]["comparisons"]
    assert "0" * 40 not in (tmp_path / "on/report.json").read_text()


def test_a_manifest_can_turn_tracking_off(write_experiment: Write, tmp_path: Path) -> None:
    report = report_of(write_experiment(tracking={"wandb": "off"}, **QUICK), tmp_path / "out")
    assert report["tracking"]["wandb"] == "off"
    assert not list((tmp_path / "out/wandb").iterdir())


def test_each_side_and_arm_has_keys_of_its_own() -> None:
    base, arm = make_comparison(), make_comparison(against="few_shot", untuned=0.6)
    loss = make_comparison(metric="loss", difference=-0.5)
    measured = ArmResult(
        name="few_shot",
        kind="prompting",
        description="",
        num_shots=3,
        side=make_side(scores={"exact_match": Interval(mean=0.6, low=0.5, high=0.7), "loss": None}),
        usd_per_1000=None,
        price_source="",
        left_out=None,
    )
    left_out = ArmResult(
        name="large",
        kind="model",
        description="",
        num_shots=0,
        side=None,
        usd_per_1000=None,
        price_source="",
        left_out="its endpoint failed",
    )
    values = _summary(
        Facts(
            evaluation=make_evaluation(comparisons=(base, arm, loss)),
            decision=make_decision(arms=(measured, left_out)),
        )
    )
    assert (values["verdict"], values["gate/verdict"]) == ("improved", "fine_tune")
    assert (values["evaluation/base/exact_match/untuned"], values["evaluation/few_shot/exact_match/untuned"]) == (
        0.5,
        0.6,
    )
    assert values["evaluation/base/loss/difference"] == -0.5
    assert {key: value for key, value in values.items() if key.startswith("gate/few_shot")} == {
        "gate/few_shot/exact_match": 0.6,
        "gate/few_shot/loss": None,
    }
    assert not any(key.startswith("gate/large") for key in values)


def test_the_training_s_figures_are_told_under_the_report_s_keys() -> None:
    told = _summary(Facts(training=trained_model(best_step=1)))
    values = {key.removeprefix("training/"): value for key, value in told.items() if key.startswith("training/")}
    assert (values["num_steps"], values["best_step"], values["dev_loss"], values["final_loss"]) == (2, 1, 0.6, 0.5)
    assert (values["memory/estimate_bytes"], values["memory/peak_bytes"]) == (1_100_000_000, 1_000_000_000)
