"""Disks that are full, and mounts that cannot be written: which one it is, and the cure."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.cli import main
from runner.disks import io_problem
from runner.errors import Exit

Write = Callable[..., Path]


def fill(folder: Path) -> None:
    """Leaves no room on a disk."""
    with (folder / "filled").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def test_a_full_cache_is_named_with_what_to_do(
    write_experiment: Write,
    tmp_path: Path,
    small_disk: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = write_experiment()
    small_disk(cache := tmp_path / "small", "256k")
    monkeypatch.setenv("RUNNER_CACHE", str(cache))
    fill(cache)
    assert main(["plan", str(manifest)]) == Exit.IO
    shown = capsys.readouterr().out
    assert "[run/io]" in shown and str(cache) in shown and "Make room" in shown
    assert main([str(manifest), "--out", str(tmp_path / "out")]) == Exit.IO
    report: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())
    (problem,) = report["problems"]
    assert (problem["code"], report["status"]) == ("run/io", "failed")
    assert problem["where"]["path"].startswith(str(cache)) and "Make room" in problem["fix"]
    (cache / "filled").unlink()
    small_disk(cache, "64m")
    assert main(["plan", str(manifest)]) in (Exit.DONE, Exit.SAID_NO)


@pytest.mark.parametrize("holder", ["cache", "out"])
def test_a_mount_that_is_only_read_is_named_with_what_to_do(
    write_experiment: Write,
    tmp_path: Path,
    small_disk: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    holder: str,
) -> None:
    manifest = write_experiment()
    small_disk(mount := tmp_path / "mount", "256k", "ro")
    out = mount / "run" if holder == "out" else tmp_path / "out"
    if holder == "cache":
        monkeypatch.setenv("RUNNER_CACHE", str(mount))
    code = main([str(manifest), "--out", str(out)])
    assert code == (Exit.RUN_DIRECTORY if holder == "out" else Exit.IO)
    shown = capsys.readouterr().out
    assert str(mount) in shown and ("RUNNER_CACHE" in shown if holder == "cache" else "--out" in shown)


def test_where_nobody_knows_the_disk_the_cure_still_fits(tmp_path: Path) -> None:
    problem = io_problem(OSError(errno.ENOSPC, "No space left on device"), [tmp_path])
    assert (problem.where.path, problem.fix) == (None, "Make room on the disk, then run the same command again.")
    problem = io_problem(OSError(errno.EIO, "Input/output error", str(tmp_path / "x")), [])
    assert problem.where.path == str(tmp_path / "x") and "health" in problem.fix
