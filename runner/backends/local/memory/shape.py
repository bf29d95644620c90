"""What a model and its adapter need in memory, by a formula on their shapes alone.

The formula was checked against the tensors that autograd keeps, and against the peak of a process on a CPU. On a GPU
nothing of it has been measured.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # double quantisation, blocks of 64 and 256 (QLoRA, 2023, section 3)
FP32 = 4
_LAYER = re.compile(r"\.(\d+)\.")
_GATES = ("gate_proj", "gate_up_proj", ".w3.")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the formula needs of a model and its adapter; widths are values per token.

    `num_parameters` are the model's own, `trainable_parameters` those that train (an adapter's, or the model's).
    `trained_layers` are those that the gradient passes through. What follows from `saved_inputs` to `ranks` is
    summed over all layers: distinct inputs that trained linear layers keep, those that PEFT's own layers keep once more
    in float32, outputs that DoRA keeps, and low-rank products. `largest_linear` counts the weights of the largest one.
    """

    num_parameters: int
    trainable_parameters: int
    quantised_parameters: int
    hidden: int
    intermediate: int
    gated: bool
    num_layers: int
    trained_layers: int
    num_heads: int
    query_width: int
    kv_width: int
    vocabulary: int
    saved_inputs: int
    unfused_inputs: int
    dora_outputs: int
    ranks: int
    largest_linear: int


@dataclass(frozen=True, kw_only=True)
class MemoryParts:
    """Bytes by their cause. `head` and `block` are never there at the same time, so the larger one counts."""

    weights: int
    optimizer: int
    activations: int
    head: int
    block: int

    @property
    def total(self) -> int:
        """Bytes at the peak of a step."""
        return self.weights + self.optimizer + self.activations + max(self.head, self.block)


def shape_of(
    config: Any,
    *,
    method: str,
    rank: int,
    target_modules: Sequence[str] | None,
    top_layers: int | None,
    dora: bool = False,
    fused: bool = True,
    gathered: bool | None = None,
) -> Shape:
    """The shape of a transformers config, counted on a model without weights; nothing is read or downloaded.

    `fused`: adapters run through our own layer (not DoRA, no dropout). `gathered`: attention reads copies of the rows
    (no variable-length kernel; where there is no GPU). Raises ValueError for a config of no known causal model.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    experts = getattr(text, "num_experts_per_tok", None) or 1
    num_heads, layers = text.num_attention_heads, text.num_hidden_layers
    head_width = getattr(text, "head_dim", None) or text.hidden_size // num_heads
    inner = getattr(text, "moe_intermediate_size", None) or getattr(text, "intermediate_size", None)
    linears = dict(_linears(model))
    first = layers - min(top_layers or layers, layers)
    full = method == "full"
    names = None if full else target_modules
    chosen = {n: m for n, m in linears.items() if _is_target(n, names, first)}
    widths = {n: tuple(m.weight.shape) for n, m in chosen.items()}
    lowest = min((int(layer[1]) for n in chosen if (layer := _LAYER.search(n))), default=0)
    return Shape(
        num_parameters=sum(p.numel() for p in model.parameters()),
        trainable_parameters=_trained(model, first)
        if full
        else sum(rank * sum(w) + dora * _width_out(chosen[n]) for n, w in widths.items()),
        quantised_parameters=sum(m.weight.numel() for m in linears.values()) if method == "qlora" else 0,
        hidden=text.hidden_size,
        intermediate=(inner or 4 * text.hidden_size) * experts,
        gated=any(part in name for name, _ in model.named_parameters() for part in _GATES),
        num_layers=layers,
        trained_layers=layers - lowest,
        num_heads=num_heads,
        query_width=num_heads * head_width,
        kv_width=(getattr(text, "num_key_value_heads", None) or num_heads) * head_width,
        vocabulary=text.vocab_size,
        saved_inputs=_saved_inputs(linears, chosen, not torch.cuda.is_available() if gathered is None else gathered),
        unfused_inputs=0 if full or (fused and not dora) else sum(map(_width_in, chosen.values())),
        dora_outputs=sum(map(_width_out, chosen.values())) if dora and not full else 0,
        ranks=0 if full else rank * len(chosen),
        largest_linear=max((m.weight.numel() for m in linears.values()), default=0),
    )


def _linears(model: Any) -> Iterator[tuple[str, Any]]:
    """All linear layers but the LM head, as an adapter on "all-linear" gets them."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
            yield name, module


