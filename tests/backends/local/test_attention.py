"""Both attentions over packed rows give each row what it sees alone; the kernels' layout is checked without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from runner.backends.local import attention
from runner.backends.local.attention import PADDED, VARLEN, attention_for, max_tokens, packed_padded, packed_varlen
from runner.backends.local.generate import packed_rows
from runner.backends.local.head import answer_losses
from runner.backends.local.pack import MIN_SHARED, pack
from runner.errors import RunnerError
from tests.backends.local.test_pack import gradients, plain_losses, rows_with_prefix

PREFIXES = [0, MIN_SHARED, 30]


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_q: torch.Tensor,
    cu_k: torch.Tensor,
    max_q: int,
    max_k: int,
    scale: float | None,
    *,
    causal: bool,
) -> torch.Tensor:
    """What the kernels compute, sequence by sequence; queries stand at the end of their keys."""
    assert causal and key.shape[1] in (query.shape[1], 2)
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert max_q == int(cu_q.diff().max()) and max_k == int(cu_k.diff().max())
    answers = []
    for i in range(len(cu_q) - 1):
        q, k, v = (
            states[int(cu[i]) : int(cu[i + 1])].transpose(0, 1)
            for states, cu in ((query, cu_q), (key, cu_k), (value, cu_k))
        )
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        answers.append(F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True).transpose(0, 1))
    return torch.cat(answers)


def varlen_2_10(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, is_causal: bool = False) -> Any:
    assert q.shape[1] == k.shape[1], "this torch knows no grouped queries"
    return reference(q, k, v, cu_q, cu_k, max_q, max_k, None, causal=is_causal)


def varlen_2_11(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, *, window_size: Any) -> Any:
    assert q.shape[1] == k.shape[1], "this torch knows no grouped queries"
    return reference(q, k, v, cu_q, cu_k, max_q, max_k, None, causal=window_size == (-1, 0))


def varlen_2_13(
    q: Any,
    k: Any,
    v: Any,
    cu_q: Any,
    cu_k: Any,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: Any = (-1, -1),
    enable_gqa: bool = False,
) -> Any:
    assert enable_gqa or q.shape[1] == k.shape[1]
    return reference(q, k, v, cu_q, cu_k, max_q, max_k, scale, causal=window_size == (-1, 0))


KNOWN = [varlen_2_10, varlen_2_11, varlen_2_13]


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a reference in the kernels' place, and has models choose it, in float32 and without a GPU."""

    def use(call: Callable[..., Any]) -> None:
        monkeypatch.setattr(attention, "varlen_attn", call)
        monkeypatch.setattr(attention, "VARLEN_DTYPES", (torch.float32,))
        monkeypatch.setattr("runner.backends.local.generate.attention_for", lambda model: VARLEN)

    return use


def packed_step(model: Any, rows: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    with packed_rows(model):
        losses = answer_losses(model, pack(rows))
    losses.mean().backward()
    return losses.detach(), gradients(model)


@pytest.mark.parametrize("call", KNOWN)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_sequences_for_the_kernels_have_the_losses_and_gradients_of_separate_rows(
    tiny_model: Path, on_cpu: Callable[..., None], call: Any, prefix: int
) -> None:
    on_cpu(call)
    rows = rows_with_prefix(prefix)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    separate = torch.cat([plain_losses(model, row) for row in rows])
    separate.mean().backward()
    expected = gradients(model)
    losses, found = packed_step(model, rows)
    torch.testing.assert_close(losses, separate, atol=2e-5, rtol=1e-4)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-5, rtol=1e-3)


def states(num_heads: int, num_kv: int, tokens: int, head_dim: int = 16, dtype: Any = torch.float32) -> Any:
    torch.manual_seed(3)
    shapes = ((1, num_heads, tokens, head_dim), (1, num_kv, tokens, head_dim), (1, num_kv, tokens, head_dim))
    return [torch.randn(shape).to(dtype) for shape in shapes]


