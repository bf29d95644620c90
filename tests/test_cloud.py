"""The page about clusters shows what the exporters write, and commands that exist."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from runner.cli.arguments import make_parser
from runner.launch import TARGETS
from runner.schema import read_schema
from tests.errors import call

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cloud.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_ID = re.compile(r"(?<=brand-voice-)[0-9a-f]{10}\b")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Every command of the page's shell blocks."""
    text = "\n".join(body for kind, body in BLOCK.findall(page()) if kind == "sh").replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line]


def test_every_command_of_ours_on_the_page_is_one() -> None:
    ours = [words[1:] for words in commands() if words[0] == "runner"]
    assert {words[0] for words in ours} == {"validate", "plan", "export", "fetch", "report"}
    for words in ours:
        make_parser().parse_args(words)


def test_every_command_that_is_not_ours_is_one_that_we_know() -> None:
    assert {words[0] for words in commands()} == {"runner", "docker", "aws", "pip", "sky", "export"}


def test_the_job_that_is_shown_is_the_one_that_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a deliberate change: UPDATE_GOLDEN=1 pytest tests/test_cloud.py."""
    monkeypatch.chdir(ROOT)
    [words] = [words[1:] for words in commands() if words[:2] == ["runner", "export"]]
    file = words[words.index("--output") + 1]
    words[words.index("--output") + 1] = str(tmp_path / file)
    assert call(*words)[0] == 0
    made = (tmp_path / file).read_text().replace(str(tmp_path / file), file)
    body = made[made.index("\nname: ") + 1 :]
    (shown,) = re.findall(r"--output \S+\n```\n\n```yaml\n(.*?)```", page(), re.DOTALL)
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page().replace(f"```yaml\n{shown}```", f"```yaml\n{body}```", 1), encoding="utf-8")
        return
    assert RUN_ID.sub("ID", shown) == RUN_ID.sub("ID", body)


def test_the_submission_that_is_shown_is_the_one_in_the_jobs_head() -> None:
    """But for what stands for keys that may be missing."""
    for words in commands():
        if words[:3] == ["sky", "jobs", "launch"]:
            assert words[-1] == "brand-voice.sky.yaml"
            task = yaml.safe_load(re.findall(r"```yaml\n(name: .*?)```", page(), re.DOTALL)[0])
            assert {word.removeprefix("--secret=") for word in words if word.startswith("--secret=")} <= set(
                task["secrets"]
            )


def test_the_page_has_every_target_and_every_key() -> None:
    titles = {"skypilot": "SkyPilot", "kubernetes": "Kubernetes", "kubeflow": "Kubeflow", "slurm": "SLURM"}
    assert {f"## {titles.get(name, 'AWS Batch')}" for name in TARGETS} <= set(page().splitlines())
    keys = read_schema("manifest")["properties"]["resources"]["properties"]
    assert [key for key in keys if f"`{key}" not in page() and f"  {key}:" not in page()] == []
