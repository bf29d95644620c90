"""`runner lock` and `--locked`, by the command: each kind of drift is refused before anything is done, and named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.errors import Exit
from runner.lock import lock_path, read_lock, write_lock
from tests.data.reading.server import Answer, FakeServer, serving
from tests.lock.projects import MANIFEST, call, commit, git, make_project

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def web() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


def change_manifest(folder: Path, **sections: Any) -> None:
    path = folder / MANIFEST
    values = json.loads(path.read_text())
    for section, more in sections.items():
        values[section] = {**values.get(section, {}), **more} if isinstance(more, dict) else more
    path.write_text(json.dumps(values, indent=2))


def append(name: str, text: str) -> Change:
    def change(folder: Path) -> None:
        with (folder / name).open("a") as file:
            file.write(text)

    return change


def flip(name: str) -> Change:
    """Turns the last byte of a file."""

    def change(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[-1] ^= 1
        (folder / name).write_bytes(raw)

    return change


def locked_as(**facts: Any) -> Change:
    """Writes a lock that says something else, as another machine would have written it."""

    def change(folder: Path) -> None:
        held = read_lock(folder / MANIFEST).facts
        write_lock(
            folder / MANIFEST, {**held, **{k: {**held[k], **v} if isinstance(v, dict) else v for k, v in facts.items()}}
        )

    return change


def retemplate(folder: Path) -> None:
    (folder / "model/chat_template.jinja").write_text("{{ messages[0]['content'] }}")


def retokenize(folder: Path) -> None:
    path = folder / "model/tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clean_up_tokenization_spaces": True}))


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


DRIFTS: dict[str, tuple[Change, str, list[str]]] = {
    "data": (append("rows.jsonl", "\n"), "lock/data", ["rows.jsonl is not what was locked: it had 3,200", "3,201"]),
    "data that is gone": (without("rows.jsonl"), "lock/data", ["it had 3,200 bytes", "cannot be read"]),
    "weights": (
        flip("model/model.safetensors"),
        "lock/model",
        ["The file model.safetensors of model", "and is sha256"],
    ),
    "a file more": (append("model/extra.json", "{}"), "lock/model", ["extra.json", "not there, and is sha256"]),
    "tokenizer": (retokenize, "lock/tokenizer", ["The tokenizer of model was locked as", "and is"]),
    "template": (retemplate, "lock/template", ["The chat template of model was locked as", "and is"]),
    "schema": (
        append("answer.schema.json", "\n"),
        "lock/file",
        ["answer.schema.json is not what was locked: it had 19"],
    ),
    "manifest": (
        lambda folder: change_manifest(folder, hyperparameters={"max_steps": 7}),
        "lock/manifest",
        ["'hyperparameters.max_steps' was locked as 6 and is 7", f"{MANIFEST}:"],
    ),
    "a key more": (
        lambda folder: change_manifest(folder, seed=7),
        "lock/manifest",
        ["'seed' was locked as not set and is 7"],
    ),
    "package": (locked_as(packages={"numpy": "1.26.4"}), "lock/package", ["numpy 1.26.4 was locked; here it is 2."]),
    "a package less": (
        locked_as(packages={"liger-kernel": "0.5"}),
        "lock/package",
        ["liger-kernel 0.5 was locked; here it is not installed"],
    ),
    "runner": (locked_as(runner="0.0.9"), "lock/runner", ["runner 0.0.9 was locked, and this is runner 0.1.0"]),
    "python": (locked_as(python="3.9"), "lock/python", ["Python 3.9 was locked, and this is Python 3."]),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_each_kind_of_drift_is_refused_before_anything_is_done_and_named(name: str, project: Path) -> None:
    change, code, told = DRIFTS[name]
    change(project)
    exit_code, said = call(project, "run", MANIFEST, "--locked")
    assert exit_code == Exit.MANIFEST, said
    assert said.count("error:") == 1 and f"[{code}]" in said, said
    assert all(text in said for text in told), said
    assert "runner lock soak.yaml" in said, "the cure"
    assert not (project / "runs").exists(), "nothing was begun"


def test_a_package_of_another_version_is_refused(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "site/bm25s-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: bm25s\nVersion: 9.9.9\n")
    code, said = call(project, "run", MANIFEST, "--locked", PYTHONPATH=str(other.parent))
    assert code == Exit.MANIFEST and "bm25s 0." in said and "here it is 9.9.9" in said
    assert "fix: pip install bm25s==0." in said


def test_a_build_for_another_kind_of_machine_is_no_drift(project: Path, tmp_path: Path) -> None:
    held = read_lock(project / MANIFEST).facts["packages"]["torch"]
    assert "+" not in held
    other = tmp_path / f"site/torch-{held}+cu130.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {held}+cu130\n")
    assert call(project, "lock", "--check", MANIFEST, PYTHONPATH=str(other.parent))[0] == Exit.DONE


def test_all_drifts_are_told_at_once(project: Path) -> None:
    for name in ("data", "template", "manifest", "runner"):
        DRIFTS[name][0](project)
    for words in (("run", MANIFEST, "--locked"), ("plan", MANIFEST, "--locked"), ("lock", "--check", MANIFEST)):
        code, said = call(project, *words)
        assert code == Exit.MANIFEST
        assert all(f"[{DRIFTS[name][1]}]" in said for name in ("data", "template", "manifest", "runner")), said


def test_what_changes_no_result_is_no_drift(project: Path) -> None:
    change_manifest(project, description="other words", tracking={"tags": ["a"]}, budget={"max_hours": 9})
    text = (project / MANIFEST).read_text()
    (project / MANIFEST).write_text(f"# a comment\n{text}")
    (project / "model/README.md").write_text("about the model")
    assert call(project, "lock", "--check", MANIFEST) == (Exit.DONE, "Everything looked at is as it was locked.\n")


@pytest.mark.slow
def test_a_value_that_is_set_over_the_locked_manifest_is_refused_unless_it_changes_no_result(project: Path) -> None:
    code, said = call(project, "plan", MANIFEST, "--locked", "--set", "hyperparameters.epochs=3")
    assert code != Exit.DONE
    code, said = call(project, "run", MANIFEST, "--locked", "--set", "hyperparameters.max_steps=3")
    assert code == Exit.MANIFEST and "--set: error: The manifest changed" in said
    code, said = call(project, "plan", MANIFEST, "--locked", "--set", "budget.max_hours=9")
    assert code == Exit.DONE, said


@pytest.mark.slow
def test_a_lock_is_the_same_wherever_it_is_written_and_names_no_place(project: Path, tmp_path: Path) -> None:
    first = lock_path(project / MANIFEST).read_text()
    elsewhere = tmp_path / "elsewhere"
    git(tmp_path, "clone", "-q", str(project), str(elsewhere))
    lock_path(elsewhere / MANIFEST).unlink()
    code, said = call(elsewhere, "lock", MANIFEST)
    assert code == Exit.DONE and "is written: commit it" in said
    assert lock_path(elsewhere / MANIFEST).read_text() == first
    assert (
        str(tmp_path) not in first
        and "/" not in first.partition("content_sha256")[0].replace("./model", "").partition("\nlock_version")[2]
    )
    assert first.startswith("# What soak.yaml stands on") and yaml.safe_load(first)["data"][0]["rows"] == 60


@pytest.mark.slow
def test_a_lock_that_is_written_anew_says_what_changed(project: Path) -> None:
    assert "is as it was" in call(project, "lock", MANIFEST)[1]
    append("rows.jsonl", json.dumps({"prompt": "one more", "completion": "yes"}) + "\n")(project)
    code, said = call(project, "lock", MANIFEST)
    assert code == Exit.DONE and "data.0.rows: 60 -> 61" in said and "packages" not in said
    assert call(project, "lock", "--check", MANIFEST)[0] == Exit.DONE


def torn(text: str) -> str:
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    ("damage", "code", "exit_code"),
    [
        (None, "lock/missing", Exit.INPUT_MISSING),
        (torn, "lock/damaged", Exit.MANIFEST),
        (lambda text: "{", "lock/unreadable", Exit.MANIFEST),
        (lambda text: "", "lock/unreadable", Exit.MANIFEST),
        (lambda text: "- a\n- b\n", "lock/unreadable", Exit.MANIFEST),
        (lambda text: text.replace("rows: 60", "rows: 61"), "lock/edited", Exit.MANIFEST),
        (lambda text: text.replace("runner: 0.1.0", "runner: 0.1.0\nrunner: 0.2.0"), "lock/damaged", Exit.MANIFEST),
        (lambda text: text.replace("lock_version: 1", "lock_version: 2"), "lock/newer", Exit.MANIFEST),
        (lambda text: text.replace("lock_version: 1\n", ""), "lock/edited", Exit.MANIFEST),
        (lambda text: text.replace("name: soak\n  sha", "name: other\n  sha"), "lock/edited", Exit.MANIFEST),
    ],
)
def test_a_lock_that_cannot_be_used_is_told_from_one_that_differs(
    damage: Callable[[str], str] | None, code: str, exit_code: Exit, project: Path
) -> None:
    path = lock_path(project / MANIFEST)
    if damage:
        path.write_text(damage(path.read_text()))
    else:
        path.unlink()
    got, said = call(project, "run", MANIFEST, "--locked")
    assert (got, f"[{code}]" in said) == (exit_code, True), said
    assert "runner lock" in said and not (project / "runs").exists()


@pytest.mark.parametrize(
    "facts",
    [
        {"models": [{"key": "approach.model", "kind": "hub", "name": "org/tiny@main"}]},
        {"data": [{"key": "data.train", "name": "org/rows@main"}]},
    ],
)
def test_a_lock_that_leaves_a_revision_floating_is_no_lock(facts: dict[str, Any], project: Path) -> None:
    locked_as(**facts)(project)
    code, said = call(project, "run", MANIFEST, "--locked")
    assert code == Exit.MANIFEST and "[lock/damaged]" in said


def test_the_lock_of_another_manifest_is_refused_as_that(project: Path) -> None:
    locked_as(manifest={"name": "other"})(project)
    code, said = call(project, "run", MANIFEST, "--locked")
    assert code == Exit.MANIFEST and said.count("error:") == 1
    assert "[lock/other-manifest]" in said and "'other'; this one is 'soak'" in said


@pytest.mark.slow
def test_what_changes_on_the_web_is_found_once_it_is_fetched_and_before_it_is_used(
    tiny_model: Path, tmp_path: Path, web: FakeServer
) -> None:
    folder = make_project(tmp_path / "project", tiny_model)
    rows = (folder / "rows.jsonl").read_bytes()
    url = f"{web.url}/locked.jsonl?key=very-secret-value"
    web.answers["/locked.jsonl"] = [Answer(body=rows)]
    change_manifest(folder, data={"train": url})
    assert call(folder, "lock", MANIFEST)[0] == Exit.DONE
    text = lock_path(folder / MANIFEST).read_text()
    assert "very-secret-value" not in text and "/locked.jsonl" in text
    web.answers["/locked.jsonl"] = [Answer(body=rows + b"\n")]
    assert "Not looked at, which a run does: data.train" in call(folder, "lock", "--check", MANIFEST)[1]
    code, said = call(folder, "run", MANIFEST, "--locked", "--out", "out")
    assert code == Exit.MANIFEST and "[lock/data]" in said
    report = json.loads((folder / "out/report.json").read_text())
    assert "gate" not in report["timings"] and report["training"] is None


def lay_out_hub(home: Path, model: Path, commits: dict[str, str]) -> None:
    """A cache of the hub's client as it leaves it, with a model at each commit; `main` is the last one."""
    folder = home / "hub/models--org--tiny"
    for commit_sha, template in commits.items():
        snapshot = folder / "snapshots" / commit_sha
        snapshot.mkdir(parents=True)
        for path in model.iterdir():
            (snapshot / path.name).write_bytes(path.read_bytes())
        with (snapshot / "chat_template.jinja").open("a") as file:
            file.write(template)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs/main").write_text(commit_sha)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["org/tiny", "org/tiny@main"])
