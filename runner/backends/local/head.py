"""The loss at the LM head: only of the positions that predict a label, and never all of their logits at once.

A model's own forward would make logits of every position in the vocabulary's width, by far the largest tensor of a
step. Here the head turns some hidden states at a time into losses and, in the same visit, into their gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch

from runner.backends.local.attention import PADDED, VARLEN
from runner.backends.local.encode import Encoded
from runner.backends.local.pack import pack

CHUNK_BYTES = 256 * 2**20  # float32 probabilities that exist at once
KEPT_BYTES = 2 * 2**30  # probabilities that wait for the backward pass of a trained head, in its own number format
NOT_FOR_THE_MODEL = ("labels", "row_sizes")
PROBE_TOKENS = 4

_ends_in_head: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def answer_losses(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The negative log-likelihood of each labelled token (N,), in nats and float32, of a packed batch (`pack`).

    Only the positions that predict a label go through the LM head; nothing reaches the rest of the vocabulary.
    """
    assert model.config._attn_implementation in (PADDED, VARLEN), "other attention would mix the rows"
    inputs = {name: value for name, value in batch.items() if name not in NOT_FOR_THE_MODEL}
    head, labels = model.get_output_embeddings(), batch["labels"]
    if not _is_linear(head) or not _head_comes_last(model, head, labels.device):
        return _losses_of_logits(model, inputs, labels)
    with _losing(head, inputs["logits_to_keep"], labels):
        losses = model(**inputs, use_cache=False).logits
    return cast(torch.Tensor, losses[0])


def head_losses(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
) -> torch.Tensor:
    """Cross entropy of each row of `hidden` (N, H) @ `weight`.T (V, H) + `bias` (V,) with `labels` (N,): (N,) float32.

    Under autocast the product is in autocast's number format, as that of a linear layer is.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    with torch.autocast(kind, enabled=False):
        if not torch.is_grad_enabled():
            return torch.cat([_odds(h, weight, bias, y)[2] for h, y in _chunks(hidden, labels, len(weight))])
        loss = _TrainedHead if trained else _FrozenHead
        return cast(torch.Tensor, loss.apply(hidden, weight, bias, labels))


def head_bytes(num_labels: int, vocabulary: int, itemsize: int, *, trained: bool) -> int:
    """Bytes that the head needs on top of hidden states and gradients, at its peak; `itemsize` is that of a logit."""
    rows = min(num_labels, _chunk_rows(vocabulary))
    kept = min(num_labels, _kept_rows(vocabulary, itemsize)) * vocabulary * itemsize if trained else 0
    return rows * vocabulary * (4 + 2 * itemsize) + kept


class _FrozenHead(torch.autograd.Function):
    """A row's gradient is its loss's incoming gradient times a vector that the forward pass can know, so the logits
    are made once, and only that vector waits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: Any, labels: torch.Tensor) -> Any:
        losses, slopes = [], []
        for h, y in _chunks(hidden, labels, len(weight)):
            odds, total, nll = _odds(h, weight, bias, y)
            losses.append(nll)
            if ctx.needs_input_grad[0]:
                slopes.append((_less_label(odds, total, y).to(h.dtype) @ weight).div_(total))
        ctx.save_for_backward(torch.cat(slopes) if slopes else None)
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (slopes,) = ctx.saved_tensors
        return (slopes * grads[0].unsqueeze(1)).to(slopes.dtype), None, None, None


class _TrainedHead(torch.autograd.Function):
    """The head's own gradient mixes rows, so probabilities wait for the backward pass, or are made again there."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: Any, labels: torch.Tensor) -> Any:
        ctx.block = _kept_rows(len(weight), weight.element_size())
        slopes = total = None
        if len(hidden) <= ctx.block:
            slopes, total, losses = _slopes(hidden, weight, bias, labels)
        else:
            losses = torch.cat([_odds(h, weight, bias, y)[2] for h, y in _chunks(hidden, labels, len(weight))])
        ctx.save_for_backward(hidden, weight, bias, labels, slopes, total)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        hidden, weight, bias, labels, slopes, total = ctx.saved_tensors
        parts: list[torch.Tensor] = []
        d_weight = d_bias = None
        for h, y, g in zip(*(t.split(ctx.block) for t in (hidden, labels, grads[0])), strict=True):
            if ctx.block < len(hidden):
                slopes, total, _ = _slopes(h, weight, bias, y)
            scale = g.unsqueeze(1) / total
            parts.append((slopes @ weight).mul_(scale))
            if ctx.needs_input_grad[1]:
                part = slopes.t() @ (h * scale).to(h.dtype)
                d_weight = part if d_weight is None else d_weight.add_(part)
            if ctx.needs_input_grad[2]:
                part = (slopes.t() @ scale.to(h.dtype)).squeeze(1)
                d_bias = part if d_bias is None else d_bias.add_(part)
        return torch.cat(parts), d_weight, d_bias, None


def _slopes(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How each loss changes with each logit (N, V), in the number format of `hidden` and times the row's total;
    the totals (N, 1); and the losses (N,)."""
    losses, totals, slopes = [], [], []
    for h, y in _chunks(hidden, labels, len(weight)):
        odds, total, nll = _odds(h, weight, bias, y)
        slopes.append(_less_label(odds, total, y).to(h.dtype))
        totals.append(total)
        losses.append(nll)
    return slopes[0] if len(slopes) == 1 else torch.cat(slopes), torch.cat(totals), torch.cat(losses)


