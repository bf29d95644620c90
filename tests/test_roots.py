"""Where the environment limits it, a manifest names files in its own folder, the working directory and the roots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit
from tests.errors import call

CANARY = '{"prompt": "canary-of-a-file", "completion": "x"}\n'
JUDGE = {"endpoint": {"base_url": "http://a.test/v1", "model": "m"}, "rubric": "r"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for manifests and, beside it, one that holds what nobody should open."""
    outside, inside, root = (tmp_path / name for name in ("outside", "inside", "root"))
    for folder in (outside, inside, root, outside / "model", inside / "model"):
        folder.mkdir()
    for path in (outside / "secret.jsonl", outside / "model" / "config.json", outside / "mine.py", root / "rows.jsonl"):
        path.write_text(CANARY)
    (inside / "rows.jsonl").write_text(CANARY)
    (inside / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (inside / "folder").symlink_to(outside)
    (inside / "mine.py").symlink_to(outside / "mine.py")
    (inside / "loop").symlink_to(inside / "loop")
    (inside / "model" / "config.json").symlink_to(outside / "model" / "config.json")
    monkeypatch.chdir(inside)
    monkeypatch.setenv("HOME", str(outside))
    monkeypatch.setenv("RUNNER_ROOTS", f"{root}:/no/such/folder")
    return inside


def manifest(folder: Path, **changes: Any) -> str:
    values: dict[str, Any] = {
        "name": "m",
        "data": {"train": "rows.jsonl"},
        "approach": {"kind": "lora", "model": "smollm2-135m-instruct"},
        "gate": {"task": "style"},
    }
    for section, value in changes.items():
        values[section] = {**values.get(section, {}), **value}
    (folder / "m.yaml").write_text(json.dumps(values))
    return str(folder / "m.yaml")


ESCAPES = ["../outside/secret.jsonl", "{outside}/secret.jsonl", "~/secret.jsonl", "link.jsonl", "folder/secret.jsonl"]
ODD = ["loop", "x@/../../outside/secret.jsonl", "file://{outside}/secret.jsonl", "local://{outside}/secret.jsonl"]
SCHEMES = [
    "file:///etc/passwd",
    "sftp://a.test/x",
    "zip://a.zip",
    "simplecache::file:///etc/passwd",
    "FILE:///etc/passwd",
]


def named(key: str, path: str) -> dict[str, Any]:
    """The changes of a manifest that name a path at a key."""
    return {
        "data.train": {"data": {"train": path}},
        "data.dev": {"data": {"dev": [path]}},
        "data.test": {"data": {"test": {"source": path}["source"]}},
        "data.train.0.source": {"data": {"train": [{"source": path}]}},
        "data.mix.0.source": {"data": {"mix": [{"source": path, "rows": 1}]}},
        "eval.json_schema": {"eval": {"metrics": ["json_valid"], "json_schema": path}},
        "eval.judge.human": {"eval": {"judge": {**JUDGE, "human": path}}},
        "approach.model": {"approach": {"model": path}},
        "eval.embedding": {"eval": {"embedding": path}},
    }[key]


FILES = ["data.train", "data.dev", "data.test", "data.train.0.source", "data.mix.0.source"]
PLAIN = ["eval.json_schema", "eval.judge.human"]
MODELS = ["approach.model", "eval.embedding"]
PLAIN_ESCAPES = ["../outside/secret.jsonl", "{outside}/secret.jsonl", "link.jsonl", "loop"]
MODEL_ESCAPES = ["../outside/model", "{outside}/model", "~/model", "./folder/model", "./model"]
CASES = [
    *((key, path) for key in FILES for path in [*ESCAPES, *ODD, *SCHEMES]),
    *((key, path) for key in PLAIN for path in PLAIN_ESCAPES),
    *((key, path) for key in MODELS for path in MODEL_ESCAPES),
]
FINE = ["rows.jsonl", "./rows.jsonl", "{root}/rows.jsonl", "../inside/rows.jsonl", "file://{root}/rows.jsonl"]
FETCHED = ["https://a.test/rows.jsonl", "s3://bucket/rows.jsonl", "org/name@main", "hf://datasets/org/name/rows.jsonl"]


@pytest.mark.parametrize(("key", "path"), CASES)
def test_no_key_may_lead_out(key: str, path: str, here: Path) -> None:
    outside = here.parent / "outside"
    code, screen = call("validate", manifest(here, **named(key, path.replace("{outside}", str(outside)))))
    assert code == Exit.MANIFEST
    assert screen.count("[manifest/outside]") == 1 and "m.yaml:1:" in screen and "RUNNER_ROOTS" in screen
    assert "canary-of-a-file" not in screen


def test_a_metric_s_file_may_not_be_a_link_out(here: Path) -> None:
    code, screen = call("validate", manifest(here, eval={"metrics": [{"python": "mine:score"}]}))
    assert code == Exit.MANIFEST and "'eval.metrics.0' names leads out" in screen


@pytest.mark.parametrize("path", [*FINE, *FETCHED])
def test_what_lies_within_or_is_fetched_may_be_named(path: str, here: Path) -> None:
    written = path.replace("{root}", str(here.parent / "root"))
    assert call("validate", manifest(here, data={"train": written}))[0] == Exit.DONE


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "org/name@main", "org/name"])
def test_a_model_of_the_hub_is_no_path(model: str, here: Path) -> None:
    assert call("validate", manifest(here, approach={"model": model}))[0] == Exit.DONE


