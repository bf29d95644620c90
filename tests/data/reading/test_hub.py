"""Datasets of the hub, by the hub's own client before a small fake hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.data.reading.server import ROWS, Answer, FakeServer, serving

COMMIT = "a" * 40


# The hub


def hub_answers(name: str, files: dict[str, bytes], readme: bytes = b"") -> dict[str, list[Answer]]:
    """What the hub says of one dataset with these files."""
    files = {**files, **({"README.md": readme} if readme else {})}
    siblings = [{"rfilename": path} for path in files]
    info = {
        "id": name,
        "sha": COMMIT,
        "siblings": siblings,
        "private": False,
        "gated": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "disabled": False,
        "author": name.split("/")[0],
    }
    tree = [
        {"type": "file", "path": path, "size": len(body), "oid": sha256(body).hexdigest()[:40]}
        for path, body in files.items()
    ]
    as_json = {"Content-Type": "application/json"}
    told = [Answer(body=json.dumps(info).encode(), headers=as_json)]
    answers = {f"/api/datasets/{name}": told}
    for revision in ("main", COMMIT):
        answers[f"/api/datasets/{name}/revision/{revision}"] = told
        answers[f"/api/datasets/{name}/tree/{revision}"] = [Answer(body=json.dumps(tree).encode(), headers=as_json)]
        answers[f"/api/datasets/{name}/paths-info/{revision}"] = [
            Answer(body=json.dumps(tree).encode(), headers=as_json)
        ]
        for path, body in files.items():
            kept = {"ETag": f'"{sha256(body).hexdigest()[:40]}"', "X-Repo-Commit": COMMIT}
            answers[f"/datasets/{name}/resolve/{revision}/{path}"] = [Answer(body=body, headers=kept)]
    return answers


def no_such(what: str, status: int = 404) -> Answer:
    return Answer(status=status, headers={"X-Error-Code": what})


HUB_SAYS = {
    "/tree/": no_such("EntryNotFound"),
    "/resolve/": no_such("EntryNotFound"),
    "/api/datasets/org/name/revision/": no_such("RevisionNotFound"),
    "/api/datasets/org/gone": no_such("RepoNotFound", 401),
}


ASK = """
import json, sys
from pathlib import Path
from runner.data.reading import fetch
from runner.errors import RunnerError
said = []
try:
    file = fetch(sys.argv[1], Path(sys.argv[2]), said.append)
    import pyarrow.parquet
    rows = pyarrow.parquet.read_table(file.path).to_pylist()
    print(json.dumps({"name": file.name, "path": str(file.path), "rows": rows, "said": said}))
except RunnerError as error:
    problem = error.problems[0]
    print(json.dumps({"exit": int(error.exit_code), "code": problem.code, "what": problem.what, "fix": problem.fix,
                      "where": [problem.where.path, problem.where.key]}))
"""


def ask_hub(source: str, cache: Path, endpoint: str, offline: str = "0") -> Any:
    """`fetch` in a process of its own, whose hub is the one at `endpoint`."""
    env = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": offline,
        "HF_HOME": str(cache / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, source, str(cache)], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


PARTS = {"train.jsonl": ROWS, "test.jsonl": ROWS[:39]}


@pytest.mark.slow
def test_a_dataset_of_the_hub_becomes_one_file_and_is_then_read_without_a_network(tmp_path: Path) -> None:
    with serving(FakeServer(hub_answers("org/name", PARTS), otherwise=HUB_SAYS)) as hub:
        first = ask_hub("org/name@main", tmp_path, hub.url)
        assert first["rows"] == [json.loads(line) for line in ROWS.splitlines()]
        assert first["path"] == str(tmp_path / "hub" / "org--name" / COMMIT / "train.parquet")
        assert (first["name"], first["said"]) == ("org/name@main", ["downloading the dataset org/name@main"])
        assert ask_hub("org/name@main:test", tmp_path, hub.url)["rows"] == first["rows"][:1]
        again = ask_hub("org/name@main", tmp_path, hub.url, offline="1")
        assert (again["path"], again["rows"]) == (first["path"], first["rows"])
        assert again["said"] == ["the hub cannot be reached; org/name@main is taken from the cache"]
        assert ask_hub(f"org/name@{COMMIT}", tmp_path, hub.url, offline="1")["said"] == []
        split = ask_hub("org/name@main:nope", tmp_path, hub.url)
        assert (split["exit"], split["code"], split["fix"]) == (65, "data/unknown-split", "Use one of: train, test.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "offline", "exit_code", "code", "told"),
    [
        ("org/name@other", "0", 66, "data/missing", "no revision 'other'"),
        ("org/gone@main", "0", 66, "data/missing", "or keeps it private"),
        ("org/name@main", "1", 69, "data/unavailable", "not in the cache"),
    ],
)
def test_a_dataset_that_cannot_be_had_says_why(
    tmp_path: Path, source: str, offline: str, exit_code: int, code: str, told: str
) -> None:
    with serving(FakeServer(hub_answers("org/name", PARTS), otherwise=HUB_SAYS)) as hub:
        found = ask_hub(source, tmp_path, hub.url, offline)
    assert (found["exit"], found["code"], found["where"]) == (exit_code, code, [source, "data.train"])
    assert told in found["what"]


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    assert ask_hub("org/name@main", tmp_path, "http://127.0.0.1:9")["exit"] == 69


@pytest.mark.slow
def test_a_gated_dataset_is_refused(tmp_path: Path) -> None:
    answers = hub_answers("org/name", PARTS)
    for path in [path for path in answers if "/resolve/" in path]:
        answers[path] = [no_such("GatedRepo", 403)]
    with serving(FakeServer(answers, otherwise={"/resolve/": no_such("GatedRepo", 403), **HUB_SAYS})) as hub:
        found = ask_hub("org/name@main", tmp_path, hub.url)
    assert (found["exit"], found["code"]) == (77, "data/refused") and "gated" in found["what"]


@pytest.mark.slow
def test_several_configurations_are_listed(tmp_path: Path) -> None:
    configs = ["---", "configs:"]
    for name in ("german", "french"):
        configs += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}.jsonl"]
    answers = hub_answers(
        "org/name", {"german.jsonl": ROWS, "french.jsonl": ROWS}, "\n".join([*configs, "---"]).encode()
    )
    with serving(FakeServer(answers, otherwise=HUB_SAYS)) as hub:
        found = ask_hub("org/name@main", tmp_path, hub.url)
    assert (found["exit"], found["code"]) == (65, "data/several-configurations")
    assert "german, french" in found["what"]
