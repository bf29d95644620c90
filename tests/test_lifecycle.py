"""The whole lifecycle, through the command, on a model of two random layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runner.cli import main
from runner.errors import Exit
from runner.schema import read_schema

Write = Callable[..., Path]


def run(manifest: Path, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the report, which must satisfy its schema whatever happened."""
    code = main([str(manifest), "--out", str(out), *more])
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    Draft202012Validator(read_schema("report")).validate(report)
    assert report["exit_code"] == code or (code == 0 and report["status"] == "done")
    return code, report


def snapshot(folder: Path) -> Mapping[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in files}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_one_command_carries_a_manifest_to_a_report(
    kind: str, write_experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = run(
        write_experiment(approach={"kind": kind}, gate={"policy": "warn", "reason": "a test"}), tmp_path / "out"
    )
    assert code == Exit.DONE
    assert report["status"] == "done"
    split = report["data"]["split"]
    assert report["data"]["ledger"]["num_rows"] == split["train"] + split["dev"] + split["test"] == 240
    comparison = report["evaluation"]["comparison"]
    assert comparison["metric"] == "exact_match"
    assert comparison["num_rows"] == report["data"]["split"]["test"]
    loss = report["evaluation"]["comparisons"][-1]
    assert (loss["metric"], loss["verdict"]) == ("loss", "improved"), "training must lower the held-out loss"
    arms = {arm["name"]: arm for arm in report["gate"]["arms"]}
    assert list(arms) == ["zero_shot", "instruction", "few_shot", "nearest"]
    assert all(arm["side"]["num_rows"] == split["dev"] for arm in arms.values())
    assert report["gate"]["detectable"] is not None, "what the test rows can show is said before training"
    assert set(report["evaluation"]["sides"]) >= {"base", "tuned"}
    (check,) = report["delivery"]["checks"]
    assert check["agrees"] and check["same_answers"] == check["num_answers"] == 46
    assert check["loss_delivered"] == pytest.approx(check["loss_evaluated"], abs=1e-6)
    assert report["evaluation"]["forgetting"]["num_probes"] > 50
    for name in arms:
        assert len((tmp_path / "out/gate" / f"{name}.jsonl").read_text().splitlines()) == split["dev"]
    assert report["training"]["curve"][-1]["step"] == report["training"]["num_steps"]
    assert report["roi"] is None
    assert set(report["timings"]) == {"plan", "data", "cost", "gate", "train", "evaluate", "delivery", "roi"}
    for name in ("base", "tuned"):
        answers = [
            json.loads(line) for line in (tmp_path / "out/evaluation" / f"{name}.jsonl").read_text().splitlines()
        ]
        assert len(answers) == comparison["num_rows"]
    assert (tmp_path / "out/report.html").read_text().startswith("<!doctype html>")
    printed = capsys.readouterr().out
    assert "report.json" in printed
    assert report["verdict_text"] in printed


def test_the_same_manifest_gives_the_same_scores(write_experiment: Write, tmp_path: Path) -> None:
    manifest = write_experiment(gate={"policy": "warn", "reason": "a test"})
    first, second = (run(manifest, tmp_path / name)[1] for name in ("a", "b"))
    assert first["run_id"] == second["run_id"]
    assert first["evaluation"]["comparisons"] == second["evaluation"]["comparisons"]
    assert first["training"]["curve"] == second["training"]["curve"]


def test_a_finished_run_is_not_run_again(write_experiment: Write, tmp_path: Path) -> None:
    manifest = write_experiment(gate={"policy": "warn", "reason": "a test"}, hyperparameters={"epochs": 0.1})
    run(manifest, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    assert run(manifest, tmp_path / "out")[0] == Exit.DONE
    assert snapshot(tmp_path / "out") == before
    assert main([str(manifest), "--out", str(tmp_path / "out"), "--set", "seed=7"]) == Exit.RUN_DIRECTORY
    assert snapshot(tmp_path / "out") == before


def test_the_gate_refuses_what_retrieval_does_better(write_experiment: Write, tmp_path: Path) -> None:
    code, report = run(write_experiment(gate={"task": "knowledge"}), tmp_path / "out")
    assert (code, report["status"], report["verdict"]) == (Exit.SAID_NO, "refused", "try_retrieval")
    assert report["training"] is None
    problem = next(p for p in report["problems"] if p["code"] == "gate/wrong-tool")
    assert problem["where"]["path"].endswith("tiny.yaml")
    assert problem["where"]["line"] is not None


def test_a_verdict_that_is_no_yes_exits_3_when_enforced(write_experiment: Write, tmp_path: Path) -> None:
    manifest = write_experiment(hyperparameters={"learning_rate": 1e-9, "epochs": 0.1})
    code, report = run(manifest, tmp_path / "out")
    assert (code, report["status"]) == (Exit.SAID_NO, "done")
    assert report["verdict"] in ("equivalent", "inconclusive")


def test_a_budget_that_is_too_small_refuses_before_training(write_experiment: Write, tmp_path: Path) -> None:
    code, report = run(write_experiment(budget={"max_hours": 1e-6}), tmp_path / "out")
    assert (code, report["status"]) == (Exit.SAID_NO, "refused")
    assert report["training"] is None


@pytest.mark.parametrize(
    ("content", "code", "slug"),
    [
        (None, Exit.INPUT_MISSING, "data/missing"),
        ("", Exit.DATA_REJECTED, "data/empty"),
        ('{"prompt": "a"}\n' * 30, Exit.DATA_REJECTED, "data/unknown-format"),
        ('{"prompt": "a", "completion": ""}\n' * 30, Exit.DATA_REJECTED, "data/too-many-dropped"),
    ],
)
def test_unusable_data_ends_with_a_report_that_says_so(
    write_experiment: Write, tmp_path: Path, content: str | None, code: Exit, slug: str
) -> None:
    manifest = write_experiment()
    data = tmp_path / "rows.jsonl"
    data.unlink() if content is None else data.write_text(content)
    found, report = run(manifest, tmp_path / "out")
    assert (found, report["status"]) == (code, "failed")
    assert slug in [problem["code"] for problem in report["problems"]]
    assert report["verdict"] is None


def test_a_run_directory_that_cannot_be_written_is_told_at_once(write_experiment: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    assert main([str(write_experiment()), "--out", str(tmp_path / "file")]) == Exit.RUN_DIRECTORY


def test_a_faulty_manifest_leaves_a_report_where_it_was_told_to(tmp_path: Path) -> None:
    manifest = tmp_path / "faulty.yaml"
    manifest.write_text("name: faulty\nepoch: 3\n")
    code, report = run(manifest, tmp_path / "out")
    assert (code, report["status"], report["verdict"]) == (Exit.MANIFEST, "failed", None)
    assert len(report["problems"]) == 4
    assert run(manifest, tmp_path / "out")[0] == Exit.MANIFEST, "and again, over its own report"


def test_a_bug_of_ours_shows_its_traceback_and_leaves_a_report(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("runner.pipeline.decide", broken)
    code, report = run(write_experiment(), tmp_path / "out")
    assert (code, report["status"]) == (Exit.BUG, "failed")
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_plan_shows_everything_and_keeps_nothing(
    write_experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_experiment()
    before = set(tmp_path.iterdir())
    assert main(["plan", str(manifest)]) == Exit.DONE
    printed = capsys.readouterr().out
    shown = ("hyperparameters.rank", "derived: twice the rank", "240", "before anything is measured: fine_tune")
    for part in (*shown, "arm nearest", f"runner {manifest}"):
        assert part in printed
    assert set(tmp_path.iterdir()) - {tmp_path / "cache"} == before
