"""Libraries do not report on themselves, unless the person wants it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from runner.machine.telemetry import SILENT, silence

ROOT = Path(__file__).parents[2]
ASKED = """
import json, os
from runner.backends.local import torch
from huggingface_hub import constants
from wandb import env
print(json.dumps([constants.HF_HUB_DISABLE_TELEMETRY, env.error_reporting_enabled()]))
"""


def test_what_a_person_set_is_kept() -> None:
    environment = {"HF_HUB_DISABLE_TELEMETRY": "0", "WANDB_ERROR_REPORTING": ""}
    silence(environment)
    assert environment == {**SILENT, "HF_HUB_DISABLE_TELEMETRY": "0", "WANDB_ERROR_REPORTING": ""}


def test_the_libraries_themselves_say_that_they_are_silent() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in SILENT}
    done = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [True, False]
