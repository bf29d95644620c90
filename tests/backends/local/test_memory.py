"""The memory plan: the formula against what autograd keeps, laws of the plan, and probes with a known need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig

from runner.backends.local.encode import Encoded
from runner.backends.local.fused_lora import fuse
from runner.backends.local.generate import packed_rows
from runner.backends.local.head import answer_losses
from runner.backends.local.memory import (
    MemoryPlan,
    PeakMeter,
    Shape,
    available_bytes,
    estimate,
    halved,
    held_bytes,
    is_out_of_memory,
    parts,
    plan_memory,
    probe,
    shape_of,
)
from runner.backends.local.pack import pack
from runner.errors import Exit, RunnerError

MB = 1_000_000
GB = 1_000_000_000
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)
MIDDLE = LlamaConfig(
    vocab_size=1024,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
)
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, its memory is what counts")


def shape(config: Any = MIDDLE, method: str = "lora", targets: Sequence[str] | None = None, **changes: Any) -> Shape:
    options = {"rank": 16, "top_layers": None, "dora": False, "gathered": True} | changes
    return shape_of(config, method=method, target_modules=targets, **options)


EIGHT_B = shape(LLAMA_8B)


# ---------------------------------------------------------------------------------------------------------- the shape


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("top_layers", [None, 1, 7])
@pytest.mark.parametrize("targets", [None, ("q_proj", "v_proj"), ("down_proj",), ("mlp.up_proj", "o_proj")])
def test_adapter_parameters_are_those_that_peft_makes(
    tiny_model: Path, targets: tuple[str, ...] | None, top_layers: int | None, dora: bool
) -> None:
    config = AutoConfig.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    base = sum(p.numel() for p in model.parameters())
    layers = None if top_layers is None else list(range(max(0, 2 - top_layers), 2))
    names = list(targets or NAMES)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=names, layers_to_transform=layers, use_dora=dora))
    found = shape(config, targets=targets, rank=4, top_layers=top_layers, dora=dora)
    assert found.trainable_parameters == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert found.num_parameters == base


def test_all_linear_layers_of_another_family_get_an_adapter_as_in_peft() -> None:
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    adapted = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=4, target_modules="all-linear"))
    found = shape(config, rank=4)
    assert found.trainable_parameters == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert not found.gated and found.intermediate == 128


def test_an_8b_llama_has_its_published_counts() -> None:
    found = shape(LLAMA_8B)
    assert found.num_parameters == 8_030_261_248
    assert found.trainable_parameters == 41_943_040
    assert (found.query_width, found.kv_width, found.num_layers) == (4096, 1024, 32)


def test_tied_embeddings_count_once_and_are_never_quantised() -> None:
    tied = LlamaConfig(**{**MIDDLE.to_dict(), "tie_word_embeddings": True})
    assert shape(MIDDLE).num_parameters - shape(tied).num_parameters == 1024 * 128
    linear = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352)
    assert shape(tied, "qlora").quantised_parameters == shape(MIDDLE, "qlora").quantised_parameters == linear
    assert shape(MIDDLE, "lora").quantised_parameters == 0


def test_a_full_tune_of_the_top_layers_trains_only_their_parameters() -> None:
    layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352 + 2 * 128
    assert shape(method="full", top_layers=2).trainable_parameters == 2 * layer
    assert shape(method="full").trainable_parameters == shape().num_parameters


# -------------------------------------------------------------------------------------------------------- the formula


def kept_by_autograd(
    method: str, targets: Sequence[str] | None, top_layers: int | None, dtype: torch.dtype, *, dora: bool = False
) -> int:
    """Bytes of all tensors kept for the backward pass of 4 rows of 64 tokens, without logits and weights."""
    model = AutoModelForCausalLM.from_config(MIDDLE, dtype=dtype)
    if method == "lora":
        layers = None if top_layers is None else list(range(4 - top_layers, 4))
        names = list(targets or NAMES)
        config = LoraConfig(r=16, target_modules=names, layers_to_transform=layers, use_dora=dora)
        model = get_peft_model(model, config)
        fuse(model)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    rows = [Encoded(torch.randint(5, 1000, (64,)).tolist(), [(63, 64)]) for _ in range(4)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), packed_rows(model):
        losses = answer_losses(model, pack(rows))
    assert losses.requires_grad
    return sum(storage.nbytes() for storage in kept.values()) - len(losses) * 1024 * 4


@pytest.mark.parametrize(
    ("method", "targets", "top_layers", "dtype"),
    [
        ("lora", None, None, torch.bfloat16),
        ("lora", None, None, torch.float32),
        ("lora", ("q_proj", "v_proj"), None, torch.bfloat16),
        ("lora", ("q_proj", "k_proj", "v_proj", "o_proj"), None, torch.bfloat16),
        ("lora", None, 2, torch.bfloat16),
        ("full", None, None, torch.float32),
    ],
)
def test_activations_are_those_that_autograd_keeps(
    method: str, targets: Sequence[str] | None, top_layers: int | None, dtype: torch.dtype
) -> None:
    found = parts(
        shape(method=method, targets=targets, top_layers=top_layers),
        method,
        tokens=256,
        labelled_tokens=4,
        weight_bytes=dtype.itemsize,
        activation_checkpointing=False,
    )
    assert found.activations == pytest.approx(kept_by_autograd(method, targets, top_layers, dtype), rel=0.04)


def test_dora_keeps_its_outputs_too() -> None:
    step: dict[str, Any] = {"tokens": 256, "labelled_tokens": 4, "weight_bytes": 2, "activation_checkpointing": False}
    kept = kept_by_autograd("lora", None, None, torch.bfloat16, dora=True)
    assert parts(shape(dora=True), "lora", **step).activations == pytest.approx(kept, rel=0.15)  # it also keeps weights


REAL_STEP = """
import ctypes, torch
from transformers import AutoModelForCausalLM, LlamaConfig
from peft import LoraConfig, get_peft_model
from runner.backends.local.encode import Encoded
from runner.backends.local.fused_lora import fuse
from runner.backends.local.generate import packed_rows
from runner.backends.local.memory import PeakMeter
from runner.backends.local.head import answer_losses
from runner.backends.local.pack import pack
torch.manual_seed(0)
config = LlamaConfig(vocab_size=8192, hidden_size=256, intermediate_size=704, num_hidden_layers=4,
                     num_attention_heads=8, num_key_value_heads=4)
