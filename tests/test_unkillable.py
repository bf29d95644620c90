"""A run that is killed, stopped, out of disk or out of memory ends, once it is started again, as one left alone.

`scripts/soak_kill.py` does the first of these for longer, and with several processes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runner.backends.base import TrainedModel
from runner.backends.local import loop
from runner.errors import Exit, Interrupted, RunnerError
from runner.identity import identify
from runner.manifest import load_manifest
from runner.rundir import RunDirectory
from tests.backends.local.test_loop import dev_losses, make_job, train_losses
from tests.backends.local.test_session import open_session
from tests.fakes import FakeWatch
from tests.whole_runs import (
    MARK,
    Different,
    Run,
    left_alone,
    make_experiment,
    processes,
    result,
    saved_step,
    unfinished,
)

SCRIPT = Path(__file__).parents[1] / "scripts" / "soak_kill.py"
STOP_SECONDS = 5.0 * float(os.environ.get("RUNNER_TEST_SLOWNESS", "2"))  # 1 is the bar on a quiet machine
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Any, Mapping[str, Any]]:
    """An experiment of two processes, and the result of its run when it is left alone."""
    folder = tmp_path_factory.mktemp("pair")
    experiment = make_experiment(folder, tiny_model, ranks=2, num_steps=40)
    return experiment, left_alone(experiment, folder / "alone")


def wait_for(reached: Callable[[], bool], run: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert not run.is_over and time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_five_kills_change_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    done = script.soak(tmp_path, kills=5, per_run=5, seed=1, say=lines.append)
    assert len(done.kills) == 5
    assert sum(done.resumed.values()) > 0
    assert lines[-1].endswith("the same")


def test_the_soak_tells_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        def __init__(self, *_: Any) -> None: ...
        def wait(self) -> int:
            return 0

    monkeypatch.setattr(script, "Run", Ended)
    found = {"weights_sha256": "a", "curve": [1.0]}
    monkeypatch.setattr(script, "result", lambda out: found)
    script._check_end(None, tmp_path, found)
    with pytest.raises(Different, match="curve"):
        script._check_end(None, tmp_path, {**found, "curve": [1.5]})


def test_the_soak_finds_what_was_left_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: "left"}, start_new_session=True)
    try:
        deadline = time.monotonic() + 5
        while processes("left") != [process.pid]:
            assert time.monotonic() < deadline
    finally:
        process.kill()
        process.wait()
    assert processes("left") == []


def test_the_soak_tells_a_save_from_a_removal(tmp_path: Path) -> None:
    def folder(name: str, *, committed: bool) -> None:
        path = tmp_path / "train" / "checkpoints" / name
        path.mkdir(parents=True)
        if committed:
            (path / "COMMIT.json").touch()

    assert (unfinished(tmp_path), saved_step(tmp_path)) == (None, 0)
    folder("checkpoint-000002", committed=True)
    assert (unfinished(tmp_path), saved_step(tmp_path)) == (None, 2)
    folder("checkpoint-000003", committed=False)
    assert (unfinished(tmp_path), saved_step(tmp_path)) == ("save", 2)
    folder("best-000003", committed=False)
    assert unfinished(tmp_path) == "save of best"
    folder("checkpoint-000004", committed=True)
    folder("best-000004", committed=True)
    assert unfinished(tmp_path) == "removing"


@pytest.mark.long
def test_the_death_of_any_process_ends_them_all_and_loses_nothing(
    pair: tuple[Any, Mapping[str, Any]], tmp_path: Path
) -> None:
    experiment, expected = pair
    for victim, code, step in (("runner", -signal.SIGKILL, 3), ("rank", Exit.IO, 8)):
        run = Run(experiment, tmp_path / "run")
        wait_for(lambda run=run, step=step: saved_step(run.out) >= step, run)
        os.kill(run.members()[victim][-1], signal.SIGKILL)
        assert run.wait(60) == code
    assert Run(experiment, tmp_path / "run").wait() == 0
    assert result(tmp_path / "run") == expected


@pytest.mark.long
def test_no_rank_outlives_torchrun_even_while_it_starts(pair: tuple[Any, Mapping[str, Any]], tmp_path: Path) -> None:
    experiment, _ = pair
    run = Run(experiment, tmp_path / "run")
    wait_for(lambda: len(run.members().get("rank", [])) == 2, run)
    os.kill(run.members()["torchrun"][0], signal.SIGKILL)
    assert run.wait(60) == Exit.IO


def stop(run: Any, step: int) -> tuple[int, Any]:
    """Asks a run to stop once a step is saved; its exit code and report."""
    wait_for(lambda: saved_step(run.out) >= step, run)
    asked = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    code = run.wait(60)
    seconds = time.monotonic() - asked
    assert seconds < STOP_SECONDS, seconds
    return code, json.loads((run.out / "report.json").read_text())


@pytest.mark.slow
def test_two_processes_stop_soon_whoever_started_them_and_go_on_later(
    pair: tuple[Any, Mapping[str, Any]], tmp_path: Path
) -> None:
    """Torchrun itself ends with 1 whenever its processes do not end with 0, so there the report has to say it."""
    experiment, expected = pair
    code, report = stop(Run(experiment, tmp_path / "run"), 3)
    assert code == report["exit_code"] == Exit.INTERRUPTED
    code, report = stop(Run(experiment, tmp_path / "run", *TORCHRUN), 8)
    assert code != 0
    assert (report["status"], report["exit_code"]) == ("interrupted", Exit.INTERRUPTED)
    assert Run(experiment, tmp_path / "run", *TORCHRUN).wait() == 0
    assert result(tmp_path / "run") == expected
    training = json.loads((tmp_path / "run" / "report.json").read_text())["training"]
    assert (training["num_processes"], training["strategy"]) == (2, "replicated")
    first, second = training["resumed_from"]
    assert 3 <= first < second


@pytest.mark.slow
def test_a_full_disk_ends_with_74_and_loses_nothing(
    tiny_model: Path, tmp_path: Path, small_disk: Callable[[Path, str], None]
) -> None:
    experiment = make_experiment(tmp_path / "made", tiny_model, method="full", num_steps=12)
    expected = left_alone(experiment, tmp_path / "alone")
    out = tmp_path / "run"
    directory = RunDirectory(out)
    directory.write_json("run.lock.json", {"run_id": identify(load_manifest(experiment.manifest))})
    directory.close()
    small_disk(out / "train", "3m")
    assert Run(experiment, out).wait() == Exit.IO
    [problem] = [p for p in json.loads((out / "report.json").read_text())["problems"] if p["severity"] == "error"]
    assert problem["code"] == "train/disk-full"
    saved = saved_step(out)
    assert saved >= 1
    assert unfinished(out) is None, "nothing half written is left"
    small_disk(out / "train", "64m")
    assert Run(experiment, out).wait() == 0
    assert result(out) == expected
    assert json.loads((out / "report.json").read_text())["training"]["resumed_from"] == [saved]


class FullMemory:
    """From a step on, memory is full whenever a pack has more tokens than fit."""

    def __init__(self, from_step: int, fits: Callable[[int, bool], bool]):
        self.from_step, self.fits = from_step, fits
        self.step, self.sizes = 0, list[tuple[int, int]]()
        self._losses = loop.answer_losses

    def __call__(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        tokens, again = batch["input_ids"].numel(), bool(model.is_gradient_checkpointing)
        if model.training and self.step >= self.from_step and not self.fits(tokens, again):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if model.training and self.step:
            self.sizes.append((self.step, tokens))
        return self._losses(model, batch)


class CountingSteps(FakeWatch):
    """Tells the memory which step has been done."""

    def __init__(self, memory: FullMemory):
        super().__init__()
        self._memory = memory

    def log(self, values: Any, step: int) -> None:
        if "train/loss" in values:
            self._memory.step = step


def train_with(memory: FullMemory | None, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> TrainedModel:
    made = make_job(folder, epochs=2)
    with monkeypatch.context() as patch:
        if memory:
            patch.setattr(loop, "answer_losses", memory)
        watch = CountingSteps(memory) if memory else FakeWatch()
        return open_session(model, folder).train(made, watch)


def test_when_memory_runs_out_it_goes_on_in_smaller_pieces(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_with(None, tiny_model, tmp_path / "whole", monkeypatch)
    limit = 130
    memory = FullMemory(4, lambda tokens, again: tokens <= limit)
    cut = train_with(memory, tiny_model, tmp_path / "cut", monkeypatch)
    assert cut.memory.micro_batch_tokens < whole.memory.micro_batch_tokens
    assert any(tokens > limit for step, tokens in memory.sizes if step < 4), "steps before were not repeated"
    assert all(tokens <= limit for step, tokens in memory.sizes if step >= 4)
    assert not cut.memory.activation_checkpointing
    assert cut.train_tokens == whole.train_tokens, "the global batch is what it was"
    assert [(p.step, p.learning_rate) for p in cut.curve] == [(p.step, p.learning_rate) for p in whole.curve]
    assert train_losses(cut) == pytest.approx(train_losses(whole), abs=1e-4)
    assert dev_losses(cut) == pytest.approx(dev_losses(whole), abs=1e-4)
    one, other = (load_file(tmp_path / n / "model" / "adapter_model.safetensors") for n in ("whole", "cut"))
    for name, weights in one.items():
        assert torch.allclose(weights, other[name], atol=2e-3), "Adam turns rounding into small steps"


def test_at_the_smallest_piece_activations_are_computed_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_with(None, tiny_model, tmp_path / "whole", monkeypatch)
    cut = train_with(FullMemory(4, lambda tokens, again: again), tiny_model, tmp_path / "cut", monkeypatch)
    assert cut.memory.activation_checkpointing
    assert cut.num_steps == whole.num_steps
    assert train_losses(cut) == pytest.approx(train_losses(whole), abs=1e-4)


def test_where_nothing_fits_it_says_what_to_change(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunnerError) as caught:
        train_with(FullMemory(4, lambda tokens, again: False), tiny_model, tmp_path, monkeypatch)
    assert not isinstance(caught.value, Interrupted)
    assert caught.value.exit_code == Exit.MANIFEST
    [problem] = caught.value.problems
    assert problem.code == "train/out-of-memory"
    assert "max_length" in problem.fix


def test_what_memory_held_is_known_to_the_next_attempt(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_with(None, tiny_model, tmp_path / "whole", monkeypatch)
    memory = FullMemory(4, lambda tokens, again: tokens <= 130)
    cut = train_with(memory, tiny_model, tmp_path / "cut", monkeypatch)
    (tmp_path / "cut" / "train" / "outcome.json").unlink()
    again = train_with(None, tiny_model, tmp_path / "cut", monkeypatch)
    assert again.memory.micro_batch_tokens == cut.memory.micro_batch_tokens < whole.memory.micro_batch_tokens
