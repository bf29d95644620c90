"""A GPU that cannot be used is told before anything is loaded: what the driver answers, through its real libraries'
names and functions; the driver itself is the one stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import Exit, RunnerError
from runner.machine import gpu
from runner.machine.gpu import Gpus, look
from runner.machine.gpu.accelerator import confirm, settle_accelerator
from runner.machine.gpu.faults import CUDA_FAULTS, find_fault

ROOT = Path(__file__).parents[3]
Driver = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to build the stand-in for NVIDIA's driver")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("driver.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source)], check=True)
    shutil.copy(folder / "libcuda.so.1", folder / "libnvidia-ml.so.1")
    return folder


@pytest.fixture
def driver(libraries: Path) -> Driver:
    """The environment of a machine whose driver answers so."""

    def environment(**answers: int) -> dict[str, str]:
        told = {f"FAKE_{name.upper()}": str(value) for name, value in answers.items()}
        return {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(libraries), **told}

    return environment


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine on which nothing speaks for a GPU."""
    return tmp_path


def seen(environment: Mapping[str, str], root: Path, torch_cuda: str | None = "13.0") -> Gpus:
    return replace(look(environment, root), torch="2.13.0", torch_cuda=torch_cuda)


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_gpu_that_works_is_known_by_name_and_driver(driver: Driver, root: Path) -> None:
    found = seen(driver(), root)
    assert (found.names, found.driver, found.cuda, found.num_devices) == (("Fake H100",), "580.65.06", (13, 0), 1)
    assert find_fault(found) is None


@pytest.mark.parametrize(
    ("answers", "slug", "exit_code"),
    [
        ({"cuinit": 100}, "missing", Exit.MANIFEST),
        ({"devices": 0}, "missing", Exit.MANIFEST),
        ({"cuinit": 35}, "driver-too-old", Exit.MANIFEST),
        ({"cuda": 12080}, "driver-too-old", Exit.MANIFEST),
        ({"cuinit": 34}, "stub", Exit.MANIFEST),
        ({"cuinit": 804}, "compat-unsupported", Exit.MANIFEST),
        ({"cuinit": 803}, "driver-mismatch", Exit.UNAVAILABLE),
        ({"nvml": 18}, "driver-mismatch", Exit.UNAVAILABLE),
        ({"cuinit": 46}, "busy", Exit.UNAVAILABLE),
        ({"cuinit": 2}, "busy", Exit.UNAVAILABLE),
        ({"cuinit": 214}, "ecc", Exit.UNAVAILABLE),
        ({"cuinit": 802}, "not-ready", Exit.UNAVAILABLE),
        ({"cuinit": 999}, "unusable", Exit.UNAVAILABLE),
        ({"cuinit": 100, "lost": 1}, "lost", Exit.UNAVAILABLE),
        ({"cuinit": -1}, "no-answer", Exit.UNAVAILABLE),
    ],
)
def test_what_the_driver_answers_has_a_cure_and_an_exit_code(
    driver: Driver, root: Path, answers: dict[str, int], slug: str, exit_code: Exit
) -> None:
    with pytest.raises(RunnerError) as caught:
        settle_accelerator("required", driver(**answers), lambda environment: seen(environment, root))
    (problem,) = caught.value.problems
    assert (problem.code, caught.value.exit_code) == (f"gpu/{slug}", exit_code)
    assert problem.fix and problem.where.key == "approach.accelerator"
    assert "torch 2.13.0, built for CUDA 13.0" in problem.what


