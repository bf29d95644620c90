"""What the tests share: which of them run and in which order, a tiny model, an experiment on it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_model, make_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("RUNNER_LOG", "text")  # as on a terminal


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first; long ones are skipped loudly unless asked for, GPU tests where there is no GPU."""
    items.sort(key=lambda item: any(item.get_closest_marker(name) for name in ("slow", "long")))
    for item in items:
        if item.get_closest_marker("long") and not os.environ.get("RUNNER_LONG_TESTS"):
            item.add_marker(pytest.mark.skip(reason="takes a minute or more: set RUNNER_LONG_TESTS=1"))
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level tokenizer with a chat template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a two-layer llama with random weights."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def write_experiment(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a small dataset and a manifest for the tiny model; `changes` are merged into its sections. What its run
    caches stays in the test's own folder."""
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))

    def write(num_rows: int = 240, **changes: dict[str, Any] | Any) -> Path:
        words = ("red", "green", "blue", "white")
        rows = [
            {"prompt": f"say {words[i % 4]} to number {i}", "completion": json.dumps({"word": words[i % 4]})}
            for i in range(num_rows)
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        manifest: dict[str, Any] = {
            "name": "tiny",
            "data": {"train": "rows.jsonl", "system": "Answer with JSON.", "split": {"dev": 0.1, "test": 0.2}},
            "approach": {"kind": "lora", "model": str(tiny_model)},
            "hyperparameters": {"epochs": 1, "max_length": 256, "rank": 8},
            "gate": {"task": "format"},
            "eval": {"metrics": ["exact_match", "field_f1", "chrf", "loss"], "max_new_tokens": 24},
            "tracking": {"wandb": "off"},
        }
        for section, values in changes.items():
            merge = isinstance(values, dict) and isinstance(manifest.get(section), dict)
            manifest[section] = {**manifest[section], **values} if merge else values
        if manifest["approach"]["kind"] == "full":
            del manifest["hyperparameters"]["rank"]  # which only an adapter has
        path = tmp_path / "tiny.yaml"
        path.write_text(json.dumps(manifest, indent=2))  # JSON is YAML
        return path

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Mounts a small disk on a folder, or makes the one that is mounted there larger."""
    mounted: list[Path] = []

    def mount(folder: Path, size: str, *more: str) -> None:
        again = ["remount,"] if folder in mounted else []
        folder.mkdir(parents=True, exist_ok=True)
        options = "".join([*again, ",".join([f"size={size}", *more])])
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"NOT TESTED: no disk can be mounted here ({done.stderr.strip()})")
        mounted.append(folder)

    yield mount
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", folder], check=True)
