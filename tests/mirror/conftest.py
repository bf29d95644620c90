"""A store on localhost for each test, and run directories that have a mirror in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store_server import BUCKET, StoreServer, serving_store

URL = f"s3://{BUCKET}/exp"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreServer]:
    """An S3 server, and what this process needs to reach it."""
    with serving_store() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a committed folder of a run."""

    def write(run: Path, step: int, content: bytes = b"weights", *, is_whole: bool = True) -> Path:
        folder = run / "train" / "checkpoints" / f"checkpoint-{step:06}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter.safetensors").write_bytes(content)
        (folder / "state.json").write_text(str(step))
        if is_whole:
            (folder / "COMMIT.json").write_text(f"{{{step}}}")
        return folder

    return write
