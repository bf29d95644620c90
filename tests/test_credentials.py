"""Secrets from files: NAME_FILE in place of NAME, for every key that anything here reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.credentials import MAX_BYTES, OF_LIBRARIES, keys_named_in, read_files
from runner.errors import Exit, RunnerError
from tests.errors import call


def secret(folder: Path, content: bytes = b"hunter2-hunter2\n") -> str:
    path = folder / "secret"
    path.write_bytes(content)
    return str(path)


def refusal(environment: dict[str, str], *names: str) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        read_files(environment, names)
    assert caught.value.exit_code == Exit.CREDENTIALS
    return caught.value


@pytest.mark.parametrize("name", [*OF_LIBRARIES, "MY_JUDGE_KEY"])
def test_a_file_stands_in_for_its_variable(name: str, tmp_path: Path) -> None:
    assert read_files({f"{name}_FILE": secret(tmp_path)}, ["MY_JUDGE_KEY"]) == {name: "hunter2-hunter2"}


def test_files_that_nothing_here_asks_for_are_left_alone(tmp_path: Path) -> None:
    theirs = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such", "SSL_CERT_FILE": "/no/such", "MY_KEY_FILE": "/no/such"}
    assert read_files(theirs, ["OTHER"]) == {}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "credentials/empty"),
        (b" \n\n", "credentials/empty"),
        (b"\xff\xfe", "credentials/unusable"),
        (b"canary-one\ncanary-two\n", "credentials/unusable"),
        (b"x" * (MAX_BYTES + 1), "credentials/unusable"),
    ],
)
def test_a_file_without_one_secret_is_refused_and_not_shown(content: bytes, code: str, tmp_path: Path) -> None:
    (problem,) = refusal({"HF_TOKEN_FILE": secret(tmp_path, content)}).problems
    assert problem.code == code
    assert "HF_TOKEN_FILE" in problem.what and str(tmp_path) in problem.fix
    assert "canary" not in problem.what + problem.fix


@pytest.mark.parametrize("path", ["/no/such/file", "/", "a\0b"])
def test_a_file_that_cannot_be_read_is_refused(path: str) -> None:
    (problem,) = refusal({"WANDB_API_KEY_FILE": path}).problems
    assert problem.code == "credentials/unreadable"


def test_every_fault_is_told_at_once() -> None:
    files = {"HF_TOKEN_FILE": "/no/such", "MY_KEY_FILE": "/no/such"}
    assert len(refusal(files, "MY_KEY").problems) == 2


def test_a_secret_given_twice_must_be_the_same(tmp_path: Path) -> None:
    both = {"HF_TOKEN": "another", "HF_TOKEN_FILE": secret(tmp_path)}
    (problem,) = refusal(both).problems
    assert (problem.code, "another" in problem.what) == ("credentials/twice", False)
    assert read_files({**both, "HF_TOKEN": "hunter2-hunter2\n"}, []) == {"HF_TOKEN": "hunter2-hunter2"}
    assert read_files({**both, "HF_TOKEN": ""}, []) == {"HF_TOKEN": "hunter2-hunter2"}


def test_a_secret_may_come_through_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"hunter2-hunter2\n")
    os.close(writing)
    assert read_files({"HF_TOKEN_FILE": f"/dev/fd/{reading}"}, []) == {"HF_TOKEN": "hunter2-hunter2"}
    os.close(reading)


def test_the_manifest_s_endpoints_name_their_variables() -> None:
    endpoint = {"base_url": "http://a.test/v1", "model": "m"}
    values = {
        "eval": {"judge": {"endpoint": {**endpoint, "api_key_env": "JUDGE_KEY"}}},
        "gate": {"models": [{"endpoint": {**endpoint, "api_key_env": k}} for k in ("A_KEY", None, "JUDGE_KEY")]},
    }
    assert keys_named_in(values) == {
        ("eval", "judge", "endpoint", "api_key_env"): "JUDGE_KEY",
        ("gate", "models", 0, "endpoint", "api_key_env"): "A_KEY",
        ("gate", "models", 2, "endpoint", "api_key_env"): "JUDGE_KEY",
    }


@pytest.fixture
def asks_for_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sound manifest that wants two keys, in an environment without any."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC", "LARGE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "m.yaml"
    path.write_text(
        "name: m\ndata: {train: rows.jsonl}\napproach: {kind: lora, model: smollm2-135m-instruct}\n"
        "gate:\n  task: style\n  models:\n    - endpoint: {base_url: http://a.test/v1, model: m, "
        "api_key_env: LARGE_KEY}\ntracking: {wandb: online}\n"
    )
    return str(path)


def test_validate_says_which_keys_are_not_here_and_refuses_nothing(asks_for_keys: str) -> None:
    code, screen = call("validate", asks_for_keys)
    assert code == Exit.DONE and screen.endswith("1 manifest: no problems\n")
    assert screen.count("note: ") == screen.count("[credentials/missing]") == 2
    assert f"{asks_for_keys}:7:69: note: The key LARGE_KEY is not set here." in screen
    assert f"{asks_for_keys}:8:19: note: There is no key of W&B here." in screen
    code, annotations = call("validate", asks_for_keys, "--format", "github")
    assert (code, annotations.count("::notice ")) == (Exit.DONE, 2)


def test_validate_says_nothing_of_keys_that_are_here(asks_for_keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARGE_KEY_FILE", "/run/secrets/large")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert call("validate", asks_for_keys) == (Exit.DONE, "1 manifest: no problems\n")