def places(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("gather", "scatter", "cu_q", "cu_k", "kv_index", "kv_own")}


def answer_and_gradients(attend: Any, inputs: Any, scaling: float | None, batch: Any) -> list[torch.Tensor]:
    inputs = [x.clone().requires_grad_() for x in inputs]
    answer = attend(torch.nn.Identity(), *inputs, None, scaling=scaling, **places(batch))[0]
    weights = torch.linspace(-1, 1, answer.numel(), device=answer.device).view_as(answer)
    (answer.float() * weights).sum().backward()
    return [answer.detach(), *(x.grad for x in inputs)]


@pytest.mark.parametrize("call", KNOWN)
@pytest.mark.parametrize("scaling", [None, 0.25, 0.05])  # 0.25 is 1 / sqrt(16), the kernels' own
@pytest.mark.parametrize("shared", [True, False])
def test_both_attentions_agree_whatever_the_scale(
    on_cpu: Callable[..., None], call: Any, scaling: float | None, shared: bool
) -> None:
    on_cpu(call)
    batch = pack(rows_with_prefix(12), shared=shared)
    inputs = states(4, 2, batch["input_ids"].shape[1])
    padded = answer_and_gradients(packed_padded, inputs, scaling, batch)
    kernels = answer_and_gradients(packed_varlen, inputs, scaling, batch)
    for a, b in zip(padded, kernels, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_gradient_of_the_shared_prefix_is_summed_in_float32(
    monkeypatch: pytest.MonkeyPatch, on_cpu: Callable[..., None]
) -> None:
    rows = rows_with_prefix(MIN_SHARED)[:2] * 200
    batch = pack(rows)
    values = torch.zeros(batch["input_ids"].shape[1], 1, 1, dtype=torch.bfloat16, requires_grad=True)
    repeated = attention._Repeat.apply(values, batch["kv_index"], batch["kv_own"], batch["cu_k"])
    repeated.sum().backward()
    assert values.grad is not None
    # one for the prefix itself and one for each row; sums of ones in bfloat16 stop at 256
    assert values.grad[:MIN_SHARED].float().flatten().tolist() == [float(torch.tensor(401.0).bfloat16())] * MIN_SHARED
    assert values.grad[MIN_SHARED:].float().unique().tolist() == [1.0]


def test_what_the_kernels_cannot_do_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", None)  # would raise when it is called
    batch = pack(rows_with_prefix(12))
    inputs = states(4, 2, batch["input_ids"].shape[1])
    padded = packed_padded(torch.nn.Identity(), *inputs, None, **places(batch))[0]
    assert torch.equal(packed_varlen(torch.nn.Identity(), *inputs, None, **places(batch))[0], padded)
    half = [x.bfloat16() for x in inputs]
    dropped = packed_varlen(torch.nn.Identity(), *half, None, dropout=0.5, **places(batch))[0]
    assert dropped.shape == padded.shape


def test_a_pack_that_the_kernels_would_miscount_is_refused(
    tiny_model: Path, on_cpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu(varlen_2_13)
    batch = pack(rows_with_prefix(12))
    num_keys = int(batch["cu_k"][-1])
    inputs = states(4, 2, batch["input_ids"].shape[1])
    monkeypatch.setattr(attention, "_max_keys", lambda *_: num_keys)
    packed_varlen(torch.nn.Identity(), *inputs, None, **places(batch))
    monkeypatch.setattr(attention, "_max_keys", lambda *_: num_keys - 1)
    with pytest.raises(RunnerError) as refused:
        packed_varlen(torch.nn.Identity(), *inputs, None, **places(batch))
    assert refused.value.problems[0].code == "model/pack-too-large"


def test_the_largest_pack_is_what_32_bits_count() -> None:
    config = LlamaConfig(hidden_size=4096, num_attention_heads=32, num_hidden_layers=1, vocab_size=8)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    most = max_tokens(model, num_rows=63)
    assert (most + 128 * 64) * 32 * 128 < 2**31 <= (most + 1 + 128 * 64) * 32 * 128


@pytest.mark.parametrize("attend", [packed_padded, packed_varlen])
@pytest.mark.parametrize("other", [{"sliding_window": 41}, {"softcap": 50.0}, {"s_aux": torch.zeros(4)}])
def test_attention_of_another_kind_is_refused_and_not_computed_wrongly(
    on_cpu: Callable[..., None], attend: Any, other: dict[str, Any]
) -> None:
    on_cpu(varlen_2_13)
    rows = rows_with_prefix(12)
    assert max(len(row.input_ids) for row in rows) == 39
    longer = [*rows, type(rows[0])([*rows[0].input_ids, 7, 7, 7] + [9] * 20, [(40, 42)])]
    batch = pack(longer)
    inputs = states(4, 2, batch["input_ids"].shape[1])
    with pytest.raises(RunnerError) as refused:
        attend(torch.nn.Identity(), *inputs, None, **places(batch), **other)
    assert refused.value.problems[0].code == "model/attention"
    attend(torch.nn.Identity(), *inputs, None, **places(batch), sliding_window=43, softcap=None, s_aux=None)


def test_without_a_gpu_rows_are_padded(tiny_model: Path) -> None:
    assert attention_for(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)) == PADDED


class OnGpu(torch.nn.Module):
    """As much of a model on a GPU as the choice looks at."""

    def __init__(self, dtype: torch.dtype, head_dim: int):
        super().__init__()
        self.config = LlamaConfig(head_dim=head_dim)
        self.dtype = dtype

    def parameters(self, recurse: bool = True) -> Any:
        return iter([type("Parameter", (), {"device": torch.device("cuda:0")})])


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "expected"),
    [
        ((8, 0), torch.bfloat16, 128, VARLEN),
        ((9, 0), torch.float16, 256, VARLEN),
        ((7, 5), torch.float16, 128, PADDED),
        ((9, 0), torch.float32, 128, PADDED),
        ((9, 0), torch.bfloat16, 264, PADDED),
        ((9, 0), torch.bfloat16, 100, PADDED),
    ],
)
def test_the_kernels_are_chosen_where_they_run(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: Any, head_dim: int, expected: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert attention_for(OnGpu(dtype, head_dim)) == expected


def test_under_autocast_the_format_of_the_products_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    assert attention_for(OnGpu(torch.float32, 128)) == VARLEN


@pytest.mark.gpu
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_the_kernels_agree_with_padded_rows_on_a_gpu(prefix: int, head_dim: int) -> None:
    batch = {name: value.cuda() for name, value in pack(rows_with_prefix(prefix)).items()}
    inputs = [x.cuda() for x in states(8, 2, batch["input_ids"].shape[1], head_dim, torch.bfloat16)]
    exact = answer_and_gradients(packed_padded, [x.float() for x in inputs], None, batch)
    kernels = answer_and_gradients(packed_varlen, inputs, None, batch)
    padded = answer_and_gradients(packed_padded, inputs, None, batch)
    for truth, ours, theirs in zip(exact, kernels, padded, strict=True):
        allowed = 3 * (theirs.float() - truth).abs().max() + 1e-3
        assert (ours.float() - truth).abs().max() <= allowed


@pytest.mark.gpu
@pytest.mark.parametrize("prefix", PREFIXES)
def test_packed_losses_on_a_gpu_are_those_of_separate_rows(tiny_model: Path, prefix: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).cuda()
    assert attention_for(model) == VARLEN
    rows = rows_with_prefix(prefix)
    with torch.no_grad(), packed_rows(model):
        losses = answer_losses(model, {name: value.cuda() for name, value in pack(rows).items()})
    exact = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    separate = torch.cat([plain_losses(exact, row) for row in rows])
    torch.testing.assert_close(losses.cpu(), separate, atol=0.05, rtol=0.02)
