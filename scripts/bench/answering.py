"""The evaluation arms: base and tuned answers of one copy of the weights, and of two loads with padded generation."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import Result
from bench.rows import local_backend, quickstart_examples
from bench.training import Clock, now

NO_TOKEN = frozenset({-1})  # ends no answer
PADDED_BATCH = 8
ADAPTER_STD = 0.02  # of an adapter's B at random: its answers differ from the base model's


def make_adapter(model: str, folder: Path) -> None:
    """An adapter at random, rank 16 on all linear layers, as a trained one lies on disk."""
    import torch
    from peft import LoraConfig, get_peft_model

    loaded = _load(model)
    torch.manual_seed(0)
    adapted = get_peft_model(
        loaded, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, ADAPTER_STD)
    adapted.save_pretrained(folder)


def ours(options: dict[str, Any]) -> Result:
    """A session that answers as base and as tuned, in the product's batches; nothing kept from an earlier round."""
    from runner.backends.base import Sampling

    local, clock = local_backend(), Clock()
    prompts = [example.prompt for example in quickstart_examples(options["prompts"])]
    sampling = Sampling(max_new_tokens=options["new_tokens"], batch_size=options["batch"])
    started = now()
    session = local.open_session(options["model"], "lora", Path(options["work"]), clock)
    session._tuned_dir = Path(options["adapter"])  # as after a training that an earlier attempt did
    session.stop_ids = NO_TOKEN
    answers = {side: session.complete(side, prompts, sampling, clock) for side in ("base", "tuned")}
    seconds = now() - started
    return {"seconds": seconds, **{side: [answer.text for answer in some] for side, some in answers.items()}}


def two_loads(options: dict[str, Any]) -> Result:
    """The model loaded and asked, then loaded again with the adapter and asked, in padded batches of 8."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    local_backend()
    prompts = [example.prompt for example in quickstart_examples(options["prompts"])]
    started = now()
    tokenizer = AutoTokenizer.from_pretrained(options["model"], padding_side="left")
    base = _answer(_load(options["model"]), tokenizer, prompts, options["new_tokens"])
    gc.collect()
    tuned_model = PeftModel.from_pretrained(_load(options["model"]), options["adapter"])
    tuned = _answer(tuned_model, tokenizer, prompts, options["new_tokens"])
    return {"seconds": now() - started, "base": base, "tuned": tuned}


def _load(folder: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from runner.backends.local.device import compute_dtype

    device = {"": 0} if torch.cuda.is_available() else {"": "cpu"}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=compute_dtype(), device_map=device)
    model.generation_config = GenerationConfig()  # its penalties would colour what should be greedy on both sides
    return model.eval()


def _answer(model: Any, tokenizer: Any, prompts: Sequence[Any], new_tokens: int) -> list[str]:
    import torch
    from transformers import GenerationConfig

    turns = [[{"role": m.role, "content": m.content} for m in prompt] for prompt in prompts]
    texts = [tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=True) for some in turns]
    config = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, pad_token_id=tokenizer.pad_token_id)
    answers: list[str] = []
    for begin in range(0, len(texts), PADDED_BATCH):
        batch = tokenizer(
            texts[begin : begin + PADDED_BATCH], padding=True, add_special_tokens=False, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(**batch, generation_config=config)
        answers += tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def same_share(mine: Result, other: Result) -> str:
    """How many answers are the same text; rounding differs with what stands beside a row, and EOS does not end them."""
    pairs = [pair for side in ("base", "tuned") for pair in zip(mine[side], other[side], strict=True)]
    same = sum(a == b for a, b in pairs)
    alike = sum(a[:40] == b[:40] for a, b in pairs)
    return f"equal answers: {same} of {len(pairs)}, in their first 40 characters {alike}"