def _odds(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities of some rows in units of the most probable token's (N, V), their totals (N, 1) by which to divide
    them, and the losses (N,), all float32; the vocabulary's width is walked as few times, and written as few, as can
    be, which is why the division is left to the far narrower gradient."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    if logits.device.type == "cpu":
        logits = logits.float()  # processors are slow at operands of two formats; a GPU converts for nothing
    top = logits.amax(dim=1, keepdim=True).float()
    odds = logits.sub_(top) if logits.dtype == torch.float32 else logits - top
    picked = odds.gather(1, labels.unsqueeze(1))
    total = odds.exp_().sum(dim=1, keepdim=True)
    losses = (total.log() - picked).squeeze(1)
    if hidden.dtype == torch.float16:  # a total can be as large as the vocabulary, which this format cannot hold
        odds, total = odds.div_(total), torch.ones_like(total)
    return odds, total, losses


def _less_label(odds: torch.Tensor, total: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Odds less the total at the label, in place: in float32, where a token almost certain leaves a true remainder."""
    return odds.scatter_add_(1, labels.unsqueeze(1), -total)


def _chunks(hidden: torch.Tensor, labels: torch.Tensor, vocabulary: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    rows = _chunk_rows(vocabulary)
    return zip(hidden.split(rows), labels.split(rows), strict=True)


def _chunk_rows(vocabulary: int) -> int:
    return max(1, CHUNK_BYTES // (vocabulary * 4))


def _kept_rows(vocabulary: int, itemsize: int) -> int:
    return max(1, KEPT_BYTES // (vocabulary * itemsize))


def _losses_of_logits(model: Any, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """For models that change the logits after the head, or whose head is no plain linear layer."""
    logits = model(**inputs, use_cache=False).logits[0]
    if len(logits) != len(labels):  # a model that does not know `logits_to_keep` gives those of all positions
        logits = logits[inputs["logits_to_keep"]]
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def _is_linear(head: Any) -> bool:
    """Whether the head is one matrix product: no adapter, no quantisation, nothing hung around its forward."""
    return (
        isinstance(head, torch.nn.Linear)
        and type(head).forward is torch.nn.Linear.forward
        and "forward" not in vars(head)
        and head.weight.is_floating_point()
    )


def _head_comes_last(model: Any, head: torch.nn.Linear, device: torch.device) -> bool:
    """Whether the model's logits are what the head gives: it may also scale or soft-cap them. Seen once on a few
    tokens, by the tensor itself and not by its values, which a soft cap leaves alone where they are small."""
    if head not in _ends_in_head:
        seen: list[torch.Tensor] = []
        hook = head.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        devices = [device] if device.type == "cuda" else []
        try:
            # Dropout must not draw from the step's seed; and tensors of inference mode cannot say if they were changed.
            with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=devices):
                logits = model(**_probe(device), use_cache=False).logits
        finally:
            hook.remove()
        _ends_in_head[head] = len(seen) == 1 and logits is seen[0] and logits._version == 0
    return _ends_in_head[head]


def _probe(device: torch.device) -> dict[str, torch.Tensor]:
    """A packed row of a few tokens; what it says does not matter."""
    batch = pack([Encoded([1] * PROBE_TOKENS, [(1, PROBE_TOKENS)])])
    return {name: value.to(device) for name, value in batch.items() if name not in NOT_FOR_THE_MODEL}


@contextlib.contextmanager
def _losing(head: torch.nn.Linear, keep: torch.Tensor, labels: torch.Tensor) -> Iterator[None]:
    """While open, the head answers hidden states (1, N, H) with losses (1, N). It is still called by the model, inside
    whatever the model or a sharding of its weights does around it."""

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        states = hidden[0] if hidden.shape[1] == len(labels) else hidden[0, keep]
        return torch.stack([head_losses(states, head.weight, head.bias, labels)])  # FSDP warns of a view

    vars(head)["forward"] = forward
    try:
        yield
    finally:
        del vars(head)["forward"]
