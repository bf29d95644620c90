"""Attention over packed rows (`pack`): by padding inside the layer, or by the variable-length kernels that torch has.

Both give each row what it would see alone. The padded one runs everywhere; the other needs CUDA from Ampere on and
16-bit numbers, wastes nothing, and needs no package and no download.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from runner.errors import Exit, Problem, RunnerError

PADDED = "runner_packed"
VARLEN = "runner_packed_varlen"
VARLEN_DTYPES = (torch.bfloat16, torch.float16)
MAX_HEAD_DIM = 256
AMPERE = (8, 0)
KERNEL_ROUNDING = 128  # the backward kernel's buffer has this many places more for each sequence


def attention_for(model: Any) -> str:
    """The name of the fastest packed attention that this model, its numbers and its device allow."""
    parameter = next(model.parameters())
    if parameter.device.type != "cuda" or torch.version.cuda is None:
        return PADDED
    in_autocast = torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if in_autocast else model.dtype
    _, head_dim = _heads(model)
    fits = dtype in VARLEN_DTYPES and head_dim <= MAX_HEAD_DIM and head_dim % 8 == 0
    return VARLEN if fits and torch.cuda.get_device_capability(parameter.device) >= AMPERE else PADDED


def max_tokens(model: Any, num_rows: int) -> int:
    """How many keys (T, and the prefix once more for each row) a pack of so many rows may have in the variable-length
    kernels, which count (tokens + 128 x sequences) x heads x head size in 32 bits."""
    num_heads, head_dim = _heads(model)
    return _max_keys(num_rows + 1, num_heads, head_dim)


def packed_padded(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    gather: torch.Tensor | None = None,
    scatter: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row, every row seeing the shared prefix and no other row.

    query (1, H, T, D), key and value (1, KV, T, D) -> (1, T, H, D). Only here are rows padded to one length; fill-ups
    stand after a row's end, where causality already hides them. Raises RunnerError (78) for attention of another kind.
    """
    assert gather is not None and scatter is not None and attention_mask is None, "packed rows carry their places"
    rows, longest = gather.shape
    prefix = query.shape[2] - len(scatter)
    _refuse_other_kinds(others, prefix + longest)
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}

    def divide(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared, rest = states.split((prefix, len(scatter)), dim=2)
        picked = rest[0].index_select(1, gather.view(-1))
        return shared, picked.view(-1, rows, longest, states.shape[3]).transpose(0, 1)

    (q0, q), (k0, k), (v0, v) = divide(query), divide(key), divide(value)
    mask = None
    if prefix:
        k = torch.cat((k0.expand(rows, -1, -1, -1), k), dim=2)
        v = torch.cat((v0.expand(rows, -1, -1, -1), v), dim=2)
        mask = torch.ones(longest, prefix + longest, dtype=torch.bool, device=query.device).tril(prefix)
    answer = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, **options)
    answer = answer.transpose(1, 2).flatten(0, 1).index_select(0, scatter)
    if prefix:
        shared = F.scaled_dot_product_attention(q0, k0, v0, is_causal=True, **options)
        answer = torch.cat((shared[0].transpose(0, 1), answer))
    return answer.unsqueeze(0), None


def packed_varlen(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **places: Any,
) -> tuple[torch.Tensor, None]:
    """The same as `packed_padded` by torch's variable-length kernels; what they cannot do is left to `packed_padded`.

    Raises RunnerError (78) when the pack is larger than the kernels can count.
    """
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if dropout or query.dtype not in VARLEN_DTYPES or query.shape[3] != value.shape[3]:
        return packed_padded(module, query, key, value, attention_mask, scaling, dropout, **places)
    cu_q, cu_k = places["cu_q"], places["cu_k"]
    longest = places["gather"].shape[1]
    prefix = query.shape[2] - len(places["scatter"])
    _refuse_other_kinds(places, prefix + longest)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if prefix:
        k, v = (_Repeat.apply(t, places["kv_index"], places["kv_own"], cu_k) for t in (k, v))
    _refuse_too_many(len(k), len(cu_k) - 1, *q.shape[1:])
    q, k, v, options = _as_known(varlen_attn, q, k, v, scaling)
    answer: Any = varlen_attn(q, k, v, cu_q, cu_k, max(prefix, longest), prefix + longest, **options)
    return answer.unsqueeze(0), None


