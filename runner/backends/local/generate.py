"""Answers and held-out loss of the model in memory."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from runner.backends.answers import KeptAnswers, key_of
from runner.backends.base import HeldOutLoss, Reply, Sampling, Watch
from runner.backends.local.attention import attention_for
from runner.backends.local.cache import make_cache
from runner.backends.local.encode import Encoded
from runner.backends.local.head import answer_losses
from runner.backends.local.memory import is_out_of_memory
from runner.backends.local.pack import MIN_SHARED, pack
from runner.conversation import Completion

LOSS_ROWS = 8
# Keys and values of a batch: longer rows get more of the processor's time from padding and memory than they save in
# weights that are read once; on a GPU they have to fit beside the weights.
BATCH_TOKENS = {"cpu": 20_480, "cuda": 131_072}
PREFILL_TOKENS = 2_048  # read at once; the activations of more would not fit


@contextlib.contextmanager
def packed_rows(model: Any) -> Iterator[None]:
    """While open, the model reads packed rows (`pack`); outside, it attends as transformers does by itself."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    usual = base.config._attn_implementation
    base.set_attn_implementation(attention_for(base))
    try:
        yield
    finally:
        base.set_attn_implementation(usual)


class _StopWhenAsked(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, watch: Watch):
        self._watch = watch

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._watch.check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def complete(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    sampling: Sampling,
    stop_ids: frozenset[int],
    watch: Watch,
    label: str,
    kept: KeptAnswers,
) -> list[Completion]:
    """One greedy answer for each rendered prompt, in their order; a batch whose answers are all kept is not answered
    again."""
    answers = answer_batches(model, tokenizer, texts, sampling, stop_ids, watch, label, kept)
    return [answers[i] for i in range(len(texts))]


def answer_batches(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    sampling: Sampling,
    stop_ids: frozenset[int],
    watch: Watch,
    label: str,
    kept: KeptAnswers | None,
    num_rows: int | None = None,
) -> Mapping[int, Completion]:
    """Greedy answers by the prompts' numbers: to all, or to those of the first batches until there are `num_rows`.

    Each prompt is answered once, beside those of like length. What stands beside a row can turn its rounding, so the
    batches are the same whether some answers are kept or not, however many are asked for, and in whatever order prompts
    come."""
    model.eval()
    ids = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(stop_ids),
        pad_token_id=tokenizer.pad_token_id,
    )
    keys = [key_of(text, sampling.max_new_tokens, sampling.batch_size, sorted(stop_ids)) for text in texts]
    answers = {key: reply.completion for key in keys if kept and (reply := kept.get(key)) and reply.completion}
    order = sorted({key: i for i, key in enumerate(keys)}.values(), key=lambda i: (len(ids[i]), texts[i]))
    batches = _batches(order, [len(row) for row in ids], sampling, next(model.parameters()).device.type)
    sizes = list(itertools.accumulate(map(len, batches), initial=0))
    asked = sum(size < num_rows for size in sizes[:-1]) if num_rows is not None else len(batches)
    shared: list[DynamicCache | None] = []
    with watch.progress(label, sizes[asked]) as progress:
        for batch in batches[:asked]:
            if any(keys[i] not in answers for i in batch):
                started = time.perf_counter()
                shared = shared or [_prefix_cache(model, ids, sampling.max_new_tokens)]
                rows = _generate(model, [ids[i] for i in batch], config, shared[0], watch)
                seconds = (time.perf_counter() - started) / len(batch)
                new = {
                    keys[i]: _completion(tokenizer, len(ids[i]), row, stop_ids, seconds)
                    for i, row in zip(batch, rows, strict=True)
                    if keys[i] not in answers
                }
                if kept:
                    kept.put({key: Reply(completion=completion) for key, completion in new.items()})
                    watch.saved("answers", len(new))
                answers |= new
            progress.advance(len(batch))
    return {i: answers[key] for i, key in enumerate(keys) if key in answers}


def _batches(order: Sequence[int], lengths: Sequence[int], sampling: Sampling, device: str) -> list[list[int]]:
    """The prompts of `order`, shortest first, in batches of so many rows and at most so many tokens."""
    batches: list[list[int]] = []
    for i in order:
        width = lengths[i] + sampling.max_new_tokens
        last = batches[-1] if batches else []
        if last and len(last) < sampling.batch_size and (len(last) + 1) * width <= BATCH_TOKENS[device]:
            last.append(i)
        else:
            batches.append([i])
    return batches


