"""Every exported job, by the validators of the systems themselves; scripts/check_exports installs those, apart."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.launch.cases import CASES, carry_out

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / os.environ.get("RUNNER_EXPORTS_ENV", ".exports")
CHECK = ROOT / "scripts" / "check_exports.d" / "check.py"
NOT_HERE = (
    "the validators (SkyPilot's, Kubernetes', Kubeflow's, AWS', shellcheck) are not here: ./scripts/check_exports"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (TOOLS / "bin" / "python").exists(), reason=NOT_HERE),
]


def check(folder: Path) -> tuple[int, str]:
    command = [str(TOOLS / "bin" / "python"), str(CHECK), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_job_is_valid_for_its_system(tmp_path: Path) -> None:
    for case in CASES:
        (tmp_path / case.file).write_text(carry_out(case)[1].text)
    code, said = check(tmp_path)
    assert (code, f"{len(CASES)} jobs: 0 not valid" in said) == (0, True), said


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("small.kubernetes.yaml", "backoffLimit:", "backofLimit:"),
        ("two.kubeflow.yaml", "numProcPerNode:", "numProcsPerNode:"),
        ("two.kubeflow.yaml", "onExitCodes:", "onExitCode:"),
        ("spot.skypilot.yaml", "use_spot:", "use_spots:"),
        ("spot.skypilot.yaml", "job_recovery:", "job_recover:"),
        ("spot.awsbatch.sh", '"attempts": 5', '"attempts": "5"'),
        ("one.slurm.sh", "esac", ""),
    ],
)
def test_a_validator_does_find_what_is_wrong(file: str, right: str, wrong: str, tmp_path: Path) -> None:
    [case] = [case for case in CASES if case.file == file]
    text = carry_out(case)[1].text
    assert right in text
    (tmp_path / case.file).write_text(text.replace(right, wrong))
    assert f"not valid  {file}" in check(tmp_path)[1]
