"""Standard output and error that are closed, full, or read by nobody: no reason to stop, nor to end otherwise."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.errors import Exit
from runner.streams import LastingStream

ROOT = Path(__file__).parents[1]
QUICKSTART = str(ROOT / "manifests" / "quickstart.yaml")


class Failing(io.StringIO):
    def __init__(self, error: OSError):
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_what_nobody_reads_any_more_is_dropped() -> None:
    stream = LastingStream(Failing(BrokenPipeError()))
    assert print("lost", file=stream, flush=True) is None
    assert isinstance(stream.fault, BrokenPipeError)


def test_a_full_disk_is_raised_unless_the_work_is_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        print("lost", file=LastingStream(Failing(error)))
    print("lost", file=LastingStream(Failing(error), lasts_always=True))
    assert (
        capsys.readouterr().err == "What is printed is lost from here on: No space left on device. The work goes on.\n"
    )


def test_a_stream_that_works_gets_everything() -> None:
    held = io.StringIO()
    print("kept", file=LastingStream(held), flush=True)
    assert held.getvalue() == "kept\n"


def command(shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, QUICKSTART],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "shell",
    [
        '"$1" -m runner validate "$2" | true; exit ${PIPESTATUS[0]}',
        '"$1" -m runner schema 2>&1 | head -1 >&2; exit ${PIPESTATUS[0]}',
        '"$1" -m runner validate "$2" >&-',
        '"$1" -m runner validate "$2" <&- >&- 2>&-',
    ],
)
def test_a_closed_output_does_not_change_the_exit_code(shell: str) -> None:
    done = command(shell)
    assert done.returncode == Exit.DONE
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr


@pytest.mark.slow
def test_a_run_whose_reader_goes_away_is_carried_to_its_end(tiny_model: Path, tmp_path: Path) -> None:
    from tests.whole_runs import make_experiment

    made = make_experiment(tmp_path, tiny_model, num_steps=3)
    environment = made.environment("reader")
    shell = f'"$1" -m runner {made.manifest} --out {tmp_path / "out"} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}'
    done = command(shell, **{**environment, "RUNNER_LOG": "auto"})
    assert done.returncode == Exit.DONE, done.stdout
    assert json.loads((tmp_path / "out" / "report.json").read_text())["status"] == "done"
