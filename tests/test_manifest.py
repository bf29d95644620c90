"""Manifests from the file to valid values: values set on the command line, and any manifest with a key gone wrong."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import Exit, Problem, RunnerError, Where
from runner.manifest import load_manifest

ROOT = Path(__file__).parents[1]

SHIPPED = Path(__file__).parents[1] / "manifests" / "quickstart.yaml"
PLAIN = """\
name: tickets
data:
  train: tickets.jsonl
approach:
  kind: lora
  model: smollm2-135m-instruct
gate:
  task: format
"""


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.yaml"
    path.write_text(PLAIN, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> tuple[Exit, tuple[Problem, ...]]:
    with pytest.raises(RunnerError) as caught:
        load_manifest(path, overrides)
    return caught.value.exit_code, caught.value.problems


# --- --set ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("seed=7", ["seed"], 7),
        ("hyperparameters.learning_rate=2e-4", ["hyperparameters", "learning_rate"], 2e-4),
        ("name=no", ["name"], "no"),
        ("description=a=b", ["description"], "a=b"),
        ("data.system='7'", ["data", "system"], "7"),
        ("data.system=", ["data", "system"], None),
        ("data.train=[a.jsonl, b.jsonl]", ["data", "train"], ["a.jsonl", "b.jsonl"]),
        ("data.split={ dev: 0.2 }", ["data", "split"], {"dev": 0.2}),
        ("data.split.dev=0.3", ["data", "split", "dev"], 0.3),
        (" budget.max_hours = 2", ["budget", "max_hours"], 2),
    ],
)
def test_a_value_is_set_over_the_manifest(plain: Path, assignment: str, path: list[str], value: Any) -> None:
    manifest = load_manifest(plain, [assignment])
    assert manifest.document.get(*path) == value
    assert manifest.document.where(tuple(path)) == Where(path="--set", key=".".join(path))


def test_the_last_of_two_values_for_a_key_counts(plain: Path) -> None:
    assert load_manifest(plain, ["seed=7", "seed=8"]).values["seed"] == 8


def test_a_set_value_takes_the_place_of_a_faulty_one(plain: Path) -> None:
    plain.write_text(PLAIN.replace("kind: lora", "kind: lorra"), encoding="utf-8")
    assert load_manifest(plain, ["approach.kind=full"]).values["approach"]["kind"] == "full"


@pytest.mark.parametrize(
    ("assignment", "key", "fix"),
    [
        ("hyperparameters.epoch=3", "hyperparameters.epoch", "Did you mean 'epochs'?"),
        ("trackng.wandb=off", "trackng", "Did you mean 'tracking'?"),
        ("tracking.epochs=3", "tracking.epochs", "'epochs' belongs in 'hyperparameters'."),
        ("hyperparameters.rank='8'", "hyperparameters.rank", "Write 8; quotes"),
        ("approach={ kind: lora }", "approach", "For example  model:"),
        ("approach.kind=openai", "approach.kind", "Use one of: lora, qlora, full."),
        ("data.split={ dev: 0.5, test: 0.5 }", "data.split", "Keep them at 0.8 or less together."),
        ("budget.max_usd=5", "budget.max_usd", "For example  usd_per_hour:"),
        ("approach.processes=0", "approach.processes", "Write a value at least 1"),
        ("approach.processes=AUTO", "approach.processes", "Write auto."),
        ("hyperparameters.target_modules=null", "hyperparameters.target_modules", "For example  target_modules:"),
        ("hyperparameters={ epochs: 1, max_steps: 9 }", "hyperparameters.max_steps", "Keep one of them"),
        ("hyperparameters={ batch_size: 1, batch_tokens: 4096 }", "hyperparameters.batch_tokens", "Keep one of them"),
        ("hyperparameters.batch_tokens=2047", "hyperparameters.batch_tokens", "Write at least 2048,"),
        (
            "hyperparameters={ batch_tokens: 511, max_length: 512 }",
            "hyperparameters.batch_tokens",
            "Write at least 512,",
        ),
        ("checkpoint.keep=0", "checkpoint.keep", "Write a value at least 1"),
    ],
)
def test_a_faulty_set_value_is_shown_at_set_and_not_in_the_file(
    plain: Path, assignment: str, key: str, fix: str
) -> None:
    code, (problem,) = refusal(plain, assignment)
    assert (code, problem.where) == (Exit.MANIFEST, Where(path="--set", key=key))
    assert problem.fix.startswith(fix)


@pytest.mark.parametrize(
    ("assignment", "code"),
    [
        *((text, "usage/set") for text in ("seed", "", "=7", ".seed=7", "data..train=x", "data.=x")),
        *((text, "usage/set") for text in ("name.first=x", "data.train.0=x", "eval.metrics.x.y=z")),
        ("data.train=[a", "manifest/syntax"),
        ("seed=1\n---\n2", "manifest/two-documents"),
        ("seed=!!int 7", "manifest/tag"),
        ("data.train=&a [*a]", "manifest/alias"),
        ("data.train=" + "[" * 2000, "manifest/too-deep"),
        ("seed=.inf", "manifest/not-finite"),
        ("data.split={ dev: 0.1, dev: 0.2 }", "manifest/duplicate-key"),
        ("description=\udcff", "manifest/syntax"),
    ],
)
def test_a_value_that_cannot_be_set_is_a_usage_error(plain: Path, assignment: str, code: str) -> None:
    plain.write_text(PLAIN + "eval:\n  metrics: [chrf]\n", encoding="utf-8")
    exit_code, problems = refusal(plain, assignment)
    assert exit_code == Exit.USAGE
    assert {problem.code for problem in problems} == {code}
    assert {problem.where.path for problem in problems} == {"--set"}
    assert all(problem.fix for problem in problems)


# --- rules between keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        "gate: { task: format, policy: warn, reason: Measured. }",
        "gate: { task: format, policy: enforce }",
        "eval: { metrics: [json_valid], json_schema: a.json }",
        "budget: { max_usd: 5, usd_per_hour: 1 }",
        "budget: { max_usd: null }",
        "data: { train: a, split: { dev: 0.3, test: 0.5 } }",
        "hyperparameters: { epochs: 2, max_steps: null, batch_size: null, batch_tokens: 2048 }",
        "hyperparameters: { epochs: null, max_steps: 10, batch_tokens: 512, max_length: 512 }",
        "approach: { kind: full, model: m, processes: 8 }",
        "approach: { kind: lora, model: m, processes: auto }",
        "hyperparameters: { rank: 256, alpha: 32, rslora: true, dora: true, early_stopping_patience: null }",
    ],
)
def test_a_manifest_that_keeps_the_rules_between_keys_is_valid(plain: Path, more: str) -> None:
    ((key, value),) = yaml.safe_load(more).items()
    assert load_manifest(plain, [more.replace(": ", "=", 1)]).values[key] == value


@pytest.mark.parametrize("asked", ["rank: 8", "alpha: 8", "dropout: 0.1", "target_modules: [q]", "rslora: true"])
def test_a_full_tune_refuses_what_it_would_ignore(plain: Path, asked: str) -> None:
    code, (problem,) = refusal(plain, "approach.kind=full", f"hyperparameters={{ {asked} }}")
    assert (code, problem.code) == (Exit.MANIFEST, "hyperparameters/unused")
    assert problem.where.key == f"hyperparameters.{asked.partition(':')[0]}"
    load_manifest(plain, ["approach.kind=qlora", f"hyperparameters={{ {asked} }}"])


def test_a_full_tune_takes_adapter_keys_that_ask_for_nothing(plain: Path) -> None:
    nothing = "{ rank: null, alpha: null, dropout: 0, target_modules: auto, rslora: false, dora: false, top_layers: 2 }"
    manifest = load_manifest(plain, ["approach.kind=full", f"hyperparameters={nothing}", "delivery.merge=false"])
    assert manifest.values["hyperparameters"]["top_layers"] == 2 and not manifest.values["delivery"]["merge"]


def test_a_key_that_full_tuning_ignores_and_that_is_faulty_has_one_fault(plain: Path) -> None:
    _, (problem,) = refusal(plain, "approach.kind=full", "hyperparameters.rank=5000")
    assert problem.code == "manifest/out-of-range"
    _, problems = refusal(plain, "hyperparameters={ epochs: 0, max_steps: 5, batch_tokens: x, batch_size: 1 }")
    assert {problem.code for problem in problems} == {"manifest/out-of-range", "manifest/wrong-type"}
    _, (problem,) = refusal(plain, "hyperparameters={ max_length: 1, batch_tokens: 64 }")
    assert problem.where.key == "hyperparameters.max_length"


def test_a_rule_keeps_quiet_about_keys_that_are_faulty_themselves(plain: Path) -> None:
    plain.write_text(PLAIN.replace("kind: lora", "kind: [openai]"), encoding="utf-8")
    _, problems = refusal(plain, "data.split={ dev: 0.9, test: x }", "eval.metrics=json_valid", "gate.policy=[warn]")
    assert sorted(problem.where.key or "" for problem in problems) == [
        "approach.kind",
        "data.split.dev",
        "data.split.test",
        "eval.metrics",
        "gate.policy",
    ]


# --- any mistake ----------------------------------------------------------------------------------------------------


def groups(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [value, *(inner for entry in value.values() if isinstance(entry, dict) for inner in groups(entry))]


ANY_VALUE = st.sampled_from([None, True, -1, 0, 0.5, 1e300, "", "x", "8", [], ["x", "x"], [[1]], {}, {"x": {"y": 1}}])


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_shipped_manifest_with_any_mistakes_is_valid_or_has_problems_with_a_place(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values: dict[str, Any] = copy.deepcopy(load_manifest(SHIPPED).values)
    for _ in range(data.draw(st.integers(1, 4))):
        group = data.draw(st.sampled_from([group for group in groups(values) if group]))
        key = data.draw(st.sampled_from(sorted(group)))
        mistake = data.draw(st.sampled_from(["drop", "rename", "retype"]))
        old = group.pop(key)
        if mistake == "rename":
            group[data.draw(st.sampled_from([key.upper(), key[1:], key + "s", "x"]))] = old
        elif mistake == "retype":
            group[key] = copy.deepcopy(data.draw(ANY_VALUE))
        if not values:
            break
    path = tmp_path_factory.getbasetemp() / "mistaken.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        load_manifest(path)
        return
    except RunnerError as error:
        refused = error
    assert refused.exit_code == Exit.MANIFEST
    assert refused.problems
    for problem in refused.problems:
        line, column = problem.where.line, problem.where.column
        assert line is not None and 1 <= line <= len(lines)
        assert column is not None and 1 <= column <= len(lines[line - 1]) + 1
        assert problem.what


@pytest.mark.parametrize("pattern", ["(", "x{99999999999}", "(" * 5000 + ")" * 5000])
def test_a_pattern_that_no_engine_takes_is_a_problem(tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "m.yaml"
    values = {"name": "x", "data": {"train": "rows.jsonl"}, "approach": {"kind": "lora", "model": "org/name"}}
    path.write_text(
        json.dumps({**values, "gate": {"task": "format"}, "eval": {"metrics": ["regex"], "pattern": pattern}})
    )
    with pytest.raises(RunnerError) as refused:
        load_manifest(path)
    assert [problem.code for problem in refused.value.problems] == ["eval/pattern"]


@pytest.mark.parametrize("name", ["fifo", "zero", "folder"])
def test_a_manifest_that_is_no_ordinary_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunnerError) as refused:
        load_manifest(tmp_path / name)
    assert (refused.value.exit_code, refused.value.problems[0].code) == (Exit.INPUT_MISSING, "manifest/unreadable")


@pytest.mark.parametrize("key", ["approach.model", "data.train", "eval.json_schema"])
def test_a_path_that_no_file_system_holds_is_a_problem_of_its_key(key: str) -> None:
    with pytest.raises(RunnerError) as caught:
        load_manifest(ROOT / "manifests" / "quickstart.yaml", [f"{key}=./{'a' * 300}/b"])
    assert [(p.code, p.where.key) for p in caught.value.problems] == [("manifest/path-too-long", key)]
    assert caught.value.exit_code == Exit.MANIFEST


def test_an_address_may_be_longer_than_a_path() -> None:
    load_manifest(ROOT / "manifests" / "quickstart.yaml", [f"data.train=https://host/rows.jsonl?signed={'a' * 5000}"])
