"""Runs as their directories tell them: finished, under way, killed, torn, and folders that are no runs at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit, RunnerError
from runner.lease import LEASE_SECONDS
from runner.records import find_runs, read_record
from runner.rundir import RunDirectory, is_held
from tests.errors import call
from tests.test_light import HEAVY

ROOT = Path(__file__).parents[1]
REPORT = json.loads((ROOT / "tests" / "fixtures" / "report.json").read_text())


def make_run(folder: Path, *events: str, report: Any = REPORT, run_id: str = REPORT["run_id"]) -> Path:
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / "run.lock.json").write_text(json.dumps({"run_id": run_id}))
    if report is not None:
        (folder / "report.json").write_text(report if isinstance(report, str) else json.dumps(report))
    lines = [json.dumps({"event": name}) for name in events or ("attempt", "stage", "end")]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_finished_run_tells_its_verdict_scores_cost_and_date(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "quickstart-3f9c1d27ab"))
    assert (record.name, record.run_id, record.status) == ("quickstart", "3f9c1d27ab", "done")
    assert (record.verdict, record.dev_loss, record.usd) == ("improved", 0.2504, 0.0177418)
    assert record.score is not None
    assert (record.score.metric, record.score.base, record.score.tuned) == ("exact_match", 0.0, 0.586667)
    assert (record.score.difference, record.score.ci_low, record.score.ci_high) == (0.586667, 0.48, 0.693333)
    assert record.started_at == "2025-11-22T13:02:11+00:00"


@pytest.mark.parametrize("status", ["refused", "failed", "interrupted"])
def test_a_run_that_ended_otherwise_says_so(tmp_path: Path, status: str) -> None:
    parts = dict.fromkeys(("evaluation", "training", "cost", "verdict", "model"))
    record = read_record(make_run(tmp_path / "a-1", report={**REPORT, "status": status, **parts}))
    assert (record.status, record.score, record.dev_loss) == (status, None, None)


def test_a_run_whose_directory_is_held_is_running(tmp_path: Path) -> None:
    make_run(tmp_path / "a-1", "attempt", report=None)
    run = RunDirectory(tmp_path / "a-1")
    assert read_record(tmp_path / "a-1").status == "running"
    run.close()
    assert read_record(tmp_path / "a-1").status == "killed"


def test_a_run_on_a_mount_without_locks_is_running_while_its_lease_is_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.rundir.is_local", lambda _: False)
    folder = make_run(tmp_path / "a-1", "attempt", report=None)
    (folder / ".lease").touch()
    assert read_record(folder).status == "running"
    old = time.time() - LEASE_SECONDS - 1
    os.utime(folder / ".lease", (old, old))
    assert read_record(folder).status == "killed"


def test_a_runner_may_start_while_somebody_looks(tmp_path: Path) -> None:
    """Looking takes the lock for an instant, and a runner that starts just then is not turned away."""
    RunDirectory(tmp_path).close()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            is_held(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(300):
            RunDirectory(tmp_path).close()
    finally:
        over.set()
        looking.join()


@pytest.mark.parametrize(
    "events", [("attempt",), ("attempt", "end", "attempt", "stage"), ("attempt", *["saved"] * 5000)]
)
def test_a_run_that_nobody_ended_was_killed(tmp_path: Path, events: tuple[str, ...]) -> None:
    assert read_record(make_run(tmp_path / "a-1", *events)).status == "killed"


def test_a_report_of_an_earlier_run_is_not_this_ones(tmp_path: Path) -> None:
    assert read_record(make_run(tmp_path / "a-1", run_id="another")).status == "killed"


TORN = ['{"status": "do', "", "null", "[]", "\x00\xff", "[" * 100_000]
FOREIGN = [{}, {"status": 3, "evaluation": []}, {"evaluation": {"comparisons": [3, {"against": "base"}]}}]


@pytest.mark.parametrize("text", TORN)
@pytest.mark.parametrize("name", ["run.lock.json", "report.json"])
def test_a_torn_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    folder = make_run(tmp_path / "quick-1")
    (folder / name).write_text(text)
    record = read_record(folder)
    assert (record.status, record.note, record.name) == ("torn", f"{name} cannot be read", "quick")


@pytest.mark.parametrize("report", FOREIGN)
def test_a_report_of_another_make_is_no_traceback(tmp_path: Path, report: Any) -> None:
    record = read_record(make_run(tmp_path / "a-1", report={**report, "run_id": REPORT["run_id"]}))
    assert record.status == "torn" and record.verdict is None


def test_runs_are_found_below_and_what_holds_none_is_named(tmp_path: Path) -> None:
    make_run(tmp_path / "b-1")
    make_run(tmp_path / "tickets-sweep" / "rank=8-2")
    make_run(tmp_path / "b-1" / "inner-3")
    (tmp_path / "photos" / "summer").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    runs, others = find_runs(tmp_path)
    direct = [path.relative_to(tmp_path) for path in runs if "loop" not in path.parts]
    assert list(map(str, direct)) == ["b-1", "tickets-sweep/rank=8-2"]
    assert others == [tmp_path / "photos"]
    assert find_runs(tmp_path / "b-1") == ([tmp_path / "b-1"], [])


def test_the_report_of_a_faulty_manifest_is_a_run_that_failed(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", "end", report={**REPORT, "status": "failed", "run_id": None, "name": None})
    (folder / "run.lock.json").unlink()
    assert [read_record(path).status for path in find_runs(tmp_path)[0]] == ["failed"]


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_list_is_a_table_the_newest_last(tmp_path: Path) -> None:
    make_run(tmp_path / "new-1", report={**REPORT, "started_at": "2026-02-01T00:00:00+00:00", "name": "new"})
    make_run(tmp_path / "old-2", report={**REPORT, "started_at": "2026-01-01T00:00:00+00:00", "name": "old"})
    (tmp_path / "other").mkdir()
    code, said = call("list", str(tmp_path))
    lines = said.splitlines()
    assert (code, [line.split()[0] for line in lines[:3]]) == (Exit.DONE, ["name", "old", "new"])
    assert "+0.587 (+0.480 to +0.693)" in lines[1] and "2026-01-01 00:00" in lines[1]
    assert lines[3:] == ["2 runs", f"no run of ours in: {tmp_path / 'other'}"]


def test_the_list_is_data_for_programs(tmp_path: Path) -> None:
    make_run(tmp_path / "a-1")
    code, said = call("list", str(tmp_path), "--format", "json")
    (run,) = json.loads(said)["runs"]
    assert (code, run["status"], run["score"]["tuned"]) == (Exit.DONE, "done", 0.586667)


def test_a_folder_that_is_not_there_is_a_problem_and_the_others_are_shown(tmp_path: Path) -> None:
    make_run(tmp_path / "a-1")
    code, said = call("list", str(tmp_path / "gone"), str(tmp_path))
    assert (code, "1 run" in said, "[list/unreadable]" in said) == (Exit.INPUT_MISSING, True, True)


def test_names_from_a_report_cannot_steer_the_terminal_or_break_a_line(tmp_path: Path) -> None:
    make_run(tmp_path / "a-1", report={**REPORT, "name": "x\x1b[2J\nrow"})
    _, said = call("list", str(tmp_path))
    assert "\x1b" not in said and len(said.splitlines()) == 3


def test_three_hundred_runs_are_listed_without_anything_heavy(tmp_path: Path) -> None:
    first = make_run(tmp_path / "runs" / "a-000")
    for i in range(1, 300):
        shutil.copytree(first, tmp_path / "runs" / f"a-{i:03}")
    code = (
        f"import sys\nfrom runner.cli import main\ncode = main(['list'])\nassert not {set(HEAVY)} & set(sys.modules)\n"
    )
    started = time.monotonic()
    command = [sys.executable, "-c", f"{code}sys.exit(code)"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert time.monotonic() - started < 5 * float(os.environ.get("RUNNER_TEST_SLOWNESS", "2"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "300 runs"), done.stderr


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_place_without_runs_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs")
    code, said = call("list")
    there = (tmp_path / "runs").exists()
    assert (code, said.splitlines()[0] == "0 runs") == ((Exit.DONE, True) if there else (Exit.INPUT_MISSING, False))


def test_a_listed_folder_is_left_as_it_was(tmp_path: Path) -> None:
    make_run(tmp_path / "a-1")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    call("list", str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_second_runner_is_still_turned_away(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(RunnerError, match="Another run is working"):
        RunDirectory(tmp_path)
    run.close()
