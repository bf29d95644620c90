"""Files that are there whole or not at all, and known again by their contents."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from runner import files
from runner.files import are_as_noted, facts_of, known_sha256, open_ordinary, read_small, sha256_of, write_whole


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


@pytest.mark.parametrize("name", ["fifo", "device", "folder", "loop", "missing", "nul\0", "half\ud800"])
def test_what_has_no_end_or_is_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for read in (open_ordinary, sha256_of, lambda path: read_small(path, 10)):
        with pytest.raises(OSError, match=r"\w") as refused:
            read(tmp_path / name)
        assert refused.value.strerror


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "note", b"x" * 11)
    assert read_small(path, 11) == b"x" * 11
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_small(path, 10)


def test_a_large_file_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small, cache = tmp_path / "large", tmp_path / "small", tmp_path / "cache"
    large.write_bytes(bytes(files.LARGE_BYTES))
    small.write_bytes(b"a")
    read: list[Path] = []
    monkeypatch.setattr(files, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    first = known_sha256(large, cache)
    assert [known_sha256(large, cache), known_sha256(large, cache)] == [first, first] and read == [large]
    before = large.stat()
    large.write_bytes(b"1" + bytes(files.LARGE_BYTES - 1))
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had been written
    assert known_sha256(large, cache) == sha256_of(large) != first
    assert known_sha256(small, cache) == sha256_of(small) and known_sha256(large, None) == sha256_of(large)


@pytest.mark.parametrize("kept", ["{torn", "[]", '{"seen": 1}'])
def test_a_damaged_note_of_a_hash_only_costs_time(kept: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(files.LARGE_BYTES))
    known_sha256(large, tmp_path / "cache")
    (note,) = (tmp_path / "cache" / "hashes").iterdir()
    note.write_text(kept)
    assert known_sha256(large, tmp_path / "cache") == sha256_of(large)
