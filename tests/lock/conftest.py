"""A project with a lock, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.lock.projects import MANIFEST, call, commit, make_project


@pytest.fixture(scope="session")
def locked_project(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that tests copy."""
    schema = {"json_schema": "answer.schema.json"}
    folder = tmp_path_factory.mktemp("locked") / "project"
    folder.mkdir()
    (folder / "answer.schema.json").write_text('{"type": "object"}\n')
    make_project(folder, tiny_model, eval=schema)
    assert call(folder, "lock", MANIFEST)[0] == 0
    commit(folder)
    return folder


@pytest.fixture
def project(locked_project: Path, tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    return shutil.copytree(locked_project, tmp_path / "project")
