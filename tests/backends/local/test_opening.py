"""Models that could run code here: pickled weights are never loaded, and code that comes along only when trusted."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runner.backends import local
from runner.backends.local.adapt import open_adapter
from runner.backends.local.ranks.job import RankJob
from runner.errors import Exit, RunnerError
from tests.backends.local.test_session import job
from tests.errors import call
from tests.fakes import FakeWatch

RUNS = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({mark!r}).write_text("the code ran")
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


class Evil:
    """What a pickle may be: loading it calls any function."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "the pickle ran")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Where code that runs leaves word."""
    return tmp_path / "mark"


@pytest.fixture
def with_code(tiny_model: Path, tmp_path: Path, mark: Path) -> Path:
    """The tiny model as one of a family of its own, whose Python code lies beside the weights."""
    folder = shutil.copytree(tiny_model, tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": auto}))
    (folder / "own.py").write_text(RUNS.format(mark=str(mark)))
    return folder


def refusal(model: Path, cache: Path) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        local.open_session(str(model), "lora", cache, FakeWatch())
    return caught.value


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies a model's code."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def test_code_that_comes_with_a_model_does_not_run(with_code: Path, mark: Path, tmp_path: Path) -> None:
    error = refusal(with_code, tmp_path)
    assert error.exit_code == Exit.MANIFEST
    (problem,) = error.problems
    assert problem.code == "model/remote-code" and "--trust-remote-code" in problem.fix
    assert not mark.exists()


def test_trusted_code_runs_and_stays_trusted_when_the_model_is_opened_again(
    with_code: Path, mark: Path, tmp_path: Path
) -> None:
    session: Any = local.open_session(str(with_code), "lora", tmp_path, FakeWatch(), trust_remote_code=True)
    assert mark.read_text() == "the code ran"
    assert type(session._weights()).__name__ == "OwnModel"
    assert session.reopen("adapter", with_code)._trust is True
    usual: Any = local.open_session(str(with_code), "lora", tmp_path, FakeWatch(), trust_remote_code=True)
    assert session._signature() == usual._signature()


@pytest.mark.parametrize("trust", [False, True])
def test_ranks_trust_what_rank_0_does(trust: bool, tiny_model: Path, tmp_path: Path) -> None:
    session: Any = local.open_session(str(tiny_model), "lora", tmp_path, FakeWatch(), trust_remote_code=trust)
    told = session._tell(job(tmp_path / "job"))
    assert RankJob.read(told.write()).trust_remote_code is told.trust_remote_code is trust


def test_the_flag_is_part_of_what_a_run_is(with_code: Path, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "name: m\ndata: {train: rows.jsonl}\napproach: {kind: lora, model: ./own}\ngate: {task: style}\n"
        "tracking: {wandb: off}\n"
    )
    reports = []
    for flags in ((), ("--trust-remote-code",)):
        call("run", str(manifest), "--out", str(tmp_path / f"out{len(flags)}"), *flags)
        reports.append(json.loads((tmp_path / f"out{len(flags)}" / "report.json").read_text()))
        lock = json.loads((tmp_path / f"out{len(flags)}" / "run.lock.json").read_text())
        assert lock["manifest"]["trust_remote_code"] is reports[-1]["manifest"]["trust_remote_code"] is bool(flags)
    assert reports[0]["exit_code"] == Exit.MANIFEST and reports[0]["problems"][0]["code"] == "model/remote-code"
    assert reports[0]["run_id"] != reports[1]["run_id"] and mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "consolidated.00.pth"])
def test_pickled_weights_are_refused_before_anything_is_read(
    name: str, tiny_model: Path, tmp_path: Path, mark: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    (problem,) = local.check(str(folder))
    assert problem.code == "model/unsafe" and name in problem.what and "safetensors" in problem.fix
    session: Any = local.open_session(str(folder), "lora", tmp_path, FakeWatch())
    with pytest.raises(RunnerError) as caught:
        session._weights()
    assert caught.value.problems[0].code == "model/weights" and not mark.exists()


def test_a_pickle_beside_safetensors_is_left_alone(tiny_model: Path, tmp_path: Path, mark: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "both")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(mark)))
    assert local.check(str(folder)) == []
    session: Any = local.open_session(str(folder), "lora", tmp_path, FakeWatch())
    state, saved = session._weights().state_dict(), load_file(folder / "model.safetensors")
    assert all(torch.equal(state[name].to(value.dtype), value) for name, value in saved.items()) and not mark.exists()


def test_an_adapter_is_no_model(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "adapter")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/etc"}))
    (problem,) = local.check(str(folder))
    assert problem.code == "model/unsafe" and "adapter" in problem.what
    session: Any = local.open_session(str(folder), "lora", tmp_path, FakeWatch())  # as one of the hub gets so far
    with pytest.raises(RunnerError) as caught:
        session._weights()
    assert [found.code for found in caught.value.problems] == ["model/unsafe"]


def test_a_pickled_adapter_is_not_loaded(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(FileNotFoundError, match="safetensors"):
        open_adapter(None, tmp_path)
    assert not mark.exists()
