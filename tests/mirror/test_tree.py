"""What of a run directory goes to its mirror, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner.mirror.tree import restorable, scan


def test_a_file_that_makes_others_count_goes_after_them(tmp_path: Path, checkpoint: Callable[..., Path]) -> None:
    names = ("report.json", "report.html", "run.lock.json", "events.jsonl", "model/weights", "train/outcome.json")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    checkpoint(tmp_path, 20)
    order = [name for unit in scan(tmp_path) for name in unit.files]
    assert order[0] == "run.lock.json"
    assert order[-3:] == ["train/outcome.json", "report.html", "report.json"]
    folder = "train/checkpoints/checkpoint-000020"
    assert order[1:4] == [f"{folder}/adapter.safetensors", f"{folder}/state.json", f"{folder}/COMMIT.json"]


def test_what_is_being_written_or_is_this_machines_own_stays(tmp_path: Path, checkpoint: Callable[..., Path]) -> None:
    checkpoint(tmp_path, 20, is_whole=False)
    (tmp_path / "train" / "checkpoints" / "quarantine").mkdir()
    (tmp_path / "train" / "checkpoints" / "quarantine" / "notes.jsonl").write_text("x")
    for name in (".lock", ".report.json.partial", ".mirror.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / "latest").symlink_to(tmp_path)
    assert scan(tmp_path) == []


def test_a_folder_without_its_marker_is_not_taken_from_the_mirror() -> None:
    whole, half = "train/checkpoints/checkpoint-000010", "train/checkpoints/checkpoint-000020"
    names = {f"{whole}/a": 1, f"{whole}/COMMIT.json": 1, f"{half}/a": 1, "events.jsonl": 1, ".lease/000001.json": 1}
    assert restorable(names) == [f"{whole}/a", f"{whole}/COMMIT.json", "events.jsonl"]
