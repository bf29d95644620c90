"""The run directory: one at a time, whole files, and nothing of anybody else's touched."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import Exit, RunnerError
from runner.rundir import FILES, KEPT, STAGES, RunDirectory, read_report
from tests.fakes import read_lines


def refusal(act: Callable[[], object]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        act()
    return caught.value


def begin(path: Path, run_id: str = "one") -> RunDirectory:
    """A run that has begun and left something of every kind."""
    run = RunDirectory(path)
    run.claim(run_id, fresh=False)
    run.write_json("run.lock.json", {"run_id": run_id})
    for stage in STAGES:
        (run.folder(stage) / "file").write_text("x")
    run.event("stage", stage="data")
    run.write_text("report.html", "<html>")
    return run


def end(path: Path, status: str = "done", run_id: str = "one") -> dict[str, str]:
    report = {"status": status}
    run = begin(path, run_id)
    run.write_json("report.json", report)
    run.close()
    return report


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


def test_a_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "b")
    assert run.claim("one", fresh=False) is None
    run.close()


def test_a_second_run_is_refused_at_once_and_learns_who_is_working(tmp_path: Path) -> None:
    first = RunDirectory(tmp_path)
    started = time.monotonic()
    error = refusal(lambda: RunDirectory(tmp_path))
    assert time.monotonic() - started < 1
    assert error.exit_code == Exit.RUN_DIRECTORY
    assert error.problems[0].code == "run/locked" and f"pid {os.getpid()}" in error.problems[0].what
    first.close()


def test_a_closed_directory_is_free_again_and_a_refused_run_has_not_changed_its_holder(tmp_path: Path) -> None:
    first = RunDirectory(tmp_path)
    refusal(lambda: RunDirectory(tmp_path))
    assert f"pid {os.getpid()} since " in (tmp_path / ".lock").read_text()
    first.close()
    RunDirectory(tmp_path).close()
    assert (tmp_path / ".lock").read_text().count("pid") == 1


def in_place_of_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


UNWRITABLE: dict[str, Callable[[Path], Path]] = {
    "a file in its place": in_place_of_a_file,
    "a file above it": lambda folder: in_place_of_a_file(folder) / "below",
    "a name too long": lambda folder: folder / ("x" * 300),
    "a file system that takes nothing": lambda folder: Path("/proc/runner-test"),
}


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path, kind: str) -> None:
    if kind.startswith("a file system") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    path = UNWRITABLE[kind](tmp_path)
    error = refusal(lambda: RunDirectory(path))
    assert (error.exit_code, error.problems[0].code) == (Exit.RUN_DIRECTORY, "run/unwritable")
    assert error.problems[0].where.path == str(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    error = refusal(lambda: RunDirectory(tmp_path))
    tmp_path.chmod(0o700)
    assert error.problems[0].code == "run/unwritable"


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "data", "model", "wandb", ".git"])
def test_a_directory_that_no_run_of_ours_began_in_is_left_alone_even_under_our_own_names(
    tmp_path: Path, name: str, fresh: bool
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").touch()
    run = RunDirectory(tmp_path)
    error = refusal(lambda: run.claim("one", fresh=fresh))
    assert (error.exit_code, error.problems[0].code) == (Exit.RUN_DIRECTORY, "run/foreign-files")
    assert name in error.problems[0].what
    assert (tmp_path / name / "precious").exists()


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_directory_of_another_run_is_refused_and_kept(tmp_path: Path, status: str) -> None:
    end(tmp_path, status)
    before = names(tmp_path)
    error = refusal(lambda: RunDirectory(tmp_path).claim("two", fresh=False))
    assert (error.exit_code, error.problems[0].code) == (Exit.RUN_DIRECTORY, "run/other-run")
    assert "another run (one); this one is two" in error.problems[0].what
    assert names(tmp_path) == before


def test_a_run_that_is_done_is_recognised_and_kept(tmp_path: Path) -> None:
    report = end(tmp_path)
    before = names(tmp_path)
    assert RunDirectory(tmp_path).claim("one", fresh=False) == report
    assert names(tmp_path) == before


@pytest.mark.parametrize("status", ["failed", "refused", "interrupted"])
def test_a_run_that_is_not_done_begins_anew_and_its_report_stands_until_it_is_replaced(
    tmp_path: Path, status: str
) -> None:
    end(tmp_path, status)
    before = names(tmp_path)
    run = RunDirectory(tmp_path)
    assert run.claim("one", fresh=False) is None
    assert names(tmp_path) == before, "nothing is lost before this attempt has what it needs"
    run.begin()
    assert names(tmp_path) == before - (set(STAGES) - set(KEPT))


def test_a_run_that_was_killed_begins_anew_but_keeps_what_training_goes_on_from(tmp_path: Path) -> None:
    begin(tmp_path).close()
    run = RunDirectory(tmp_path)
    assert run.claim("one", fresh=False) is None
    run.begin()
    assert names(tmp_path) & set(STAGES) == {"train", "model", "merged", "wandb"}
    assert all((tmp_path / name / "file").is_file() for name in KEPT)


@pytest.mark.parametrize("run_id", ["one", "two"])
def test_fresh_removes_what_an_earlier_run_left_and_nothing_else(tmp_path: Path, run_id: str) -> None:
    end(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "data.bak").mkdir()
    assert RunDirectory(tmp_path).claim(run_id, fresh=True) is None
    assert names(tmp_path) == {".lock", "notes.txt", "data.bak"}


@pytest.mark.parametrize("fresh", [False, True])
def test_the_report_of_a_faulty_manifest_makes_room_for_the_run(tmp_path: Path, fresh: bool) -> None:
    run = RunDirectory(tmp_path)
    assert run.is_vacant()
    for name in ("report.json", "report.html", "events.jsonl"):
        run.write_text(name, '{"schema_version": 1}')
    assert run.is_vacant()
    assert run.claim("one", fresh=fresh) is None
    assert names(tmp_path) == {".lock"}


def test_a_directory_that_a_run_has_taken_or_that_is_somebodys_is_not_vacant(tmp_path: Path) -> None:
    taken = RunDirectory(tmp_path / "taken")
    taken.write_json("run.lock.json", {"run_id": "one"})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "data").mkdir()
    assert not taken.is_vacant()
    assert not RunDirectory(tmp_path / "thesis").is_vacant()
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "report.html").write_text("somebody's")
    assert not RunDirectory(tmp_path / "pages").is_vacant()


@pytest.mark.parametrize("name", FILES)
def test_a_first_file_torn_by_a_kill_or_a_full_disk_does_not_bar_the_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / f".{name}.partial").write_text('{"run')
    assert RunDirectory(tmp_path).claim("one", fresh=False) is None


TORN = ["", '{"run_id": "on', "[]", "null", "\xff"]


@pytest.mark.parametrize("text", TORN)
def test_a_torn_report_counts_as_not_done(tmp_path: Path, text: str) -> None:
    end(tmp_path)
    (tmp_path / "report.json").write_bytes(text.encode("latin-1"))
    assert RunDirectory(tmp_path).claim("one", fresh=False) is None


@pytest.mark.parametrize("text", TORN)
def test_a_torn_lock_file_is_refused_and_can_be_cleared(tmp_path: Path, text: str) -> None:
    end(tmp_path)
    (tmp_path / "run.lock.json").write_bytes(text.encode("latin-1"))
    run = RunDirectory(tmp_path)
    error = refusal(lambda: run.claim("one", fresh=False))
    assert (error.exit_code, error.problems[0].code) == (Exit.RUN_DIRECTORY, "run/other-run")
    assert "its run.lock.json is unreadable" in error.problems[0].what and "--fresh" in error.problems[0].fix
    assert (tmp_path / "report.json").exists()
    assert run.claim("one", fresh=True) is None


@pytest.mark.parametrize("text", [None, *TORN])
def test_a_report_that_cannot_be_read_is_a_missing_input(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "report.json").write_bytes(text.encode("latin-1"))
    error = refusal(lambda: read_report(tmp_path))
    assert (error.exit_code, error.problems[0].code) == (Exit.INPUT_MISSING, "report/missing")


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = end(tmp_path)
    assert read_report(tmp_path) == report


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, object()])
def test_what_is_no_json_is_refused_and_the_old_file_stays_whole(tmp_path: Path, value: object) -> None:
    run = RunDirectory(tmp_path)
    path = run.write_json("report.json", {"loss": 1})
    before = path.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        run.write_json("report.json", {"fine": 1, "loss": [value]})
    assert path.read_bytes() == before
    assert names(tmp_path) == {".lock", "report.json"}


def test_a_write_that_fails_half_way_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)
    run.write_text("report.html", "old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run.write_text("report.html", "new")
    assert (tmp_path / "report.html").read_text() == "old"


def test_files_below_a_stage_are_written_with_their_folder(tmp_path: Path) -> None:
    path = RunDirectory(tmp_path).write_json("gate/decision.json", {"text": "für"})
    assert path.read_text(encoding="utf-8") == '{\n  "text": "für"\n}\n'


def test_events_are_added_one_to_a_line(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.event("stage", stage="data")
    run.event("end", status="done", path=tmp_path)
    first, second = read_lines(tmp_path / "events.jsonl")
    assert (first["event"], first["stage"]) == ("stage", "data")
    assert (second["event"], second["path"]) == ("end", str(tmp_path)) and second["time"] >= first["time"]
