"""A model from disk or from the hub: its tokenizer, the tokens that end an answer, its weights in the number format of
this machine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from runner.backends.local.device import compute_dtype
from runner.backends.local.kernels import use_kernels
from runner.backends.local.opening import refuse_adapter, unavailable
from runner.errors import Exit, Problem, RunnerError


def load_tokenizer(name: str, folder: str, revision: str | None, trust_remote_code: bool) -> tuple[Any, Any]:
    """The tokenizer and the config of the model `name`. Raises RunnerError (66, 69, 77) when they cannot be had, (66)
    when the tokenizer cannot render conversations, and (78) when they need code that is not trusted."""
    try:
        config = AutoConfig.from_pretrained(folder, revision=revision, trust_remote_code=trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        fix = "Check approach.model and its revision."
        raise unavailable(f"The model '{name}'", error, code="model/unavailable", fix=fix) from error
    if not tokenizer.is_fast:
        raise RunnerError(
            Problem(
                code="model/slow-tokenizer",
                what=f"The tokenizer of '{name}' cannot say which characters a token stands for.",
                fix="Choose a model with a tokenizer.json.",
            ),
            Exit.INPUT_MISSING,
        )
    if not tokenizer.chat_template:
        raise RunnerError(
            Problem(
                code="model/no-chat-template",
                what=f"The tokenizer of '{name}' has no chat template, so conversations cannot be rendered.",
                fix="Choose an instruct or chat variant of the model.",
            ),
            Exit.INPUT_MISSING,
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, config


def delivered_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer of a folder that was delivered. Raises RunnerError (66) when it cannot be opened."""
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        fix = "Run the same command again: it trains anew where a file is not as it was."
        raise unavailable("The delivered tokenizer", error, code="delivery/tokenizer", fix=fix) from error


def stop_ids(folder: str, revision: str | None, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the tokenizer's own and those of the model's generation config."""
    try:
        own = GenerationConfig.from_pretrained(folder, revision=revision).eos_token_id
    except OSError:
        own = None
    return frozenset({tokenizer.eos_token_id, *([own] if isinstance(own, int) else own or [])})


def load_weights(
    folder: str, revision: str | None, method: str, end_ids: Collection[int], pad_id: int, *, trust_remote_code: bool
) -> Any:
    """The weights on this process's device, in 4 bits for `qlora`. Raises RunnerError (66) when they cannot be had, and
    (78) when they need code that is not trusted."""
    dtype = compute_dtype()
    quantization = None
    if method == "qlora":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    refuse_adapter(folder, revision)
    device = {"": torch.cuda.current_device()} if torch.cuda.is_available() else {"": "cpu"}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            revision=revision,
            dtype=dtype,
            device_map=device,
            quantization_config=quantization,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError) as error:
        if "custom code" in str(error):
            raise unavailable(f"The model '{folder}'", error, code="model/weights", fix="") from error
        raise RunnerError(
            Problem(
                code="model/weights",
                what=f"The weights of '{folder}' could not be loaded: {str(error).splitlines()[0]}",
                fix="Check that the model is complete, in safetensors, and of an architecture transformers knows.",
            ),
            Exit.INPUT_MISSING,
        ) from error
    use_kernels(model)
    # The model's own penalties and sampling would colour what should be greedy; and whatever is saved of it must say
    # where an answer ends, or a server goes on for ever.
    model.generation_config = GenerationConfig(eos_token_id=sorted(end_ids), pad_token_id=pad_id)
    for layer in model.modules():
        # bitsandbytes repacks 4-bit weights when a model first answers on an AVX512-BF16 processor, and its product
        # for the packed form has no gradient: the layers below would silently learn nothing afterwards.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model
