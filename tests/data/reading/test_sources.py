"""Sources -> local files: which kind a source is, and files that are here."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from runner.data.reading import LocalFile, fetch
from runner.data.reading.sources import is_hub, is_url
from runner.errors import Exit, RunnerError
from tests.data.reading.server import ROWS, fault, get


@pytest.mark.parametrize(
    ("source", "url", "hub"),
    [
        ("s3://bucket/a.jsonl", True, False),
        ("https://host/org/name@main", True, False),
        ("memory://a", True, False),
        ("simplecache::https://host/a", True, False),
        ("org/name@main", False, True),
        ("org/name@refs/convert/parquet:test", False, True),
        ("org/name@v1.0:train", False, True),
        ("org/name", False, False),
        ("name@main", False, False),
        ("/org/name@main", False, False),
        ("./name@main", False, False),
        ("data/train@v2.jsonl", False, False),
        ("org/name@", False, False),
        ("org/name@a b", False, False),
    ],
)
def test_a_source_is_a_url_a_hub_dataset_or_a_path(source: str, url: bool, hub: bool) -> None:
    assert (is_url(source), is_hub(source)) == (url, hub)


def test_a_file_that_exists_is_no_hub_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name@main").touch()
    monkeypatch.chdir(tmp_path)
    assert not is_hub("org/name@main") and is_hub("org/name@other")


def test_a_local_file_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    assert get(str(path), tmp_path / "cache") == LocalFile(
        name=str(path), path=path, sha256=sha256(ROWS).hexdigest(), num_bytes=len(ROWS)
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["missing.jsonl", "folder", "file.txt/below.jsonl", "pipe", "nul\0.jsonl"])
def test_a_local_file_that_cannot_be_read_is_a_missing_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").touch()
    os.mkfifo(tmp_path / "pipe")
    error = fault(str(tmp_path / name), tmp_path)
    assert (error.exit_code, error.problems[0].code) == (Exit.INPUT_MISSING, "data/missing")
    assert error.problems[0].where.path == str(tmp_path / name)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_how_to_allow_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch(mode=0o000)
    assert "chmod u+r" in fault(str(tmp_path / "rows.jsonl"), tmp_path).problems[0].fix


def test_a_misspelt_file_name_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    assert "Did you mean 'train.jsonl'?" in fault(str(tmp_path / "trian.jsonl"), tmp_path).problems[0].fix
    with pytest.raises(RunnerError) as caught:
        fetch(str(tmp_path / "x"), tmp_path, print, key="data.test")
    assert caught.value.problems[0].where.key == "data.test"


HUB_HINT = "A hub dataset is written org/name@revision[:split], such as org/name@main."


@pytest.mark.parametrize(
    ("source", "told"),
    [("org/name", True), ("org/name.jsonl", False), ("name", False), ("a/org/name", False), ("data/name", False)],
)
def test_a_missing_file_that_is_written_like_a_hub_dataset_says_how_one_is_written(
    tmp_path: Path, source: str, told: bool
) -> None:
    """The manifest's paths come absolute, so that a folder which is not there shows what was written."""
    (tmp_path / "data").mkdir()
    assert (HUB_HINT in fault(str(tmp_path / source), tmp_path).problems[0].fix) is told


def test_a_relative_name_like_a_hub_dataset_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    assert HUB_HINT in fault("org/name", tmp_path).problems[0].fix