# No mask function goes with the names: the layers are then given no mask at all.
AttentionInterface.register(PADDED, packed_padded)
AttentionInterface.register(VARLEN, packed_varlen)


class _Repeat(torch.autograd.Function):
    """Keys or values (T, KV, D) with the prefix repeated before each row (keys, KV, D).

    The gradient of the prefix is summed in float32 and in a fixed order; index_select's own adds it up in 16 bits,
    one atomic after the other, in another order each time.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, index: torch.Tensor, own: torch.Tensor, cu: torch.Tensor) -> Any:
        ctx.save_for_backward(own, cu)
        ctx.prefix = len(states) - len(own)
        return states.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        own, cu = ctx.saved_tensors
        places = cu[:-1, None] + torch.arange(ctx.prefix, device=cu.device, dtype=cu.dtype)
        shared = grads[0].index_select(0, places.view(-1)).view(*places.shape, *grads[0].shape[1:])
        shared = shared.sum(dim=0, dtype=torch.float32).to(grads[0].dtype)
        return torch.cat((shared, grads[0].index_select(0, own))), None, None, None


def _as_known(
    call: Callable[..., Any], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
    """What this torch's function takes: 2.10 knows `is_causal`, 2.11 `window_size`, later ones scale and GQA too.

    Queries stand at the end of their keys: the kernels align causality at the bottom right (mask.h of
    FlashAttention-2: column < row + 1 + keys - queries; torch.nn.attention.bias relies on it too).
    """
    known = _parameters(call)
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if scaling is not None and "scale" in known:
        options["scale"] = scaling
    elif scaling is not None and scaling != q.shape[2] ** -0.5:
        q = q * (scaling * q.shape[2] ** 0.5)
    if q.shape[1] != k.shape[1] and "enable_gqa" in known:
        options["enable_gqa"] = True
    elif q.shape[1] != k.shape[1]:
        k, v = (states.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for states in (k, v))
    return q, k, v, options


@cache
def _parameters(call: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(call).parameters)


def _heads(model: Any) -> tuple[int, int]:
    """Number of query heads and size of one."""
    config = model.config.get_text_config()
    num_heads = config.num_attention_heads
    return num_heads, getattr(config, "head_dim", None) or config.hidden_size // num_heads


def _max_keys(num_sequences: int, num_heads: int, head_dim: int) -> int:
    return int((2**31 - 1) // (num_heads * head_dim) - KERNEL_ROUNDING * num_sequences)


def _refuse_too_many(num_keys: int, num_sequences: int, num_heads: int, head_dim: int) -> None:
    limit = _max_keys(num_sequences, num_heads, head_dim)
    if num_keys > limit:
        raise RunnerError(
            Problem(
                code="model/pack-too-large",
                what=f"A micro-batch of {num_sequences:,} rows has {num_keys:,} keys in attention, more than the "
                f"{max(limit, 0):,} that the kernels of this model can count.",
                fix="Give a micro-batch fewer tokens.",
            ),
            Exit.MANIFEST,
        )


def _refuse_other_kinds(given: dict[str, Any], longest: int) -> None:
    """A window shorter than a row, soft-capped scores or attention sinks would silently be left out."""
    window = given.get("sliding_window")
    reason = None
    if window is not None and longest > window:
        reason = f"it attends to a window of {window} tokens and a row has {longest}"
    elif given.get("softcap") is not None:
        reason = "its attention scores are soft-capped"
    elif given.get("s_aux") is not None:
        reason = "its attention has sinks"
    if reason:
        raise RunnerError(
            Problem(
                code="model/attention",
                what=f"This model cannot be trained on packed rows: {reason}.",
                fix="Lower hyperparameters.max_length to the window, or choose another model.",
            ),
            Exit.MANIFEST,
        )
