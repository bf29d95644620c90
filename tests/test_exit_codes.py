"""Every exit code of the table, reached by the real command for a real reason."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import EXIT_CODES, Exit

ROOT = Path(__file__).parents[1]
QUICK = {"gate": {"policy": "warn", "reason": "a test"}, "hyperparameters": {"epochs": 0.2}}
Write = Callable[..., Path]


class Cli:
    """The command in processes of its own, with a cache and an output of the test's own."""

    def __init__(self, folder: Path, write: Write):
        self.folder, self.write = folder, write
        self.out = folder / "out"

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "RUNNER_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT), **more}

    def start(self, *arguments: str | Path, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "runner", *map(str, arguments)]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *arguments: str | Path, **more: str) -> int:
        process = self.start(*arguments, **more)
        self.said, _ = process.communicate(timeout=300)
        return process.returncode

    def run(self, *arguments: str, quick: bool = True, **changes: Any) -> int:
        return self(self.write(**(QUICK if quick else {}), **changes), "--out", self.out, *arguments)


def done(cli: Cli) -> int:
    """Once more when nothing is left to do, which changes nothing and is soon over."""
    assert cli.run() == Exit.DONE
    before = {path: path.stat().st_mtime_ns for path in cli.out.rglob("*")}
    started = time.monotonic()
    code = cli.run()
    assert time.monotonic() - started < 2 * float(os.environ.get("RUNNER_TEST_SLOWNESS", "2"))
    assert {path: path.stat().st_mtime_ns for path in cli.out.rglob("*")} == before
    return code


def said_no(cli: Cli) -> int:
    return cli.run("--set", "budget.max_hours=0.0000001")


def usage(cli: Cli) -> int:
    return cli("--nonsense")


def data_rejected(cli: Cli) -> int:
    manifest = cli.write()
    (cli.folder / "rows.jsonl").write_text('{"prompt": "a", "completion": ""}\n' * 9)
    return cli(manifest, "--out", cli.out)


def input_missing(cli: Cli) -> int:
    return cli("missing.yaml")


def unavailable(cli: Cli) -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        end = {"base_url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "model": "m", "timeout_seconds": 1}
        judge = {"endpoint": end, "rubric": "Which is better?"}
        return cli.run(eval={"metrics": ["judge"], "judge": judge})


def internal(cli: Cli) -> int:
    """Attempts that die again and again before anything is saved."""
    manifest = cli.write(checkpoint={"every_steps": 1000}, **QUICK)
    for _ in range(3):
        process = cli.start(manifest, "--out", cli.out)
        wait_for(lambda: (cli.out / "events.jsonl").exists() and "stage" in last_event(cli.out), process)
        process.kill()
        process.wait()
        (cli.out / "events.jsonl").open("a").write('{"torn')
    return cli(manifest, "--out", cli.out)


def unusable(cli: Cli) -> int:
    cli.out.mkdir()
    (cli.out / "somebody's.txt").touch()
    return cli.run()


def io_failed(cli: Cli) -> int:
    small = cli.folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("NOT TESTED: no disk can be mounted here")
    try:
        cli.out = small / "out"
        return cli.run()
    finally:
        subprocess.run(["umount", small], check=True)


def interrupted(cli: Cli) -> int:
    process = cli.start(cli.write(**QUICK), "--out", cli.out)
    wait_for(lambda: (cli.out / "events.jsonl").exists(), process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert json.loads((cli.out / "report.json").read_text())["status"] == "interrupted"
    return process.returncode


def credentials(cli: Cli) -> int:
    end = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": "NO_SUCH_KEY"}
    judge = {"endpoint": end, "rubric": "Which is better?"}
    return cli.run(eval={"metrics": ["judge"], "judge": judge})


def invalid(cli: Cli) -> int:
    return cli.run(seed="seven")


REACHED: dict[Exit, Callable[[Cli], int]] = {
    Exit.DONE: done,
    Exit.SAID_NO: said_no,
    Exit.USAGE: usage,
    Exit.DATA_REJECTED: data_rejected,
    Exit.INPUT_MISSING: input_missing,
    Exit.UNAVAILABLE: unavailable,
    Exit.BUG: internal,
    Exit.RUN_DIRECTORY: unusable,
    Exit.IO: io_failed,
    Exit.INTERRUPTED: interrupted,
    Exit.CREDENTIALS: credentials,
    Exit.MANIFEST: invalid,
}


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def last_event(out: Path) -> str:
    return (out / "events.jsonl").read_text().splitlines()[-1]


@pytest.fixture
def cli(tmp_path: Path, write_experiment: Write) -> Cli:
    return Cli(tmp_path, write_experiment)


def test_every_code_of_the_table_has_its_case() -> None:
    assert set(REACHED) == set(EXIT_CODES)


@pytest.mark.slow
@pytest.mark.parametrize("code", sorted(EXIT_CODES))
def test_each_code_is_reached(code: Exit, cli: Cli) -> None:
    assert REACHED[code](cli) == code, getattr(cli, "said", "")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0])
def test_a_request_to_stop_counts_from_the_first_line(delay: float, cli: Cli) -> None:
    """Before Python runs a line of ours the system's default action ends the process, which is retried as well."""
    process = cli.start(cli.write(**QUICK), "--out", cli.out)
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED or (delay < 0.1 and process.returncode == -signal.SIGTERM), said
    assert time.monotonic() - asked < 10
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_second_runner_is_refused_soon_while_the_first_works(cli: Cli) -> None:
    manifest = cli.write(**QUICK)
    first = cli.start(manifest, "--out", cli.out)
    wait_for(lambda: (cli.out / "run.lock.json").exists(), first)
    started = time.monotonic()
    second = cli.start(manifest, "--out", cli.out)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == Exit.RUN_DIRECTORY, said
    assert "Another run is working in this directory" in said
    assert time.monotonic() - started < 2 * float(os.environ.get("RUNNER_TEST_SLOWNESS", "2"))
    assert first.poll() is None
    first.kill()
    first.wait()
    assert cli(manifest, "--out", cli.out, "--set", "budget.max_hours=0.0000001") == Exit.SAID_NO, "its lock is free"
