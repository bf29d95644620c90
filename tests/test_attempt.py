"""The identity of a run: what makes another run of it, and what does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runner.identity import hashing, identify
from runner.manifest import load_manifest
from tests.fakes import quickstart


@pytest.mark.parametrize(
    ("assignment", "is_another"),
    [
        ("description=other words", False),
        ("tracking.wandb=off", False),
        ("budget.max_hours=9", False),
        ("checkpoint={ every_steps: 5, keep: 3 }", False),
        ("resources={ gpu: H100, nodes: 2 }", False),
        ("budget.usd_per_hour=9", True),
        ("seed=7", True),
        ("hyperparameters.max_length=512", True),
        ("delivery.merge=true", True),
        ("delivery.to=s3://bucket/models", False),
        ("delivery={ to: hf://owner/name, private: false }", False),
    ],
)
def test_only_what_changes_the_result_makes_another_run(assignment: str, is_another: bool) -> None:
    assert (identify(quickstart(assignment)) != identify(quickstart())) is is_another


def test_neither_where_the_files_lie_nor_when_they_were_written_makes_another_run(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "model").mkdir(parents=True)
    (here / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (here / "model" / "config.json").write_text("{}")
    (here / "model" / "model.safetensors").write_bytes(bytes(2_000_000))
    manifest = "name: m\ndata: {train: rows.jsonl}\napproach: {kind: lora, model: ./model}\ngate: {task: style}\n"
    (here / "m.yaml").write_text(manifest)
    shutil.copytree(here, there, copy_function=shutil.copy)
    weights = there / "model" / "model.safetensors"
    os.utime(weights, (1, 1))
    ids = {identify(load_manifest(folder / "m.yaml"), hashing(tmp_path / "cache")) for folder in (here, there)}
    assert len(ids) == 1
    weights.write_bytes(b"1" + bytes(1_999_999))
    assert identify(load_manifest(there / "m.yaml"), hashing(tmp_path / "cache")) not in ids
