"""SIGTERM and Ctrl-C, whenever they come: exit 75 soon, a report that says so, nothing left behind, and a second run
that finishes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.cli import main
from runner.errors import Exit, Problem, Refused
from runner.stopping import Stop, StopNow
from runner.tracking import open_tracker
from tests.fakes import make_test_plan

Write = Callable[..., Path]
ROOT = Path(__file__).parents[1]
SOON_SECONDS = 5.0 * float(os.environ.get("RUNNER_TEST_SLOWNESS", "2"))  # 1 is the bar on a quiet machine
QUICK = {"gate": {"policy": "warn", "reason": "a test"}, "hyperparameters": {"epochs": 0.2}}


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def ask_and_go_on() -> None:
    ask()
    time.sleep(30)


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    stop.listen()
    yield stop
    stop.restore()


def report_in(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def assert_interrupted(out: Path, stage: str) -> None:
    """The report says that it was interrupted, and when, and names no fault."""
    report = report_in(out)
    assert (report["status"], report["exit_code"]) == ("interrupted", Exit.INTERRUPTED)
    (problem,) = (p for p in report["problems"] if p["code"].startswith("run/") or p["severity"] == "error")
    assert (problem["code"], f"'{stage}'" in problem["what"]) == ("run/interrupted", True), problem


def assert_finishes(manifest: Path, out: Path) -> None:
    """The same command, started again, carries the run to its end."""
    assert main([str(manifest), "--out", str(out)]) == Exit.DONE
    assert report_in(out)["status"] == "done"


# --- the request ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_is_remembered_and_raises_nothing_where_work_may_not_be_cut_short(
    stop: Stop, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not stop()
    os.kill(os.getpid(), number)
    assert stop() and stop.decide()
    assert "once more" in capfd.readouterr().err


def test_a_request_cuts_short_what_may_be_cut_short_and_only_while_it_may(stop: Stop) -> None:
    started = time.monotonic()
    with pytest.raises(StopNow), stop.interruptible():
        ask_and_go_on()
    assert time.monotonic() - started < 0.9
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0, "it is not raised again"


def test_a_request_that_came_before_counts(stop: Stop) -> None:
    ask()
    with pytest.raises(StopNow), stop.interruptible():
        raise AssertionError("this must not be reached")


def test_a_request_after_it_is_not_raised(stop: Stop) -> None:
    with stop.interruptible():
        pass
    ask()
    assert stop()


def test_inside_and_outside_each_have_their_own_grace(stop: Stop) -> None:
    def leave_and_ask() -> None:
        with stop.interruptible(grace_seconds=60):
            pass
        ask_and_go_on()

    def ask_inside() -> None:
        with stop.interruptible():
            ask_and_go_on()

    started = time.monotonic()
    with pytest.raises(StopNow), stop.interruptible():
        leave_and_ask()
    stop.asked = False
    with pytest.raises(StopNow), stop.interruptible(grace_seconds=60):
        ask_inside()
    assert time.monotonic() - started < 0.9


def test_a_library_that_swallows_every_error_is_cut_short_at_once(stop: Stop) -> None:
    def swallow_errors() -> None:
        with contextlib.suppress(Exception):
            ask_and_go_on()
        time.sleep(30)

    started = time.monotonic()
    with pytest.raises(StopNow), stop.interruptible():
        swallow_errors()
    assert time.monotonic() - started < 0.9, "it is not the alarm that raised it"


@pytest.mark.parametrize("earlier", [False, True])
def test_a_grace_is_given_and_ends(stop: Stop, earlier: bool) -> None:
    if earlier:
        ask()
    started = time.monotonic()
    with pytest.raises(StopNow), stop.interruptible(grace_seconds=0.2):
        time.sleep(30) if earlier else ask_and_go_on()
    assert 0.15 < time.monotonic() - started < 2


def test_work_that_ends_within_its_grace_is_left_alone(stop: Stop) -> None:
    ask()
    cut_short = False
    try:
        with stop.interruptible(grace_seconds=0.05):
            pass
        time.sleep(0.1)
    except StopNow:
        cut_short = True
    assert not cut_short and stop()


def test_a_request_that_gets_lost_is_raised_again(stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.stopping.AGAIN_SECONDS", 0.05)
    with pytest.raises(StopNow), stop.interruptible():
        swallowing()


def test_the_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    stop = Stop()
    stop.listen()
    assert signal.getsignal(signal.SIGTERM) != before[0]
    stop.restore()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)] == before


@pytest.mark.parametrize(
    "act",
    [
        "ask(); ask()",
        "stop.decide(); ask()",
        "ask(); stop.decide()\nwith stop.interruptible(0.05): time.sleep(30)",
    ],
)
def test_a_second_request_or_one_after_all_is_decided_ends_the_process(act: str) -> None:
    setting = "import os, signal, time\nfrom runner.stopping import Stop\nstop = Stop()\nstop.listen()\n"
    setting += "def ask(): os.kill(os.getpid(), signal.SIGTERM)\n"
    code = setting + act + "\ntime.sleep(30)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=20).returncode == Exit.INTERRUPTED


# --- every stage ----------------------------------------------------------------------------------------------------

STAGES = {
    "plan": "make_plan",
    "data": "prepare_data",
    "cost": "estimate_cost",
    "gate": "decide",
    "train": "train",
    "evaluate": "evaluate",
    "roi": "compute_roi",
}


def asking(verb: Callable[..., Any], *, late: bool) -> Callable[..., Any]:
    """The verb, with a request that comes as it begins or as it ends."""

    def act(*args: Any, **named: Any) -> Any:
        if not late:
            ask()
        done = verb(*args, **named)
        if late:
            ask()
        return done

    return act


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["begin", "end"])
def test_a_request_in_any_stage_ends_with_75_and_the_same_command_finishes(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    manifest, out = write_experiment(**QUICK), tmp_path / "out"
    for stage, name in STAGES.items():
        with monkeypatch.context() as patch:
            verb = __import__("runner.pipeline", fromlist=[name]).__dict__[name]
            patch.setattr(f"runner.pipeline.{name}", asking(verb, late=late))
            started = time.monotonic()
            assert main([str(manifest), "--out", str(out)]) == Exit.INTERRUPTED, stage
        assert time.monotonic() - started < 60
        assert_interrupted(out, stage)
    assert_finishes(manifest, out)


def wrapping(*_: object, **__: object) -> None:
    """A library that makes its own error of whatever cuts it short."""
    try:
        ask()
    except BaseException as error:
        raise ImportError("could not import module") from error


def swallowing(*_: object, **__: object) -> None:
    """A library that lets nothing through at first."""
    with contextlib.suppress(BaseException):
        ask()
    time.sleep(30)


def failing(*_: object) -> None:
    """What breaks because it was asked to stop."""
    ask()
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("stage", "act"),
    [("plan", wrapping), ("plan", swallowing), ("train", failing)],
    ids=["wraps", "swallows", "breaks"],
)
def test_whatever_becomes_of_a_request_it_is_no_bug_of_ours(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, act: Callable[..., None]
) -> None:
    monkeypatch.setattr(f"runner.pipeline.{STAGES[stage]}", act)
    started = time.monotonic()
    assert main([str(write_experiment(**QUICK)), "--out", str(tmp_path / "out")]) == Exit.INTERRUPTED
    assert time.monotonic() - started < 20
    assert_interrupted(tmp_path / "out", stage)


def test_training_looks_for_itself_and_is_not_cut_short(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    went_on = []

    def save(*_: object) -> None:
        ask()
        went_on.append("saved")

    monkeypatch.setattr("runner.pipeline.train", save)
    assert main([str(write_experiment(**QUICK)), "--out", str(tmp_path / "out")]) == Exit.INTERRUPTED
    assert went_on == ["saved"]
    assert_interrupted(tmp_path / "out", "train")


@pytest.mark.parametrize("act", [swallowing, wrapping])
@pytest.mark.parametrize("name", ["runner.cli.opening.load_manifest", "runner.cli.running.identify"])
def test_a_request_before_the_run_directory_is_taken_leaves_none(
    write_experiment: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    act: Callable[..., None],
) -> None:
    monkeypatch.setattr(name, act)
    assert main([str(write_experiment()), "--out", str(tmp_path / "out")]) == Exit.INTERRUPTED
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_a_request_to_any_verb_is_honoured(
    write_experiment: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runner.cli.opening.load_manifest", lambda *_, **__: ask())
    assert main(["validate", str(write_experiment())]) == Exit.INTERRUPTED
    assert "[run/interrupted]" in capsys.readouterr().out


@pytest.mark.slow
def test_a_request_while_the_report_is_written_leaves_a_finished_run(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = write_experiment(**QUICK), tmp_path / "out"
    with monkeypatch.context() as patch:
        verb = __import__("runner.attempt", fromlist=["render_html"]).render_html
        patch.setattr("runner.attempt.render_html", asked_once(verb))
        assert main([str(manifest), "--out", str(out)]) == Exit.INTERRUPTED
    assert capsys.readouterr().out.splitlines()[-1] == f"next    runner {manifest} --out {out}"
    assert report_in(out)["status"] == "done"
    before = (out / "report.json").stat().st_mtime_ns
    assert_finishes(manifest, out)
    assert (out / "report.json").stat().st_mtime_ns == before


def asked_once(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb, with a request that comes the first time."""
    times: list[None] = []

    def act(*args: Any) -> Any:
        if not times:
            ask()
        times.append(None)
        return verb(*args)

    return act


