"""What a run delivers, served by the line that it prints: a real server, asked over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.backends import load, open_chat
from runner.backends.base import Endpoint, Sampling
from runner.backends.local.session import LocalSession
from runner.conversation import Message
from runner.errors import Exit, Interrupted
from tests.fakes import FakeWatch, read_lines
from tests.serving import served
from tests.test_lifecycle import run

pytestmark = pytest.mark.slow


def test_an_interrupted_delivery_is_taken_up_and_its_line_serves_what_was_evaluated(
    write_experiment: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = write_experiment(
        num_rows=120,
        delivery={"merge": True},
        hyperparameters={"learning_rate": 1e-2},
        gate={"policy": "skip", "reason": "a test"},
        eval={"forgetting": {"measure": False}},
    )

    def stop(*_: object) -> None:
        raise Interrupted("delivery")

    with monkeypatch.context() as patch:
        patch.setattr(LocalSession, "reopen", stop)
        assert run(manifest, tmp_path / "out")[0] == Exit.INTERRUPTED
    capsys.readouterr()
    _, report = run(manifest, tmp_path / "out")
    printed = capsys.readouterr().out
    assert report["status"] == "done"
    assert "Trained by an earlier attempt" in printed
    assert "Merged by an earlier attempt" in printed
    delivery = report["delivery"]
    assert [(check["form"], check["agrees"]) for check in delivery["checks"]] == [("adapter", True), ("merged", True)]
    lines = {line["name"]: line["command"] for line in delivery["serve"]}
    assert all(f"serve   {command}" in printed for command in lines.values())
    evaluated = read_lines(tmp_path / "out/evaluation/tuned.jsonl")[:6]
    prompts = [[Message(role=turn["role"], content=turn["content"]) for turn in row["input"]] for row in evaluated]
    with served(lines["transformers serve"], tmp_path / "serve") as url:
        chat = open_chat(Endpoint(base_url=url, model=delivery["merged_dir"], max_parallel=1), tmp_path / "kept", {})
        replies = chat.complete(prompts, Sampling(max_new_tokens=24, batch_size=1), FakeWatch(), label="asking")
    assert [reply.completion and reply.completion.text for reply in replies] == [row["output"] for row in evaluated]
    base = load("lora").open_session(
        json.loads(manifest.read_text())["approach"]["model"], "lora", tmp_path, FakeWatch()
    )
    plain = base.complete("base", prompts, Sampling(max_new_tokens=24, batch_size=1), FakeWatch())
    assert [answer.text for answer in plain] != [row["output"] for row in evaluated], "the tuned model, not the base"