def test_a_floating_revision_is_the_locked_commit(name: str, tiny_model: Path, tmp_path: Path) -> None:
    home, first, second = tmp_path / "hf", "a" * 40, "b" * 40
    lay_out_hub(home, tiny_model, {first: ""})
    folder = make_project(tmp_path / "project", tiny_model, approach={"model": name})
    hub = {"HF_HOME": str(home)}
    code, said = call(folder, "lock", MANIFEST, **hub)
    assert code == Exit.DONE, said
    assert yaml.safe_load(lock_path(folder / MANIFEST).read_text())["models"][0]["commit"] == first
    lay_out_hub(home, tiny_model, {second: "{# moved #}"})
    code, said = call(folder, "run", MANIFEST, "--locked", "--out", "out", **hub)
    assert code == Exit.DONE, said
    record = json.loads((folder / "out/run.lock.json").read_text())
    (model,) = record["stands_on"]["models"]
    assert (model["name"], model["commit"]) == (f"org/tiny@{first}", first)
    code, said = call(folder, "lock", MANIFEST, **hub)
    assert code == Exit.DONE and f"models.0.commit: {first} -> {second}" in said


@pytest.mark.slow
def test_a_lock_is_not_made_of_a_model_that_is_not_there(tiny_model: Path, tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project", tiny_model, approach={"model": "org/never@main"})
    code, said = call(folder, "lock", MANIFEST, HF_HOME=str(tmp_path / "hf"))
    assert code == Exit.UNAVAILABLE and "[model/unavailable]" in said
    assert not lock_path(folder / MANIFEST).exists()


@pytest.mark.slow
def test_a_sweep_is_locked_with_what_its_points_stand_on(project: Path) -> None:
    (project / "more.jsonl").write_text((project / "rows.jsonl").read_text() * 2)
    change_manifest(project, sweep={"grid": {"data.train": ["rows.jsonl", "more.jsonl"]}})
    assert call(project, "lock", MANIFEST)[0] == Exit.DONE
    commit(project)
    assert [entry["name"] for entry in read_lock(project / MANIFEST).facts["data"]] == ["rows.jsonl", "more.jsonl"]
    append("more.jsonl", "\n")(project)
    code, said = call(project, "run", MANIFEST, "--locked", "--point", "0")
    assert code == Exit.MANIFEST and "more.jsonl is not what was locked" in said
