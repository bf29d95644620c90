"""Texts -> embeddings, for the metric similarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer

from runner.backends.base import Watch
from runner.backends.local.opening import refuse_adapter, split_revision, unavailable
from runner.errors import RunnerError, Where

BATCH_TOKENS = 16_384
MIN_POSITIONS = 2  # RoBERTa and its kin start to count positions behind the padding token's


class Embedder:
    """An embedding model in memory, a hub id ``org/name@revision`` or a folder: the mean of the last layer over real
    tokens, special ones included, scaled to length 1. Texts are cut to the model's own limit.

    Raises RunnerError: 66 when the model is missing or cannot be used, 69 without a network, 77 when access is refused.
    """

    def __init__(self, model: str, *, batch_tokens: int = BATCH_TOKENS):
        name, revision = split_revision(model)
        try:
            self._tokenizer, whole = _load(name, revision)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise _unavailable(name, error) from error
        encoder = whole.get_encoder() if whole.config.is_encoder_decoder else whole
        self._model = encoder.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_tokens = batch_tokens
        self.max_tokens = _max_tokens(self._tokenizer, whole.config)

    def similarities(self, first: Sequence[str], second: Sequence[str], watch: Watch) -> list[float]:
        """Cosine of each pair's embeddings, from 0 to 1: one below 0 counts as 0, so that it is a share. Equal texts
        have 1; a text without tokens has 0 with any other."""
        texts = list(dict.fromkeys([*first, *second]))
        vectors = dict(zip(texts, self._embed(texts, watch), strict=True))
        pairs = list(zip(first, second, strict=True))
        cosines = [1.0 if a == b else float(vectors[a] @ vectors[b]) for a, b in pairs]
        return [min(max(cosine, 0.0), 1.0) for cosine in cosines]

    def _embed(self, texts: Sequence[str], watch: Watch) -> torch.Tensor:
        """(N, d) on the CPU, in the order of the texts."""
        ids = [
            self._tokenizer(text, truncation=True, max_length=self.max_tokens, return_attention_mask=False)["input_ids"]
            for text in texts
        ]
        vectors = torch.zeros(len(texts), self._model.config.hidden_size)
        with watch.progress("similarity", len(texts)) as progress, torch.inference_mode():
            for batch in _batches([len(row) for row in ids], self._batch_tokens):
                vectors[batch] = self._embed_batch([ids[i] for i in batch]).cpu()
                progress.advance(len(batch))
        return vectors

    def _embed_batch(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """(B, d); rows of no tokens get zeros."""
        width = max(1, *map(len, rows))
        ids = torch.full((len(rows), width), self._tokenizer.pad_token_id or 0, device=self._model.device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=ids.dtype)
            mask[i, : len(row)] = 1
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = torch.where(mask.bool()[..., None], hidden, 0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=-1)


def _load(name: str, revision: str | None) -> tuple[Any, Any]:
    """Tokenizer and model; raises ValueError where transformers would make up what the files lack."""
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError("its tokenizer has no words.")
    refuse_adapter(name, revision)
    model, info = AutoModel.from_pretrained(
        name,
        revision=revision,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)  # which the mean does not use
    if missing:
        raise ValueError(f"its weights lack {missing[0]} and {len(missing) - 1} more.")
    return tokenizer, model


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows by number, the longest first, in batches of at most that many tokens with their padding."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        size = max(1, batch_tokens // max(1, lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _max_tokens(tokenizer: Any, config: Any) -> int:
    """The longest text that the model can read, by its tokenizer and its positions."""
    positions = getattr(config, "max_position_embeddings", None)
    limits = [tokenizer.model_max_length, *([positions - MIN_POSITIONS] if positions else [])]
    return int(min(*limits, BATCH_TOKENS))


def _unavailable(name: str, error: BaseException) -> RunnerError:
    """Why the model could not be opened."""
    fix = "Check eval.embedding and its revision; the weights must be safetensors."
    place = Where(key="eval.embedding")
    return unavailable(f"The embedding model '{name}'", error, code="eval/embedding", fix=fix, where=place)
