"""The state of the repository that a manifest is in, by git itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.git import look_at_repository
from tests.lock.projects import commit, git

PATH = {"PATH": os.environ["PATH"], "HOME": "/nowhere"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "repository" / "folder" / "m.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("name: m\n")
    git(path.parents[1], "init", "-q")
    commit(path.parents[1])
    return path


def test_a_clean_repository_is_its_commit(manifest: Path) -> None:
    found = look_at_repository(manifest, PATH)
    assert found["commit"] == git(manifest.parent, "rev-parse", "HEAD")
    assert (found["state"], found["dirty"], found["tracked"], found["diff_sha256"]) == ("repository", False, True, None)


def test_a_changed_file_makes_it_dirty_by_what_changed_and_an_unknown_one_does_not(manifest: Path) -> None:
    (manifest.parent / "runs").mkdir()
    (manifest.parent / "runs/report.json").write_text("{}")
    assert look_at_repository(manifest, PATH)["dirty"] is False
    assert look_at_repository(manifest.with_name("new.yaml"), PATH)["tracked"] is False
    hashes = set()
    for text in ("name: a\n", "name: b\n"):
        manifest.write_text(text)
        found = look_at_repository(manifest, PATH)
        assert found["dirty"] is True
        hashes.add(found["diff_sha256"])
    assert len(hashes) == 2 and None not in hashes


def test_a_folder_in_no_repository_says_so(tmp_path: Path) -> None:
    assert look_at_repository(tmp_path / "m.yaml", PATH)["state"] == "not a repository"


def test_without_git_the_commit_is_read_and_the_rest_is_unknown(manifest: Path) -> None:
    commit_sha = git(manifest.parent, "rev-parse", "HEAD")
    none = {"PATH": "/nowhere"}
    found = look_at_repository(manifest, none)
    assert (found["state"], found["commit"], found["dirty"]) == ("unknown", commit_sha, None)
    assert found["reason"] == "git is not installed"
    git(manifest.parents[1], "pack-refs", "--all")
    assert look_at_repository(manifest, none)["commit"] == commit_sha, "from the packed refs"
    git(manifest.parents[1], "worktree", "add", "-q", "../beside")
    beside = manifest.parents[2] / "beside" / "folder" / "m.yaml"
    assert look_at_repository(beside, none)["commit"] == commit_sha, "of a worktree"
    git(manifest.parents[1], "checkout", "-q", "--detach")
    assert look_at_repository(manifest, none)["commit"] == commit_sha, "of no branch"


def test_a_repository_without_a_commit_is_unknown_with_the_reason(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    found = look_at_repository(tmp_path / "m.yaml", PATH)
    assert (found["state"], found["commit"]) == ("unknown", None) and "HEAD" in found["reason"]


def test_nothing_of_the_environment_leads_to_another_repository(manifest: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "other")
    environment = {**PATH, "GIT_DIR": str(tmp_path / "other/.git")}
    assert look_at_repository(manifest, environment)["state"] == "repository"
