"""Places on localhost, and files to be sent there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.pushing import Outgoing
from tests.hub_server import HubServer, serving_hub
from tests.store_server import StoreServer, serving_store

FILES = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}", "README.md": b"# A card\n"}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreServer]:
    with serving_store() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving_hub() as server:
        yield server


@pytest.fixture
def outgoing(tmp_path: Path) -> Callable[..., list[Outgoing]]:
    """Files as a run would send them; `changes` are names and contents."""

    def make(changes: dict[str, bytes] | None = None) -> list[Outgoing]:
        made = []
        for name, content in {**FILES, **(changes or {})}.items():
            path = tmp_path / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            made.append(Outgoing(name=name, path=path, bytes=len(content), sha256=digest))
        return made

    return make
