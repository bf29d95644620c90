"""Files that are there whole or not at all, and known again by their contents."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from runner.files import are_as_noted, facts_of, sha256_of, write_whole


@pytest.mark.parametrize("content", ["naïve\n", b"\x00\xff"])
def test_a_file_is_written_as_given_and_nothing_else_is_left(tmp_path: Path, content: str | bytes) -> None:
    path = write_whole(tmp_path / "note", content)
    raw = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == raw and list(tmp_path.iterdir()) == [path]
    assert sha256_of(path) == hashlib.sha256(raw).hexdigest()


def test_the_old_file_stands_until_the_new_one_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "note", "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "note", "new")
    assert (tmp_path / "note").read_text() == "old"


def test_a_folder_is_as_noted_until_one_of_its_files_changes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    noted = facts_of(tmp_path)
    assert noted == {name: (3, sha256_of(tmp_path / name)) for name in ("a", "b")}
    (tmp_path / "c").write_text("a later one counts for nothing")
    assert are_as_noted(tmp_path, noted)
    (tmp_path / "b").write_text("twO")
    assert not are_as_noted(tmp_path, noted)
    (tmp_path / "b").write_text("longer")
    assert not are_as_noted(tmp_path, noted)
    (tmp_path / "b").unlink()
    with pytest.raises(OSError, match="b"):
        are_as_noted(tmp_path, noted)
