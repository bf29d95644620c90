"""The batch script, run for real: only SLURM's own commands and Apptainer are stand-ins, which note their calls."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runner.errors import EXIT_CODES
from tests.launch.cases import CASES, carry_out

COMMANDS = {
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "apptainer": 'env > "$LOG/env"; printf "%s\\n" "$@" > "$LOG/apptainer"; trap "exit 75" TERM; '
    '[ -e "$LOG/wait" ] && { touch "$LOG/waiting"; sleep 60 2> /dev/null & wait $!; }; exit "$(cat "$LOG/code")"',
    "scontrol": 'case $1 in show) printf "first\\nsecond\\n";; *) echo "$@" >> "$LOG/scontrol";; esac',
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The folder in which the stand-ins leave word; the one to put into it is `code`."""
    folder = tmp_path / "log"
    folder.mkdir()
    (tmp_path / "bin").mkdir()
    for name, script in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    return folder


def start(label: str, log: Path, code: int, **environment: str) -> subprocess.Popen[str]:
    """The script of a case, as SLURM starts it in the folder where it was submitted."""
    [case] = [case for case in CASES if (case.target, case.label) == ("slurm", label)]
    (log.parent / case.file).write_text(carry_out(case)[1].text.replace("/shared/me", str(log.parent / "shared")))
    (log / "code").write_text(str(code))
    keys = log.parent / "home" / ".runner-keys"
    keys.mkdir(parents=True, exist_ok=True)
    (keys / "JUDGE_KEY").write_text("a key")
    own = {"PATH": f"{log.parent / 'bin'}:{os.environ['PATH']}", "LOG": str(log), "HOME": str(log.parent / "home")}
    own |= {"SLURM_SUBMIT_DIR": str(log.parent), "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-2]"}
    return subprocess.Popen(["bash", case.file], cwd=log.parent, env={**own, **environment}, text=True, stderr=-1)


def requeued(log: Path) -> list[str]:
    path = log / "scontrol"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("code", [*map(int, EXIT_CODES), 1, 137, 139, 143])
def test_only_what_may_pass_is_queued_again_and_the_code_stays(code: int, log: Path) -> None:
    process = start("one", log, code)
    _, said = process.communicate(timeout=30)
    again = code in (137, 143) or any(int(known) == code and meaning.retry for known, meaning in EXIT_CODES.items())
    assert (process.returncode, requeued(log)) == (code, ["requeue 4711"] if again else []), said


@pytest.mark.parametrize(("restarts", "again"), [(0, True), (3, True), (4, False), (9, False)])
def test_queueing_again_has_an_end(restarts: int, again: bool, log: Path) -> None:
    process = start("one", log, 75, SLURM_RESTART_COUNT=str(restarts))
    _, said = process.communicate(timeout=30)
    assert (process.returncode, bool(requeued(log))) == (75, again)
    assert f"attempt {restarts + 1} of 5 ended with 75" in said


def test_a_signal_to_the_shell_waits_for_the_step_and_its_code(log: Path) -> None:
    (log / "wait").touch()
    process = start("one", log, 0)
    deadline = time.monotonic() + 30
    while not (log / "waiting").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None, "the shell is told too, and must not leave before its step"
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)
    process.communicate(timeout=30)
    assert (process.returncode, requeued(log)) == (75, ["requeue 4711"])


def test_the_container_is_given_its_folders_and_keys_by_file(log: Path) -> None:
    start("one", log, 0).communicate(timeout=30)
    words = (log / "apptainer").read_text().splitlines()
    home, job = log.parent / "home" / ".runner-keys", log.parent
    for bind in (f"{job}/runs:/out", f"{job}:/work/job:ro", f"{home}:/run/secrets:ro", f"{job}/cache:/cache"):
        assert bind in words
    assert "docker://registry.example.com/team/runner:0.1.0" in words and "--nv" in words
    environment = (log / "env").read_text().splitlines()
    assert "JUDGE_KEY_FILE=/run/secrets/JUDGE_KEY" in environment
    assert not any(line.startswith("HF_TOKEN") for line in environment), "that file is not there"
    assert (log.parent / "runs").is_dir() and (log.parent / "cache").is_dir()


def test_a_key_that_is_needed_and_not_there_ends_the_job_before_it_begins(log: Path) -> None:
    process = start("one", log, 0, HOME=str(log))
    _, said = process.communicate(timeout=30)
    assert (process.returncode, requeued(log), (log / "apptainer").exists()) == (77, [], False)
    assert ".runner-keys/JUDGE_KEY" in said


def test_several_machines_meet_on_the_first_and_an_array_runs_its_point(log: Path) -> None:
    start("two", log, 0).communicate(timeout=30)
    environment = (log / "env").read_text().splitlines()
    assert {"MASTER_ADDR=first", "MASTER_PORT=30111"} <= set(environment)
    start("sweep", log, 0, SLURM_ARRAY_TASK_ID="3").communicate(timeout=30)
    assert "RUNNER_POINT=3" in (log / "env").read_text().splitlines()
    assert (log.parent / "shared" / "runs").is_dir()
