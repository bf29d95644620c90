"""A real server: `transformers serve` with a tiny random model, asked over HTTP."""

from __future__ import annotations

import json
import shlex
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.backends import load, open_chat
from runner.backends.base import Endpoint, Reply, Sampling
from runner.conversation import Message
from runner.errors import Exit, RunnerError
from tests.fakes import FakeWatch
from tests.serving import served

pytestmark = pytest.mark.slow
pytest.importorskip("uvicorn", reason="the packages of transformers serve are not installed")

SAMPLING = Sampling(max_new_tokens=12, batch_size=4)
PROMPTS = [[Message(role="user", content=text)] for text in ("red", "green is a colour", "blue?", "and white, too")]


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with settings that make it sample, as many models have."""
    folder = tmp_path_factory.mktemp("sampling") / "tiny"
    shutil.copytree(tiny_model, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True, "temperature": 1.0}))
    return folder


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(shlex.join(["transformers", "serve", str(model)]), tmp_path_factory.mktemp("serve")) as address:
        yield address


def endpoint(url: str, model: Path) -> Endpoint:
    return Endpoint(base_url=url, model=str(model), max_parallel=2)


def texts(replies: list[Reply]) -> list[str]:
    assert all(reply.completion for reply in replies), [reply.reason for reply in replies]
    return [reply.completion.text for reply in replies if reply.completion]


def test_a_real_server_answers_as_the_same_model_does_here(url: str, model: Path, tmp_path: Path) -> None:
    chat = open_chat(endpoint(url, model), tmp_path, {})
    chat.check()
    replies = chat.complete(PROMPTS, SAMPLING, FakeWatch(), label="asking")
    session = load("lora").open_session(str(model), "lora", tmp_path, FakeWatch())
    local = session.complete("base", PROMPTS, SAMPLING, FakeWatch())
    assert texts(replies) == [answer.text for answer in local]
    assert len({*texts(replies)}) > 1
    for reply, answer in zip(replies, local, strict=True):
        assert reply.completion and reply.model and reply.model.startswith(str(model))
        assert reply.completion.prompt_tokens == answer.prompt_tokens
        assert reply.completion.output_tokens == answer.output_tokens
        assert reply.completion.finish == answer.finish
        assert reply.completion.seconds > 0


def test_what_it_answered_is_there_when_it_is_gone(url: str, model: Path, tmp_path: Path) -> None:
    asked = open_chat(endpoint(url, model), tmp_path, {}).complete(PROMPTS, SAMPLING, FakeWatch(), label="asking")
    again = open_chat(endpoint(url, model), tmp_path, {}).complete(PROMPTS, SAMPLING, FakeWatch(), label="asking")
    assert [reply.cached for reply in asked + again] == [False] * 4 + [True] * 4
    assert [reply.completion for reply in again] == [reply.completion for reply in asked]


def test_a_model_that_it_does_not_serve_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError) as caught:
        open_chat(endpoint(url, Path("another")), tmp_path, {}).check()
    assert caught.value.exit_code == Exit.MANIFEST
    assert "another" in caught.value.problems[0].what


def test_temperature_zero_makes_a_model_greedy_that_samples_by_itself(url: str, model: Path, tmp_path: Path) -> None:
    greedy = texts(
        open_chat(endpoint(url, model), tmp_path, {}).complete(PROMPTS, SAMPLING, FakeWatch(), label="asking")
    )
    body = {"model": str(model), "messages": [{"role": "user", "content": "red"}], "max_tokens": 12}
    assert ask(url, {**body, "temperature": 0}) == greedy[0]
    assert {ask(url, body) for _ in range(3)} != {greedy[0]}


def ask(url: str, body: dict[str, Any]) -> str:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])