def test_a_driver_that_hangs_is_given_up_on(driver: Driver, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ANSWER_SECONDS", 0.5)
    assert (fault := find_fault(seen(driver(cuinit=-2), root))) is not None
    assert fault.slug == "no-answer" and fault.passing


def test_a_driver_that_is_too_old_says_which_one_would_do(driver: Driver, root: Path) -> None:
    found = seen(driver(cuda=12080), root)
    fault = find_fault(found)
    assert fault is not None and "driver 580 or newer" in fault.fix
    assert "driver 580.65.06 (CUDA up to 12.8); torch 2.13.0, built for CUDA 13.0" in fault.problem(found).what


def test_a_driver_of_the_same_major_version_or_a_newer_one_will_do(driver: Driver, root: Path) -> None:
    """CUDA's minor version compatibility."""
    assert find_fault(seen(driver(cuda=12000), root, torch_cuda="12.8")) is None
    assert find_fault(seen(driver(cuda=13000), root, torch_cuda="12.6")) is None


def test_a_torch_without_cuda_cannot_use_the_gpu(driver: Driver, root: Path) -> None:
    fault = find_fault(seen(driver(), root, torch_cuda=""))
    assert fault is not None and fault.slug == "cpu-torch" and not fault.passing


def test_a_torch_whose_build_is_unknown_is_left_to_torch(driver: Driver, root: Path) -> None:
    assert find_fault(seen(driver(), root, torch_cuda=None)) is None


@pytest.mark.parametrize(
    "sign",
    [
        ("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\n"),
        ("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release\n"),
        ("dev/nvidia0", ""),
        ("NVIDIA_VISIBLE_DEVICES", "GPU-8e3c5a2b"),
    ],
)
def test_a_gpu_that_the_container_was_not_given_is_missed(root: Path, sign: tuple[str, str]) -> None:
    name, text = sign
    environment = {name: text} if "/" not in name else {}
    if "/" in name:
        put(root, name, text)
    found = seen(environment, root)
    fault = find_fault(found)
    assert fault is not None and fault.slug == "no-toolkit" and "--gpus all" in fault.fix
    assert found.signs[0] in fault.problem(found).what
    assert found.driver == ("550.54.14" if "version" in name else None)


def test_a_gpu_on_the_bus_is_a_sign_and_a_sound_card_of_nvidias_is_none(root: Path) -> None:
    put(root, "sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n")
    put(root, "sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n")
    assert seen({}, root).signs == ()
    put(root, "sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    put(root, "sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")
    assert seen({}, root).signs == ("there is an NVIDIA GPU on the PCI bus",)


@pytest.mark.parametrize("value", ["", "void", "none", "all"])
def test_what_an_image_sets_for_every_machine_is_no_sign(root: Path, value: str) -> None:
    assert seen({"NVIDIA_VISIBLE_DEVICES": value}, root).signs == ()


def test_on_a_machine_without_a_gpu_auto_says_nothing_and_required_refuses(root: Path) -> None:
    def bare(environment: Mapping[str, str]) -> Gpus:
        return seen(environment, root)

    assert settle_accelerator("auto", {}, bare).problems == []
    with pytest.raises(RunnerError) as caught:
        settle_accelerator("required", {}, bare)
    assert (caught.value.problems[0].code, caught.value.exit_code) == ("gpu/missing", Exit.MANIFEST)


def test_a_plan_is_shown_on_a_machine_without_the_gpu_and_says_how_a_run_would_end(root: Path) -> None:
    settled = settle_accelerator("required", {}, lambda environment: seen(environment, root), refuses=False)
    (problem,) = settled.problems
    assert problem.severity == "warning" and "A run would end here with 78." in problem.what


def test_auto_never_falls_back_in_silence_where_a_gpu_was_meant(driver: Driver, root: Path) -> None:
    put(root, "dev/nvidia0")
    for code in CUDA_FAULTS:
        settled = settle_accelerator("auto", driver(cuinit=code), lambda environment: seen(environment, root))
        (problem,) = settled.problems
        assert problem.severity == "warning" and "The processors are used instead." in problem.fix


def test_a_lost_gpu_among_good_ones_and_uncorrected_errors_are_warnings(driver: Driver, root: Path) -> None:
    environment = driver(nvml_devices=2, lost=1, ecc=3)
    settled = settle_accelerator("required", environment, lambda environment: seen(environment, root))
    assert [(p.code, p.severity) for p in settled.problems] == [("gpu/lost", "warning"), ("gpu/ecc", "warning")]
    assert settled.usable


def test_none_hides_the_gpu_and_does_not_look() -> None:
    def never(environment: Mapping[str, str]) -> Gpus:
        raise AssertionError("looked")

    environment = {"CUDA_VISIBLE_DEVICES": "3"}
    assert settle_accelerator("none", environment, never).problems == ()
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_a_person_who_hides_the_gpus_is_not_warned_but_refused_where_one_is_required(driver: Driver) -> None:
    environment = {**driver(), "CUDA_VISIBLE_DEVICES": ""}
    assert settle_accelerator("auto", environment).problems == []
    with pytest.raises(RunnerError) as caught:
        settle_accelerator("required", environment)
    assert caught.value.problems[0].code == "gpu/hidden"


def test_torch_has_the_last_word(driver: Driver, root: Path) -> None:
    settled = settle_accelerator("auto", driver(), lambda environment: seen(environment, root))
    assert confirm("auto", settled, ["Fake H100"]) == []
    (problem,) = confirm("auto", settled, [])
    assert (problem.code, problem.severity) == ("gpu/torch-refuses", "warning")
    with pytest.raises(RunnerError) as caught:
        confirm("required", settled, [])
    assert caught.value.exit_code == Exit.UNAVAILABLE


@pytest.mark.parametrize(
    ("answers", "slug", "exit_code"), [({"cuinit": 46}, "busy", 69), ({"cuda": 9000}, "driver-too-old", 78)]
)
def test_the_command_refuses_before_anything_is_loaded(
    driver: Driver, tmp_path: Path, answers: dict[str, int], slug: str, exit_code: int
) -> None:
    """A model that nobody could fetch is never asked for, and no torch is there that could be loaded."""
    build = tmp_path / "packages/torch"
    put(tmp_path, "packages/torch/version.py", "__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\n")
    put(tmp_path, "packages/torch/__init__.py", "raise SystemExit('torch was loaded')\n")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "runner", "manifests/brand-voice.yaml", "--out", str(out)]
    environment = {**os.environ, **driver(**answers), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = f"{build.parent}:{ROOT}"
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "torch was loaded" in done.stdout + done.stderr) == (exit_code, False), done.stdout
    (problem,) = json.loads((out / "report.json").read_text())["problems"]
    assert problem["code"] == f"gpu/{slug}" and problem["where"]["line"], "its place in the manifest is known"


def test_torchs_build_is_read_without_loading_it() -> None:
    import torch

    found = look({})
    assert (found.torch, found.torch_cuda) == (torch.__version__, torch.version.cuda or "")
