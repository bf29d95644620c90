"""Several rows in one sequence without padding, their common beginning computed once.

Rows of one experiment usually open with the same system prompt. A micro-batch keeps that prefix once; every row's own
part attends to the prefix and to itself, never to another row. The result equals separate rows exactly (a test holds
it to that), for fewer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from runner.backends.local.encode import Encoded

ATTENTION = "runner_packed"
MIN_SHARED = 8


def shared_prefix(rows: Sequence[Encoded]) -> int:
    """Tokens that all rows begin with, ending before any row's first label can depend on its own last prompt token."""
    if len(rows) < 2:
        return 0
    limit = min(row.spans[0][0] - 1 for row in rows)
    first = rows[0].input_ids
    length = 0
    while length < limit and all(row.input_ids[length] == first[length] for row in rows):
        length += 1
    return length if length >= MIN_SHARED else 0


def pack(rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """A micro-batch of T tokens: the shared prefix (P, perhaps 0), then each row's own part.

    `input_ids`, `position_ids` (1, T); `gather` (rows, L) where the own tokens of each row stand after the
    prefix, filled up with 0;
    `scatter` (T - P,) where they stand in the flattened `gather`; `logits_to_keep` (N,) the positions that predict a
    label; `labels` (N,); `row_sizes` (rows,) labels of each row.
    """
    prefix = shared_prefix(rows)
    longest = max(len(row.input_ids) for row in rows) - prefix
    ids = list(rows[0].input_ids[:prefix])
    positions = list(range(prefix))
    gather: list[list[int]] = []
    scatter: list[int] = []
    keep: list[int] = []
    labels: list[int] = []
    sizes: list[int] = []
    for i, row in enumerate(rows):
        begin, own = len(ids), len(row.input_ids) - prefix
        answered = [j for first, end in row.spans for j in range(max(first, 1), end)]
        keep.extend(begin - prefix + j - 1 for j in answered)
        labels.extend(row.input_ids[j] for j in answered)
        sizes.append(len(answered))
        ids.extend(row.input_ids[prefix:])
        positions.extend(range(prefix, prefix + own))
        gather.append([*range(begin - prefix, begin - prefix + own), *[0] * (longest - own)])
        scatter.extend(range(i * longest, i * longest + own))
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "gather": torch.tensor(gather),
        "scatter": torch.tensor(scatter),
        "logits_to_keep": torch.tensor(keep),
        "labels": torch.tensor(labels),
        "row_sizes": torch.tensor(sizes),
    }


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    gather: torch.Tensor | None = None,
    scatter: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row, every row seeing the shared prefix and no other row.

    query (1, H, T, D), key and value (1, KV, T, D) -> (1, T, H, D). Only here are rows padded to one length; fill-ups
    stand after a row's end, where causality already hides them.
    """
    assert gather is not None and scatter is not None and attention_mask is None, "packed rows carry their places"
    rows, longest = gather.shape
    prefix = query.shape[2] - len(scatter)
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


AttentionInterface.register(ATTENTION, packed_attention)


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy that turns the logits into their own gradient in place: the vocabulary is walked half as often."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        work = logits.detach().float()
        top = work.amax(dim=1, keepdim=True)
        picked = (work.gather(1, labels.unsqueeze(1)) - top).squeeze(1)
        total = work.sub_(top).exp_().sum(dim=1)
        ctx.save_for_backward(work, total, labels)
        ctx.dtype = logits.dtype
        return total.log() - picked

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        work, total, labels = ctx.saved_tensors
        work.mul_((grads[0] / total).unsqueeze(1))
        work.scatter_add_(1, labels.unsqueeze(1), -grads[0].unsqueeze(1))
        return work.to(ctx.dtype), None


def answer_losses(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The negative log-likelihood of each labelled token (N,), in nats and float32.

    Only the positions that predict a label go through the LM head; nothing reaches the rest of the vocabulary.
    """
    inputs = {k: batch[k] for k in ("input_ids", "position_ids", "gather", "scatter", "logits_to_keep")}
    logits = model(**inputs, use_cache=False).logits[0]
    return _CrossEntropy.apply(logits, batch["labels"])  # type: ignore[no-any-return]