def held_out_loss(model: Any, rows: Sequence[Encoded], watch: Watch, label: str | None = None) -> HeldOutLoss:
    """Mean nats per labelled token of each row, and over all tokens; `label` shows a progress bar."""
    model.eval()
    device = next(model.parameters()).device
    found: list[torch.Tensor] = []
    sizes: list[int] = []
    shown = watch.progress(label, len(rows)) if label else contextlib.nullcontext()
    with shown as progress, torch.inference_mode(), packed_rows(model):
        for begin in range(0, len(rows), LOSS_ROWS):
            watch.check()
            some = rows[begin : begin + LOSS_ROWS]
            batch = pack(some)
            sizes += batch["row_sizes"].tolist()
            found.append(answer_losses(model, {key: value.to(device) for key, value in batch.items()}))
            if progress:
                progress.advance(len(some))
    losses = torch.cat(found).cpu().double()  # fetched once: nothing before waits for the device
    means = tuple(float(part.mean()) for part in losses.split(sizes))
    return HeldOutLoss(rows=means, mean=float(losses.mean()), num_tokens=len(losses))


def _prefix_cache(model: Any, rows: list[list[int]], spare: int) -> DynamicCache | None:
    """Keys and values of the tokens that all prompts begin with (the system prompt), computed once; None if too few.
    `spare`: for how many tokens of an answer there is to be room."""
    limit = min(map(len, rows)) - 1
    length = next((i for i in range(limit) if any(row[i] != rows[0][i] for row in rows)), limit)
    if length < MIN_SHARED or len(rows) < 2:
        return None
    cache = make_cache(model.config, spare)
    shared = torch.tensor([rows[0][:length]], device=next(model.parameters()).device)
    with torch.inference_mode():
        model(input_ids=shared, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _generate(
    model: Any, rows: list[list[int]], config: GenerationConfig, cache: DynamicCache | None, watch: Watch
) -> list[list[int]]:
    """Continues each row; where memory runs out, in halves."""
    try:
        return _continue(model, rows, config, cache, watch)
    except (RuntimeError, MemoryError) as error:
        if len(rows) == 1 or not is_out_of_memory(error):
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    watch.say(f"Memory ran out with {len(rows)} answers at a time; going on with half as many.")
    half = len(rows) // 2
    return [row for some in (rows[:half], rows[half:]) for row in _generate(model, some, config, cache, watch)]


def _continue(
    model: Any, rows: list[list[int]], config: GenerationConfig, cache: DynamicCache | None, watch: Watch
) -> list[list[int]]:
    """A row is padded on the left, or behind the prefix that the cache already holds."""
    device = next(model.parameters()).device
    width = max(map(len, rows))
    shared = cache.get_seq_length() if cache else 0
    pads = [[config.pad_token_id] * (width - len(row)) for row in rows]
    input_ids = torch.tensor(
        [row[:shared] + pad + row[shared:] for row, pad in zip(rows, pads, strict=True)], device=device
    )
    mask = torch.tensor(
        [[1] * shared + [0] * len(pad) + [1] * (width - shared - len(pad)) for pad in pads], device=device
    )
    pieces = copy.copy(config)
    pieces.prefill_chunk_size = max(1, PREFILL_TOKENS // len(rows))
    with torch.inference_mode():
        held = copy.deepcopy(cache) if cache else make_cache(model.config, config.max_new_tokens)
        if cache:
            held.batch_repeat_interleave(len(rows))
        output = model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            generation_config=pieces,
            past_key_values=held,
            use_cache=True,
            stopping_criteria=StoppingCriteriaList([_StopWhenAsked(watch)]),
        )
    return [row[width:].tolist() for row in output]


def _completion(
    tokenizer: Any, prompt_tokens: int, row: list[int], stop_ids: frozenset[int], seconds: float
) -> Completion:
    length = next((i for i, token in enumerate(row) if token in stop_ids), None)
    finish: Literal["stop", "length"] = "length" if length is None else "stop"
    text = tokenizer.decode(row[:length], skip_special_tokens=True)
    return Completion(
        text=text,
        prompt_tokens=prompt_tokens,
        output_tokens=len(row) if length is None else length + 1,
        seconds=seconds,
        finish=finish,
    )
