"""The training benchmark measures what it says: verdicts, rounds, counts and formulas; and every arm runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_train.py"
sys.path.insert(0, str(SCRIPT.parent))

from bench import figures, flops, models, neighbour, rows, training  # type: ignore[import-not-found]  # noqa: E402

WITHOUT_PACKAGES = """
import importlib.machinery as machinery, sys
real, hidden = machinery.PathFinder.find_spec, {"datasets", "pyarrow", "trl", "bitsandbytes", "gguf"}
def find(name, path=None, target=None):
    return None if name.split(".")[0] in hidden else real(name, path, target)
machinery.PathFinder.find_spec = staticmethod(find)
import runpy
runpy.run_path(sys.argv.pop(1))["main"](sys.argv[1:])
"""


def line(bar: str = "cpu-train", **changes: Any) -> Any:
    return figures.Line(bar=bar, **changes)


def run(*words: object, start: tuple[str, ...] = ()) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *start, str(SCRIPT), *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_median_of_the_rounds_decides_whether_a_bar_is_met() -> None:
    assert line(values=(2.0, 3.0, 9.0)).verdict == "met"
    assert line(values=(2.0, 2.9, 9.0)).verdict == "not met"
    assert line("gpu-peak", values=(0.4,)).verdict == "met"
    assert line("gpu-peak", values=(0.41,)).verdict == "not met"


def test_what_was_not_measured_is_never_met_and_says_why() -> None:
    assert line(reason="no CUDA device").verdict == "not measured: no CUDA device"
    assert line(values=(9.0,), toy=True).verdict.startswith("not measured")
    assert line(values=(float("nan"),)).verdict.startswith("not measured")
    assert "not measured: no CUDA device" in figures.show([line(reason="no CUDA device")])


def test_every_bar_stands_beside_its_figure() -> None:
    shown = figures.show([line(values=(3.1, 3.2, 3.4), noise=(0.98, 1.01))])
    assert ">= 3x" in shown and "3.10x / 3.20x / 3.40x" in shown and "met" in shown and "0.98x" in shown


def test_arms_take_turns_and_every_second_round_goes_backwards() -> None:
    asked: list[str] = []

    def arm(name: str) -> dict[str, Any]:
        asked.append(name)
        return {"tokens": [10], "seconds": [len(asked)]}

    rounds = figures.in_rounds(["ours", "trl", "tuned", "ours"], 2, arm)
    assert asked == ["ours", "trl", "tuned", "ours", "ours", "tuned", "trl", "ours"]
    assert [len(found["ours"]) for found in rounds] == [2, 2]


def test_a_ratio_is_of_the_same_round_and_a_failed_run_is_left_out_and_named() -> None:
    fast, slow, failed = {"tokens": [60], "seconds": [1]}, {"tokens": [60], "seconds": [3]}, {"failed": "no memory"}
    rounds = [{"ours": [fast, fast], "trl": [slow]}, {"ours": [fast, slow], "trl": [failed]}]
    assert figures.ratios(rounds, "ours", "trl") == (pytest.approx(3.0),)
    assert figures.noise(rounds, "ours") == (pytest.approx(1.0), pytest.approx(3.0))
    assert figures.failures(rounds, "ours", "trl") == "trl: no memory"


def test_different_losses_at_the_first_step_are_called_different() -> None:
    def rounds(mine: float) -> Any:
        return [{"ours": [{"losses": [mine, 9.0]}], "trl": [{"losses": [2.0, 1.0]}]}]

    assert figures.compare_losses(rounds(2.03), "ours", "trl").endswith("equal")
    assert figures.compare_losses(rounds(2.05), "ours", "trl").endswith("DIFFERENT")


def test_steps_of_the_warm_up_are_neither_timed_nor_counted() -> None:
    found = training.timed([1.0, 3.0, 6.0], [100, 10, 20], [5.0, 4.0, 3.0], 1)
    assert (found["seconds"], found["tokens"], found["losses"][0]) == ([2.0, 3.0], [10, 20], 5.0)
    assert figures.rate([found]) == pytest.approx(6.0)


@pytest.mark.parametrize(("size", "rank", "expected"), [("8b", 16, 33.5e9), ("8b", None, 48.2e9)])
def test_model_flops_are_those_of_the_published_table_at_4k(size: str, rank: int | None, expected: float) -> None:
    config = SimpleNamespace(**models.SIZES[size])
    assert flops.flop_per_token(config, 4096, rank) == pytest.approx(expected, rel=0.002)
    assert flops.linear_parameters(config) == pytest.approx(6.979e9, rel=1e-3)
    assert flops.adapter_parameters(config, 16) == pytest.approx(41.9e6, rel=1e-2)


def test_chat_lengths_have_the_mean_that_was_asked_for_and_are_the_same_in_every_arm() -> None:
    drawn = rows.chat_lengths(20_000, 240, 100_000)
    assert drawn.mean() == pytest.approx(240, rel=0.03)
    assert rows.chat_lengths(1000, 240, 512).max() == 512
    assert (rows.chat_lengths(50, 240, 1024) == rows.chat_lengths(50, 240, 1024)).all()


def test_made_up_rows_are_labelled_at_their_end_or_wholly() -> None:
    half = rows.MadeUpRows(np.array([10, 7]), 512)
    whole = rows.MadeUpRows(np.array([10, 7]), 512, all_labelled=True)
    assert half.counts.total.tolist() == [10, 7] and half.counts.labelled.tolist() == [5, 4]
    assert whole.counts.labelled.tolist() == [9, 6] and len(half[0].input_ids) == 10


def test_trl_gets_the_rows_of_a_step_in_our_order_with_the_labels_of_ours() -> None:
    made = rows.MadeUpRows(np.array([8, 6, 9, 7]), 512)
    options = {"warm": 1, "steps": 1, "seed": 0, "hyper": {"batch_size": 2}}
    first, second = training._batches(made, options)
    assert sorted(len(row.input_ids) for row in first + second) == [6, 7, 8, 9]
    pytest.importorskip("datasets")
    labels = training._dataset(first)[0]["labels"]
    (begin, end), ids = first[0].spans[0], first[0].input_ids
    assert labels[:begin] == [-100] * begin and labels[begin:end] == ids[begin:end]


@pytest.mark.long
def test_every_training_arm_of_the_cpu_runs_two_steps_on_the_same_tokens(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    file = tmp_path / "found.json"
    words = ("--model", tiny_model, "--rounds", 1, "--steps", 1, "--batch", 2, "--arm", "trl-tuned", "--json", file)
    shown = run("cpu-train", *words)
    assert "): met" in shown or "): not met" in shown
    assert "equal" in shown and "noise" in shown and "packed" in shown
    (found,) = json.loads(file.read_text())["rounds"]["cpu-train"]
    assert set(found) == {"ours", "trl", "trl-tuned"} and len(found["ours"]) == 2
    assert found["ours"][0]["tokens"] == found["trl"][0]["tokens"]


@pytest.mark.long
def test_both_evaluation_arms_answer_alike(tiny_model: Path) -> None:
    shown = run("cpu-eval", "--model", tiny_model, "--rounds", 1, "--prompts", 3, "--new-tokens", 4)
    assert "equal answers: 6 of 6" in shown and "): " in shown


@pytest.mark.long
def test_the_gpus_parts_run_small_on_any_machine_and_need_no_further_packages(tmp_path: Path) -> None:
    file = tmp_path / "hide.py"
    file.write_text(WITHOUT_PACKAGES)
    shown = run("gpu-train", "--toy", "--rounds", 1, "--steps", 1, start=(str(file),))
    assert "trl is not installed" in shown and "bitsandbytes is not installed" in shown
    assert "ours, full" in shown and "GFLOP a token" in shown


@pytest.mark.long
def test_stock_trl_and_qlora_run_in_the_gpus_parts_too() -> None:
    pytest.importorskip("trl")
    pytest.importorskip("bitsandbytes")
    shown = run("gpu-train", "--toy", "--rounds", 1, "--steps", 1, "--parts", "chat,qlora")
    assert "first-step loss: ours" in shown and "DIFFERENT" not in shown
    assert "Error" not in shown and "not asked for" in shown


@pytest.mark.long
@pytest.mark.parametrize("verb", ["gpu-train", "gpu-eval"])
def test_without_a_gpu_the_gpus_figures_are_not_measured(verb: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert "not measured: no CUDA device" in run(verb)


def test_the_fair_share_is_half_beside_as_many_threads_as_there_are_cores() -> None:
    assert neighbour.fair_share(2, 2, 2) == 0.5
    assert neighbour.fair_share(2, 1, 2) == pytest.approx(2 / 3)
    assert neighbour.fair_share(1, 1, 4) == 1.0


def test_a_neighbour_takes_its_cores_and_is_gone_afterwards() -> None:
    def ticks(pids: list[str]) -> int:
        return sum(
            sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) for pid in pids
        )

    with neighbour.spinning(2):
        time.sleep(2)  # until they have begun, also on a busy machine
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        spinning = [pid for pid in children if b"while os.getppid" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(spinning) == 2
        assert ticks(spinning) > 5, "hundredths of a second"
    assert not any(Path(f"/proc/{pid}").exists() for pid in spinning)


@pytest.mark.long
def test_the_busy_arms_run_and_compute_the_same(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    words = ("--model", tiny_model, "--rounds", 1, "--steps", 1, "--batch", 2, "--json", file)
    assert "of the fair share" in run("cpu-busy", *words)
    (found,) = json.loads(file.read_text())["rounds"]["cpu-busy"]
    assert len({tuple(result["losses"]) for results in found.values() for result in results}) == 1