def _is_target(name: str, targets: Sequence[str] | None, first_layer: int) -> bool:
    layer = _LAYER.search(name)
    if first_layer and (layer is None or int(layer[1]) < first_layer):
        return False
    return targets is None or any(name == target or name.endswith(f".{target}") for target in targets)


def _trained(model: Any, first_layer: int) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if _is_target(name, None, first_layer))


def _width_in(layer: Any) -> int:
    return int(layer.weight.shape[0 if isinstance(layer, Conv1D) else 1])


def _width_out(layer: Any) -> int:
    return int(layer.weight.shape[1 if isinstance(layer, Conv1D) else 0])


def _saved_inputs(linears: dict[str, Any], chosen: dict[str, Any], gathered: bool) -> int:
    """Values per token. In each block the last linear layer reads what the others made, and these share one input;
    attention keeps its own answer in any case, and a copy of it where rows are gathered."""
    blocks: dict[str, list[str]] = defaultdict(list)
    for name in linears:
        blocks[name.rpartition(".")[0]].append(name)
    width = 0
    for block, (*inner, last) in blocks.items():
        width += _width_in(linears[inner[0]]) if any(name in chosen for name in inner) else 0
        kept_anyway = "attn" in block.lower() or "attention" in block.lower()
        width += _width_in(linears[last]) if last in chosen and (gathered or not kept_anyway) else 0
    return width


def parts(
    shape: Shape,
    method: str,
    *,
    tokens: int,
    labelled_tokens: int,
    weight_bytes: int,
    activation_checkpointing: bool,
    logits_bytes: int | None = None,
) -> MemoryParts:
    """Bytes at the peak of a step with `tokens` in its micro-batch; `weight_bytes` is 2 (bf16) or 4 (float32).

    With w = weight_bytes, per token and layer that trains: two norms in float32 8H; queries, answer, keys and values of
    attention w(2Q + 2K) and 4 a head; gate, activation and up 3wI; then the inputs of trained linear layers and their
    low-rank products (DoRA: w + 4 an output). A full tune also keeps normalised states 2wH. Checkpointing keeps wH a
    layer and one layer whole. Weights: w each, NF4 as in QLoRA, and for a full tune float32 with a copy in bf16.
    Trained parameters: gradient and two moments, 12 bytes each, and 4 for an adapter's weights. Head: the logits of
    labelled tokens and their gradient, in float32, at most `logits_bytes` of logits at once. Block: gradients in the
    widest part of one layer.
    Source: what autograd keeps of transformers' llama with our attention and adapters (tests), not measured on a GPU.
    """
    full = method == "full"
    w, trained = weight_bytes, shape.trainable_parameters
    frozen = shape.num_parameters - shape.quantised_parameters
    weights = shape.num_parameters * (FP32 + (w if w < FP32 else 0)) if full else frozen * w + trained * FP32
    norms = 8 * shape.hidden + (2 * w * shape.hidden if full else 0)
    attention = w * 2 * (shape.query_width + shape.kv_width) + FP32 * shape.num_heads
    layer = norms + attention + w * (3 if shape.gated else 1) * shape.intermediate
    inputs = w * (shape.saved_inputs + shape.ranks) + FP32 * shape.unfused_inputs + (w + FP32) * shape.dora_outputs
    kept = shape.trained_layers * layer + inputs
    if activation_checkpointing:
        kept = shape.num_layers * w * shape.hidden + math.ceil(kept / max(1, shape.trained_layers))
    logits = labelled_tokens * shape.vocabulary * FP32
    widest = (2 if shape.gated else 1) * shape.intermediate + 2 * shape.hidden
    return MemoryParts(
        weights=weights + math.ceil(shape.quantised_parameters * NF4_BYTES),
        optimizer=3 * FP32 * trained,
        activations=tokens * (kept + norms // 2),
        head=2 * min(logits, logits if logits_bytes is None else logits_bytes)
        + (FP32 * shape.vocabulary * shape.hidden if full else 0),
        block=tokens * w * widest + shape.largest_linear * (FP32 if full else w if shape.quantised_parameters else 0),
    )


def estimate(
    shape: Shape,
    method: str,
    *,
    tokens: int,
    labelled_tokens: int,
    weight_bytes: int,
    activation_checkpointing: bool,
    logits_bytes: int | None = None,
) -> int:
    """Bytes at the peak of a step: the total of `parts`, which gives the formula and its source."""
    return parts(
        shape,
        method,
        tokens=tokens,
        labelled_tokens=labelled_tokens,
        weight_bytes=weight_bytes,
        activation_checkpointing=activation_checkpointing,
        logits_bytes=logits_bytes,
    ).total
