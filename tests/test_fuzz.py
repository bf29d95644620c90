"""The short form of the fuzzer: some hundred hostile manifests and data files; and the fuzzer finds what it is for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from fuzzing.cases import Place, make_case  # type: ignore[import-not-found]  # noqa: E402
from fuzzing.checks import faults  # type: ignore[import-not-found]  # noqa: E402
from fuzzing.watch import Watch, measured  # type: ignore[import-not-found]  # noqa: E402


@pytest.mark.slow
def test_some_hundred_hostile_manifests_and_files_end_as_the_contract_says(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/fuzz.py", "--cases", "200", "--seed", "20", "--every", "0", "--keep", tmp_path]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"200 cases \(seed 20\), 0 of them .*: 0 failed", ended.stdout)
    for ending in ("manifest validate 78", "data plan 65", "data plan 3"):
        assert f"'{ending}'" in ended.stdout


def test_a_case_is_the_same_again(tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        place = Place(base=tmp_path)
        place.outside.mkdir(parents=True, exist_ok=True)
        cases = [make_case(3, number, place) for number in range(4)]
        paths = (path for path in place.case.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(path): path.read_bytes() for path in paths} | {"": repr(cases).encode()}

    assert files() == files()


def result(**changes: Any) -> dict[str, Any]:
    sound = {"code": 78, "output": "", "arguments": ["validate"], "escapes": [], "seconds": 0.1, "num_bytes": 1}
    problem = {"code": "a/b", "what": "Wrong.", "fix": "Mend it.", "severity": "error"}
    where = {"path": "m.yaml", "line": 1, "column": 1, "key": None}
    return {**sound, "kind": "manifest", "problems": [{**problem, "where": where}], **changes}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"code": 70}, "exit code 70"),
        ({"code": 1}, "exit code 1"),
        ({"output": "Traceback (most recent call last):\n  x\nKeyError: 1\n"}, "a traceback"),
        ({"output": "a\x1b[2Jb"}, "a control character"),
        ({"output": "canary-5f1d7c"}, "outside the roots"),
        ({"escapes": ["read '/etc/passwd'"]}, "escape: read"),
        ({"seconds": 1.5}, "slow"),
        ({"num_bytes": 300 << 20}, "large"),
        ({"problems": []}, "without a problem"),
    ],
)
def test_what_does_not_hold_is_told(changes: dict[str, Any], told: str | None) -> None:
    found = list(faults(result(**changes)))
    assert (not found) if told is None else any(told in fault for fault in found)


@pytest.mark.parametrize(("field", "value"), [("fix", " "), ("what", ""), ("code", "Odd"), ("where", {"line": None})])
def test_a_problem_without_place_words_or_cure_is_told(field: str, value: Any) -> None:
    ended = result()
    (problem,) = ended["problems"]
    problem[field] = {**problem["where"], **value} if field == "where" else value
    assert list(faults(ended))


def test_what_is_opened_outside_is_noted_and_the_network_is_cut(tmp_path: Path) -> None:
    import socket

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").touch()
    (inside / "link").symlink_to(outside / "file")
    watch = Watch(readable=(inside,), writable=())
    with watch.on():
        (inside / "file").read_bytes()
        assert watch.escapes == []
        (inside / "link").read_bytes()
        list(outside.iterdir())
        (inside / "new").touch()
        with pytest.raises(OSError, match="network is cut"):
            socket.getaddrinfo("localhost", 80)
    (outside / "file").read_bytes()
    kinds = [escape.split()[0] for escape in watch.escapes]
    assert kinds[:3] == ["read", "list", "write"]  # what follows is pytest, telling of the error


def test_memory_is_measured_by_its_highest() -> None:
    with measured() as used:
        held = bytearray(b"x") * (64 << 20)
        del held
    assert 50 << 20 < used.num_bytes < 120 << 20