model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=16, target_modules="all-linear"))
fuse(model)
# By itself the C library keeps freed blocks under 32 MB for later, which would be measured too.
for setting in (-1, -3):  # the limits of what it gives back and of what it maps apart
    ctypes.CDLL(None).mallopt(setting, 65536)
for num_rows in (1, 2, 6):
    rows = [Encoded(torch.randint(5, 8000, (512,)).tolist(), [(384, 512)]) for _ in range(num_rows)]
    with PeakMeter() as meter, packed_rows(model):
        answer_losses(model, pack(rows)).sum().backward()
    print(meter.bytes)
"""


@on_cpu
@pytest.mark.long
def test_a_real_process_needs_for_each_token_what_the_formula_says() -> None:
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", REAL_STEP], env=one_thread, check=True, capture_output=True, text=True)
    small, large = (int(line) for line in ran.stdout.splitlines()[-2:])
    figures = [
        need(shape(config), tokens=tokens, labelled_tokens=tokens // 4, weight_bytes=4) for tokens in (1024, 3072)
    ]
    assert figures[1] - figures[0] == pytest.approx(large - small, rel=0.1)


def need(of: Shape, method: str = "lora", **changes: Any) -> int:
    step = {"tokens": 1000, "labelled_tokens": 200, "weight_bytes": 2, "activation_checkpointing": False} | changes
    return estimate(of, method, **step)


@given(tokens=st.integers(1, 100_000), more=st.integers(1, 100_000))
@pytest.mark.parametrize("again", [False, True])
def test_more_tokens_need_more_memory(again: bool, tokens: int, more: int) -> None:
    of = EIGHT_B
    assert need(of, tokens=tokens, activation_checkpointing=again) < need(
        of, tokens=tokens + more, activation_checkpointing=again
    )


def test_each_choice_moves_the_need_as_it_should() -> None:
    of = EIGHT_B
    assert need(of, labelled_tokens=900) > need(of)
    assert need(of, labelled_tokens=900, logits_bytes=256 * MB) < need(of, labelled_tokens=900)
    assert need(of, weight_bytes=4) > need(of)
    assert need(of, activation_checkpointing=True) < need(of)
    assert need(shape(LLAMA_8B, "qlora"), "qlora") < need(of) < need(shape(LLAMA_8B, "full"), "full")
    assert need(shape(LLAMA_8B, dora=True)) > need(of)
    assert need(shape(LLAMA_8B, fused=False)) > need(of) > need(shape(LLAMA_8B, gathered=False))


def test_weights_and_optimizer_are_those_of_the_method() -> None:
    step: dict[str, Any] = {"tokens": 1, "labelled_tokens": 1, "weight_bytes": 2, "activation_checkpointing": False}
    lora, qlora = parts(EIGHT_B, "lora", **step), parts(shape(LLAMA_8B, "qlora"), "qlora", **step)
    full = parts(shape(LLAMA_8B, "full"), "full", **(step | {"weight_bytes": 4}))
    assert lora.weights == 2 * 8_030_261_248 + 4 * 41_943_040 and lora.optimizer == 12 * 41_943_040
    assert qlora.optimizer == lora.optimizer and 5.7 * GB < qlora.weights < 6.0 * GB
    assert full.weights + full.optimizer == 16 * 8_030_261_248
    assert lora.total == lora.weights + lora.optimizer + lora.activations + max(lora.head, lora.block)


# ----------------------------------------------------------------------------------------------------------- the plan


def planned(available: int | None, longest: int = 2048, step_tokens: int = 32_768, **changes: Any) -> MemoryPlan:
    options = {"labelled_share": 0.3, "weight_bytes": 2} | changes
    return plan_memory(EIGHT_B, "lora", longest=longest, step_tokens=step_tokens, available=available, **options)


@given(
    available=st.integers(GB, 300 * GB),
    more=st.integers(0, 100 * GB),
    longest=st.integers(16, 8192),
    times=st.floats(1, 40),
)
def test_a_plan_keeps_its_laws(available: int, more: int, longest: int, times: float) -> None:
    step = int(longest * times)
    plan, richer = planned(available, longest, step), planned(available + more, longest, step)
    assert longest <= plan.micro_batch_tokens <= step
    assert plan.activation_checkpointing or not richer.activation_checkpointing
    if plan.activation_checkpointing == richer.activation_checkpointing:
        assert plan.micro_batch_tokens <= richer.micro_batch_tokens
    if plan.fits and plan.micro_batch_tokens > longest:
        assert plan.estimate_bytes <= 0.9 * available
    line = plan.fixed_bytes + plan.bytes_per_token * plan.micro_batch_tokens
    assert plan.estimate_bytes == pytest.approx(line)


def test_a_plan_fills_nine_tenths_of_what_is_there() -> None:
    plan = planned(80 * GB, step_tokens=10**6)
    assert 0.899 * 80 * GB < plan.estimate_bytes <= 0.9 * 80 * GB
    assert not plan.activation_checkpointing and not plan.measured


def test_activations_are_recomputed_only_where_the_longest_row_does_not_fit() -> None:
    edge = planned(None).estimate_bytes
    assert not planned(edge).activation_checkpointing
    assert planned(edge - 1).activation_checkpointing
    assert planned(80 * GB, activation_checkpointing=True).activation_checkpointing


def test_unknown_memory_gives_the_longest_row_at_a_time() -> None:
    plan = planned(None)
    assert plan.micro_batch_tokens == 2048 and plan.fits is None


def test_what_the_process_holds_already_is_part_of_the_need() -> None:
    assert planned(80 * GB, base_bytes=GB).fixed_bytes == planned(80 * GB).fixed_bytes + GB


def test_a_plan_that_cannot_fit_is_shown_and_says_so() -> None:
    plan = planned(4 * GB)
    assert plan.fits is False and plan.activation_checkpointing and plan.micro_batch_tokens == 2048


# ----------------------------------------------------------------------------------------------------- what is there


def machine(root: Path, files: dict[str, str]) -> Path:
    """A machine with 1,000 kB left, and these files."""
    for name, text in {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    1000 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def version_2(folder: str, limit: str, usage: int, droppable: int = 0) -> dict[str, str]:
    return {
        f"sys/fs/cgroup/{folder}memory.max": limit,
        f"sys/fs/cgroup/{folder}memory.current": str(usage),
        f"sys/fs/cgroup/{folder}memory.stat": f"anon 7\ninactive_file {droppable}\n",
    }


def test_a_machine_without_limits_has_what_is_available(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", **version_2("", "max", 5)}
    assert available_bytes(machine(tmp_path, files)) == 1_024_000


def test_what_the_process_holds_is_its_to_keep(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, {"proc/self/status": "VmRSS: 9 kB\nRssAnon: 5 kB\n"})) == 1005 * 1024


def test_the_limit_of_a_container_counts_without_the_page_cache_in_it(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/job\n", **version_2("job/", "500000", 300_000, droppable=100_000)}
    assert available_bytes(machine(tmp_path, files)) == 300_000


def test_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    outer, inner = version_2("pod/", "400000", 350_000), version_2("pod/job/", "900000", 10)
    assert available_bytes(machine(tmp_path, {"proc/self/cgroup": "0::/pod/job\n", **outer, **inner})) == 50_000


def test_a_container_that_sees_only_its_own_group_finds_the_limit_at_the_top(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/host/path/unseen\n", **version_2("", "200000", 50_000)}
    assert available_bytes(machine(tmp_path, files)) == 150_000


def test_limits_of_the_first_version_count_too(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "9:cpu,cpuacct:/\n4:memory:/job\n0::/\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "600000\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "500000\n",
        "sys/fs/cgroup/memory/job/memory.stat": "inactive_file 9\ntotal_inactive_file 50000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "700000\n",
    }
    assert available_bytes(machine(tmp_path, files)) == 150_000


def test_an_overdrawn_group_leaves_nothing_rather_than_less(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, {"proc/self/cgroup": "0::/\n", **version_2("", "10", 50)})) == 0


def test_a_system_that_tells_nothing_is_unknown(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None


@on_cpu
def test_the_peak_is_seen_after_it_has_gone() -> None:
    before = held_bytes()
    with PeakMeter() as first:
        torch.ones(20_000_000)
    with PeakMeter() as second:
        torch.ones(1_000)
    assert first.bytes is not None and second.bytes is not None
    assert first.bytes > before + 70 * MB
    assert second.bytes < first.bytes - 40 * MB


@on_cpu
def test_the_peak_is_sampled_where_the_system_keeps_none(tmp_path: Path) -> None:
    (tmp_path / "clear_refs").mkdir()  # cannot be written to
    (tmp_path / "status").symlink_to("/proc/self/status")
    before = held_bytes()
    with PeakMeter(tmp_path) as meter:
        block = torch.ones(20_000_000)
        assert meter._sampler is not None
        meter._sampler.join(0.1)
        del block
    assert meter.bytes is not None and meter.bytes > before + 70 * MB


@on_cpu
def test_a_peak_that_nobody_can_know_is_none(tmp_path: Path) -> None:
    with PeakMeter(tmp_path / "nowhere") as meter:
        pass
    assert meter.bytes is None


@pytest.mark.gpu
def test_the_peak_on_a_gpu_is_what_was_allocated() -> None:
    before = held_bytes()
    with PeakMeter() as meter:
        torch.ones(20_000_000, device="cuda")
    assert meter.bytes is not None and 80 * MB <= meter.bytes - before < 90 * MB
    assert (available_bytes() or 0) > held_bytes()


# ------------------------------------------------------------------------------------------------------------- probes


@dataclass
class FakeMachine:
    """A model that needs `fixed` + `per_token` x tokens bytes where there are `threshold`; it measures itself."""

    fixed: int
    per_token: float
    threshold: float
    grain: int = 1
    asked: list[int] = field(default_factory=list)
    bytes: int | None = None
    blind: bool = False

    def need(self, tokens: int) -> float:
        return self.fixed + self.per_token * tokens

    def run(self, tokens: int) -> int:
        used = -(-tokens // self.grain) * self.grain
        self.asked.append(used)
        if self.need(used) > self.threshold:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.bytes = None if self.blind else int(self.need(used))
        return used

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def first_plan(available: int | None, per_token: float = 1000.0, **changes: Any) -> MemoryPlan:
    plan = MemoryPlan(
        available_bytes=available,
        estimate_bytes=1,
        fixed_bytes=0,
        bytes_per_token=per_token,
        micro_batch_tokens=100,
        activation_checkpointing=False,
        measured=False,
    )
    return replace(plan, **changes)


def probed(machine: FakeMachine, first: MemoryPlan, longest: int = 100, step_tokens: int = 10_000) -> MemoryPlan:
    return probe(machine.run, first, longest=longest, step_tokens=step_tokens, meter=lambda: machine)


@given(
    fixed=st.integers(0, 10**9),
    per_token=st.integers(1, 10**6),
    guessed=st.sampled_from([0.0, 0.5, 1.0, 1.5, 4.0]),
    rows=st.floats(1.0, 500.0),
    longest=st.integers(16, 4096),
    times=st.floats(0.5, 100),
    grain=st.integers(1, 50),
    optimizer=st.integers(0, 10**8),
)
def test_a_probed_plan_never_needs_more_than_there_is(
    fixed: int, per_token: int, guessed: float, rows: float, longest: int, times: float, grain: int, optimizer: int
) -> None:
    available = int(fixed + optimizer + per_token * (longest + grain) * rows)
    machine = FakeMachine(fixed=fixed, per_token=per_token, threshold=available, grain=grain)
    first = first_plan(available, per_token * guessed, optimizer_bytes=optimizer)
    plan = probed(machine, first, longest, int(longest * times))
    assert plan.measured and not plan.activation_checkpointing
    assert longest <= plan.micro_batch_tokens <= max(longest, int(longest * times))
    assert machine.need(plan.micro_batch_tokens) + optimizer <= available
    if guessed >= 1 and plan.micro_batch_tokens >= machine.asked[0]:
        assert plan.estimate_bytes >= machine.need(plan.micro_batch_tokens) + optimizer - 1


def test_two_probes_find_the_line_and_fill_nine_tenths() -> None:
    machine = FakeMachine(fixed=200_000, per_token=1200, threshold=2_000_000)
    plan = probed(machine, first_plan(2_000_000))
    assert machine.asked == [100, 400]
    assert plan.fixed_bytes == 200_000 and plan.bytes_per_token == pytest.approx(1200)
    assert plan.micro_batch_tokens == (1_800_000 - 200_000) // 1200
    assert plan.estimate_bytes == pytest.approx(machine.need(plan.micro_batch_tokens), abs=2) and plan.measured


@pytest.mark.parametrize(("available", "step_tokens"), [(10**9, 10_000), (200_000, 100), (200_000, 20)])
def test_one_probe_is_enough_where_all_fits_easily_or_a_step_is_one_row(available: int, step_tokens: int) -> None:
    machine = FakeMachine(fixed=1000, per_token=1000, threshold=available)
    plan = probed(machine, first_plan(available), step_tokens=step_tokens)
    assert machine.asked == [100]
    assert plan.micro_batch_tokens == max(100, step_tokens) and plan.measured


def test_running_out_of_memory_in_the_second_probe_leaves_what_fits() -> None:
    machine = FakeMachine(fixed=0, per_token=1000, threshold=300_000)  # less than it says it has
    plan = probed(machine, first_plan(1_000_000, per_token=100))
    assert machine.asked == [100, 400, 250]
    assert plan.micro_batch_tokens == 250


def test_a_second_probe_that_never_fits_leaves_the_longest_row() -> None:
    machine = FakeMachine(fixed=0, per_token=1000, threshold=101_000)
    plan = probed(machine, first_plan(1_000_000, per_token=100))
    assert plan.micro_batch_tokens == 100 and plan.measured and len(machine.asked) < 6


def test_a_peak_without_a_slope_does_not_promise_endless_rows() -> None:
    flat = FakeMachine(fixed=500_000, per_token=0, threshold=10**7)
    assert probed(flat, first_plan(900_000)).bytes_per_token == 500
    unknown = probed(flat, first_plan(600_000, per_token=0.0), step_tokens=10**6)
    assert unknown.estimate_bytes <= 0.9 * 600_000 or unknown.micro_batch_tokens == 100


def test_a_second_probe_stays_safe_if_the_formula_is_half_the_truth() -> None:
    machine = FakeMachine(fixed=0, per_token=2000, threshold=500_000)
    plan = probed(machine, first_plan(500_000))
    assert max(machine.asked) == 225 and plan.micro_batch_tokens == 225


def test_gradients_and_moments_are_added_to_what_a_probe_sees() -> None:
    machine = FakeMachine(fixed=0, per_token=1000, threshold=10**6)
    plan = probed(machine, first_plan(1_000_000, optimizer_bytes=400_000))
    assert plan.fixed_bytes == 400_000 and plan.micro_batch_tokens == 500


def test_a_longest_row_that_does_not_fit_asks_for_checkpointing_then_fails() -> None:
    machine = FakeMachine(fixed=0, per_token=1000, threshold=90_000)
    plan = probed(machine, first_plan(95_000))
    assert plan.activation_checkpointing and not plan.measured and plan.micro_batch_tokens == 100
    with pytest.raises(RunnerError) as caught:
        probed(machine, plan)
    (problem,) = caught.value.problems
    assert problem.code == "train/too-long-for-memory" and caught.value.exit_code == Exit.MANIFEST
    assert "100 tokens" in problem.what and "GB" in problem.what and "qlora" in problem.fix
    assert problem.where.key == "hyperparameters.max_length"


def test_a_row_that_fits_only_without_the_optimizer_does_not_fit() -> None:
    machine = FakeMachine(fixed=0, per_token=1000, threshold=150_000)
    assert probed(machine, first_plan(150_000, optimizer_bytes=60_000)).activation_checkpointing


@on_cpu
def test_without_a_gpu_nothing_is_tried_that_the_formula_rules_out() -> None:
    machine = FakeMachine(fixed=0, per_token=1, threshold=10**9)
    plan = probed(machine, first_plan(1000, estimate_bytes=1001))
    assert plan.activation_checkpointing and not machine.asked
    with pytest.raises(RunnerError, match="longest row"):
        probed(machine, first_plan(1000, estimate_bytes=1001, activation_checkpointing=True))


def test_where_nothing_can_be_measured_the_first_plan_stands() -> None:
    first = first_plan(10**9)
    assert probed(FakeMachine(fixed=0, per_token=1, threshold=10**9, blind=True), first) == first


def test_where_nobody_knows_what_is_there_a_probe_stays_at_the_longest_row() -> None:
    machine = FakeMachine(fixed=10, per_token=1, threshold=10**9)
    plan = probed(machine, first_plan(None))
    assert machine.asked == [100] and plan.micro_batch_tokens == 100 and plan.measured


def test_an_error_that_is_no_lack_of_memory_is_not_swallowed() -> None:
    def run(_: int) -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        probe(run, first_plan(10**9), longest=10, step_tokens=10)


# ------------------------------------------------------------------------------------------------- during the run


def test_halving_ends_at_the_longest_row_then_recomputes_then_fails() -> None:
    plan, sizes = first_plan(10**9, micro_batch_tokens=350, fixed_bytes=10, measured=True), []
    while not plan.activation_checkpointing:
        plan = halved(plan, 100)
        sizes.append(plan.micro_batch_tokens)
    assert sizes == [175, 100, 100] and not plan.measured
    with pytest.raises(RunnerError) as caught:
        halved(plan, 100)
    assert caught.value.problems[0].code == "train/out-of-memory"
    assert caught.value.problems[0].where.key == "hyperparameters.max_length"


def test_a_halved_plan_says_what_it_needs() -> None:
    assert halved(first_plan(10**9, micro_batch_tokens=300, fixed_bytes=10), 100).estimate_bytes == 150_010


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_a_lack_of_memory_counts_as_one(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@on_cpu
def test_an_allocation_that_cannot_be_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