def test_a_hub_name_that_is_a_link_in_the_working_directory_is_a_path(here: Path) -> None:
    (here / "org").mkdir()
    (here / "org" / "name").symlink_to(here.parent / "outside" / "model")
    assert call("validate", manifest(here, approach={"model": "org/name"}))[0] == Exit.MANIFEST


@pytest.mark.parametrize("limit", [None, ""])
def test_on_a_person_s_own_machine_any_path_may_be_named(
    limit: str | None, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNNER_ROOTS")
    if limit is not None:
        monkeypatch.setenv("RUNNER_ROOTS", limit)
    assert call("validate", manifest(here, data={"train": "../outside/secret.jsonl"}))[0] == Exit.DONE


def test_every_fault_is_told_at_its_place(here: Path) -> None:
    both = {**named("data.train", "../outside/secret.jsonl"), **named("eval.json_schema", "/etc/passwd")}
    code, screen = call("validate", manifest(here, **both))
    assert (code, screen.count("[manifest/outside]")) == (Exit.MANIFEST, 2)


HOOKED = """
import json, sys
seen = []
sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event == "open" else None)
from runner.cli import main
code = main(sys.argv[2:])
print(json.dumps([code, [path for path in seen if sys.argv[1] in path]]), file=sys.stderr)
"""


@pytest.mark.parametrize("verb", ["validate", "plan", "run"])
def test_nothing_outside_is_opened_by_any_verb(verb: str, here: Path) -> None:
    outside = str(here.parent / "outside")
    changes: dict[str, Any] = {
        "data": {"train": ["link.jsonl", f"{outside}/secret.jsonl"], "mix": [{"source": "~/secret.jsonl", "rows": 1}]},
        "approach": {"model": "./model"},
        "eval": {"metrics": [{"python": "mine:score"}, "json_valid"], "json_schema": f"{outside}/secret.jsonl"},
    }
    command = [sys.executable, "-c", HOOKED, outside, verb, manifest(here, **changes)]
    command += ["--out", str(here / "out")] if verb == "run" else []
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}, capture_output=True, text=True
    )
    assert json.loads(done.stderr.splitlines()[-1]) == [Exit.MANIFEST, []]
    assert "manifest/outside" in done.stdout
    written = "".join(path.read_text(errors="replace") for path in (here / "out").rglob("*") if path.is_file())
    assert "canary-of-a-file" not in written + done.stdout
