"""The audit of dependencies never takes what it could not look up for clean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

VERDICT = Path(__file__).parents[1] / "scripts" / "audit.d" / "verdict.py"
CLEAN = {"name": "a", "version": "1", "vulns": []}
FAULTY = {"name": "b", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"], "aliases": []}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ({"dependencies": [CLEAN, CLEAN]}, 0, "2 packages looked up, 0 vulnerabilities"),
        ({"dependencies": [CLEAN, FAULTY]}, 1, "b 1: CVE-1; fixed in 2"),
        ({"dependencies": [FAULTY, UNKNOWN]}, 1, "1 not looked up: c"),
        ({"dependencies": [CLEAN, UNKNOWN]}, 69, "1 not looked up: c"),
        ({"dependencies": []}, 69, "0 packages looked up"),
        (None, 69, "0 packages looked up"),
    ],
)
def test_only_what_was_looked_up_is_clean(found: Any, code: int, said: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps(found) if found else "")
    done = subprocess.run([sys.executable, VERDICT, report], capture_output=True, text=True)
    assert done.returncode == code and said in done.stdout
