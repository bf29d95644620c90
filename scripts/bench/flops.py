"""Model FLOPs: what the mathematics of a step needs, whatever the implementation repeats (fact sheet, section 10)."""

from __future__ import annotations

from typing import Any

H100_PEAK = 989e12  # FLOP/s, dense bf16 of an H100 SXM


def linear_parameters(config: Any) -> int:
    """Weights of all linear layers in the decoder's blocks of a llama."""
    return int(config.num_hidden_layers * sum(wide * high for wide, high in _shapes(config)))


def adapter_parameters(config: Any, rank: int) -> int:
    """Weights of an adapter on every linear layer of a llama's blocks."""
    return int(config.num_hidden_layers * rank * sum(wide + high for wide, high in _shapes(config)))


def _shapes(config: Any) -> list[tuple[int, int]]:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    wide, query, kv = config.hidden_size, config.num_attention_heads * head, config.num_key_value_heads * head
    attention = [(wide, query), (wide, kv), (wide, kv), (query, wide)]
    return attention + [(wide, config.intermediate_size)] * 2 + [(config.intermediate_size, wide)]


def flop_per_token(config: Any, length: int, rank: int | None) -> float:
    """FLOPs of a training step per token in rows of `length`, every token labelled; `rank` None is a full tune.

    Forward: 2 x (linear + head weights). Causal attention: layers x 2 x query width x length. A full tune takes three
    forwards and three attentions; LoRA two forwards (frozen weights have no gradient), three attentions and 6 x the
    adapter's weights.
    """
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    forward = 2 * (linear_parameters(config) + config.vocab_size * config.hidden_size)
    attention = config.num_hidden_layers * 2 * config.num_attention_heads * head * length
    if rank is None:
        return float(3 * forward + 3 * attention)
    return float(2 * forward + 3 * attention + 6 * adapter_parameters(config, rank))
