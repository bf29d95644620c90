"""Llamas at random and what the device can do at most: nothing is downloaded."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.training import now

SIZES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "toy": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "tie_word_embeddings": False,
    },
}
STD = 0.02
MATMUL = 8192
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def free() -> None:
    """Lets go of the last arm's memory."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def random_model(size: str, dtype: Any) -> Any:
    """A llama of that size with normal(0, 0.02) weights, made where it will run."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**SIZES[size], max_position_embeddings=8192)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, STD)
    return model


def quantised(model: Any) -> Any:
    """The model with its blocks' linear layers in NF4, double quantised, as the session loads one for qlora."""
    import bitsandbytes as bnb
    import torch

    linears = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n]
    for name, layer in linears:
        device = layer.weight.device
        small = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=False,
            compute_dtype=model.dtype,
            quant_type="nf4",
            compress_statistics=True,
        )
        small.weight = bnb.nn.Params4bit(
            layer.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        small.support_avx512bf16_for_cpu = False  # its packed product has no gradient; see load.load_weights
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, small.to(device))
    model.is_loaded_in_4bit = True
    return model


def write_model(size: str, folder: Path) -> None:
    """A llama at random on disk, with a tokenizer whose every byte is a token and whose other tokens decode too."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<unk>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    count = SIZES[size]["vocab_size"]
    vocabulary = {token: i for i, token in enumerate([*known, *(f"[{i}]" for i in range(len(known), count))])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    model = random_model(size, torch.bfloat16)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)


def bare_tokenizer() -> Any:
    """TRL wants one, though its rows are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<end>", pad_token="<end>")


def model_dtype() -> Any:
    """The number format of weights here, as the product chooses it."""
    from runner.backends.local.device import compute_dtype

    return compute_dtype()


def ceilings(toy: bool) -> dict[str, float]:
    """Measured FLOP/s of a large bf16 product of random numbers, and bytes/s of a copy on the device."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 256 if toy else MATMUL
    a, b = (torch.randn(size, size, device=device, dtype=torch.float32).to(model_dtype()) for _ in range(2))
    block = torch.empty(1 << (20 if toy else 30), dtype=torch.uint8, device=device)
    target = torch.empty_like(block)
    product = _seconds(lambda: torch.mm(a, b))
    copied = _seconds(lambda: target.copy_(block))
    return {"matmul_flops": 2 * size**3 / product, "copy_bytes": 2 * block.numel() / copied}


def _seconds(work: Callable[[], Any], repeats: int = 20) -> float:
    taken = []
    for _ in range(5):
        started = now()
        for _ in range(repeats):
            work()
        taken.append((now() - started) / repeats)
    return median(taken)