# --- the tracker ----------------------------------------------------------------------------------------------------


class HangingRun:
    """A tracked run whose server no longer answers."""

    url = None

    def __init__(self, asks: bool):
        self.asks = asks
        self.summary: dict[str, Any] = {}
        self.was_finished = False

    def log(self, values: dict[str, float], step: int | None) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        self.was_finished = True
        if self.asks:
            ask()
        time.sleep(60)


def refusing(*_: object) -> None:
    raise Refused(Problem(code="gate/x", what="No."))


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_tracker_that_hangs_is_not_waited_for(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    manifest, out = write_experiment(tracking={"wandb": "auto"}, **QUICK), tmp_path / "out"
    hanging = HangingRun(asks=moment == "meanwhile")
    monkeypatch.setattr("runner.backends.wandb._open", lambda settings: hanging)
    monkeypatch.setattr("runner.backends.wandb.FINISH_GRACE_SECONDS", 0.2)
    monkeypatch.setattr("runner.pipeline.estimate_cost", refusing if moment == "meanwhile" else lambda *_: ask())
    started = time.monotonic()
    assert main([str(manifest), "--out", str(out)]) == Exit.INTERRUPTED
    assert time.monotonic() - started < 30
    assert hanging.was_finished
    report = report_in(out)
    assert "asked to stop" in report["tracking"]["note"]
    assert report["status"] == ("interrupted" if moment == "before" else "refused")


def test_a_tracked_run_goes_on_where_the_server_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("wandb.init", lambda **named: given.update(named))
    plan, folder = make_test_plan("tracking.wandb=auto"), tmp_path / "wandb"
    folder.mkdir()
    for seconds in (7.0, 8.0):
        monkeypatch.setattr("time.time", lambda now=seconds: now)
        open_tracker(plan, "0123", folder, {}, "offline", None)
        assert (given["id"], given["resume"]) == ("0123-7", "allow")
    shutil.rmtree(folder)
    folder.mkdir()
    open_tracker(plan, "0123", folder, {}, "offline", None)
    assert given["id"] == "0123-8", "a run made anew is another"


# --- the process ----------------------------------------------------------------------------------------------------


def spawn(manifest: Path, out: Path, mark: str) -> subprocess.Popen[str]:
    """The command as a person starts it. `mark` stands in the environment of all that it starts."""
    command = [sys.executable, "-m", "runner", str(manifest), "--out", str(out)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "RUNNER_TEST_MARK": mark}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(process: subprocess.Popen[str], moment: str) -> None:
    """Returns when the process has printed a line that begins so."""
    assert process.stdout is not None
    assert any(line.startswith(moment) for line in process.stdout), f"the run ended before '{moment}'"


def terminate(process: subprocess.Popen[str]) -> str:
    """Asks the process to stop, which it must soon, with 75; returns what it said as a fault."""
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, said
    assert time.monotonic() - asked < SOON_SECONDS
    return said


def processes_with(mark: str) -> list[str]:
    """The command lines of the processes that were started with the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"RUNNER_TEST_MARK={mark}".encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def assert_nothing_left(mark: str) -> None:
    """A service of W&B looks twice a second whether its parent lives."""
    end = time.monotonic() + 3
    while (left := processes_with(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.8])
def test_a_request_while_the_first_modules_are_imported_ends_the_process_at_once(
    write_experiment: Write, tmp_path: Path, seconds: float
) -> None:
    mark = uuid.uuid4().hex
    process = spawn(write_experiment(**QUICK), tmp_path / "out", mark)
    while not catches_sigterm(process.pid):
        time.sleep(0.005)
    time.sleep(seconds)
    assert "Traceback" not in terminate(process)
    assert_nothing_left(mark)


def catches_sigterm(pid: int) -> bool:
    """Whether the process has a handler of its own for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_a_request_while_the_backend_is_imported_leaves_a_report(
    write_experiment: Write, tmp_path: Path, seconds: float
) -> None:
    mark = uuid.uuid4().hex
    process = spawn(write_experiment(**QUICK), tmp_path / "out", mark)
    wait_for(process, "== plan")
    time.sleep(seconds)
    assert "Traceback" not in terminate(process)
    assert_interrupted(tmp_path / "out", "plan")
    assert_nothing_left(mark)


@pytest.mark.slow
def test_a_stopped_attempt_leaves_no_process_and_the_next_is_the_same_tracked_run(
    write_experiment: Write, tmp_path: Path
) -> None:
    manifest, out, mark = write_experiment(tracking={"wandb": "auto"}, **QUICK), tmp_path / "out", uuid.uuid4().hex
    process = spawn(manifest, out, mark)
    wait_for(process, "== train")
    assert any("wandb-core" in command for command in processes_with(mark)), "the tracker has a process of its own"
    assert "Traceback" not in terminate(process)
    assert_interrupted(out, "train")
    assert_nothing_left(mark)
    assert_finishes(manifest, out)
    first, second = sorted((out / "wandb").rglob("*.wandb"))
    assert first.name == second.name, "the attempts go on under one id"
    assert b"train/loss" in second.read_bytes(), "the last attempt has the whole curve"
