"""The small image: what answers, checks and plans does so where nothing of the training stack can be imported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from runner.packages import TRAINING

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRA = PROJECT["project"]["optional-dependencies"]["train"]
HEAVY = sorted(re.match(r"[\w-]+", entry)[0].replace("-", "_") for entry in EXTRA)  # type: ignore[index]
BLOCKED = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from runner.cli import main
sys.exit(main(sys.argv[1:]))
"""
MANIFEST = """
name: light
data: {{train: {train}, split: {{dev: 0.1, test: 0.2}}}}
approach: {{kind: lora, model: org/model@main}}
gate: {{task: {task}}}
"""


def light(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED.format(heavy=set(HEAVY)), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def write(folder: Path, train: str, text: str | None = None, task: str = "format") -> Path:
    if text is not None:
        (folder / train).write_text(text)
    (folder / "m.yaml").write_text(MANIFEST.format(train=train, task=task))
    return folder / "m.yaml"


def rows(count: int) -> str:
    return "".join(json.dumps({"prompt": f"Question {i}", "completion": f"Answer {i}"}) + "\n" for i in range(count))


def test_what_a_run_imports_is_what_the_extra_installs() -> None:
    assert {"torch", "transformers", "pyarrow", "scipy", "numpy", "datasets", "openai", "wandb"} <= set(HEAVY)
    assert set(TRAINING) <= set(HEAVY)


def test_manifests_are_checked_and_schemas_printed() -> None:
    assert light("validate", *sorted((ROOT / "manifests").glob("*.yaml"))).returncode == 0
    assert light("validate", "tests/errors/five-faults.yaml").returncode == 78
    assert json.loads(light("schema", "report").stdout)["type"] == "object"


def test_a_report_is_shown_and_its_page_drawn(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests/fixtures/report.json", tmp_path)
    done = light("report", tmp_path)
    assert (done.returncode, "Tuning helped" in done.stdout) == (0, True)
    assert "<html" in (tmp_path / "report.html").read_text()


def test_a_plan_says_what_it_knows_and_who_knows_the_rest() -> None:
    done = light("plan", "manifests/quickstart.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    for told in ("quickstart.yaml:17", "420", "an estimate within a factor of", "[gate/few-rows]", "runner[train]"):
        assert told in done.stdout
    size = next(line for line in done.stdout.splitlines() if "hyperparameters.learning_rate" in line)
    assert "0.001 or 0.0002" in size and "depends on the model's size" in size


@pytest.mark.parametrize(
    ("train", "text", "task", "exit_code", "told"),
    [
        ("gone.jsonl", None, "format", 66, "data/missing"),
        ("bad.jsonl", rows(20) + "{not json\n" * 5, "format", 65, "data/too-many-dropped"),
        ("few.jsonl", rows(20), "format", 3, "gate/too-few-rows"),
        ("wrong.jsonl", rows(1000), "knowledge", 3, "gate/wrong-tool"),
        ("https://data.test/rows.jsonl", None, "format", 0, "not fetched here"),
        ("rows.parquet", "PAR1", "format", 0, "Reading Parquet needs"),
    ],
)
def test_a_plan_ends_as_it_would_end_with_everything_installed(
    tmp_path: Path, train: str, text: str | None, task: str, exit_code: int, told: str
) -> None:
    done = light("plan", write(tmp_path, train, text, task))
    assert (done.returncode, told in done.stdout) == (exit_code, True), done.stdout + done.stderr


def test_a_job_for_a_cluster_is_written() -> None:
    words = ("--set", "resources.image=registry.test/runner:1", "--out", "s3://bucket/prefix")
    done = light("export", "kubernetes", "manifests/quickstart.yaml", *words)
    assert (done.returncode, "kind: Job" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_doctor_says_which_training_packages_are_missing() -> None:
    done = light("doctor", "--format", "json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["training packages"]["status"] == "warning" and "numpy" in checks["training packages"]["what"]
    done = light("doctor", "manifests/quickstart.yaml")
    assert done.returncode == 66, done.stdout + done.stderr
    assert re.search("fail +training packages", done.stdout)


@pytest.mark.parametrize(
    "words", [("manifests/quickstart.yaml", "--log", "text"), ("prepare", "smollm2-135m-instruct")]
)
def test_what_needs_the_training_packages_names_them(tmp_path: Path, words: tuple[str, ...]) -> None:
    out = ("--out", tmp_path / "out") if words[0] != "prepare" else ()
    done = light(*words, *out)
    assert (done.returncode, "[approach/package-missing]" in done.stdout) == (66, True), done.stdout + done.stderr
    assert "numpy" in done.stdout and "Traceback" not in done.stderr
