"""Conversations -> token ids and labels, by the model's own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.conversation import Example, Message

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row: `input_ids` and `labels` have the same length; a label is the token itself or IGNORED (not shifted)."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_labelled(self) -> int:
        """How many tokens carry a loss."""
        return sum(label != IGNORED for label in self.labels)


def render(tokenizer: Any, messages: Sequence[Message], *, answer_next: bool = False) -> str:
    """The template's text for the turns, with the opening of an assistant turn when `answer_next`."""
    turns = [{"role": m.role, "content": m.content} for m in messages]
    # A template that can open a "thinking" part is told not to: the answers in the data have none.
    options = {"tokenize": False, "add_generation_prompt": answer_next, "enable_thinking": False}
    return str(tokenizer.apply_chat_template(turns, **options))


def encode(tokenizer: Any, examples: Sequence[Example], stop_ids: frozenset[int]) -> list[Encoded | str]:
    """Each example as ids and labels, or the reason why it cannot be trained on; `stop_ids` are the tokens that end
    an answer.

    Labelled are the assistant's words and the stop token after them, nothing else. The template is rendered up to
    each assistant turn; every such text must be a prefix of the whole, or the labels could not be placed.
    """
    if not examples:
        return []  # the tokenizer cannot take an empty batch
    texts: list[str] = []
    spans: list[list[tuple[int, int]] | str] = []
    for example in examples:
        text = render(tokenizer, example.messages)
        texts.append(text)
        spans.append(_answer_spans(tokenizer, example.messages, text))
    batch = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    return [
        found if isinstance(found, str) else _label(ids, offsets, found, stop_ids)
        for ids, offsets, found in zip(batch["input_ids"], batch["offset_mapping"], spans, strict=True)
    ]


def _answer_spans(tokenizer: Any, messages: Sequence[Message], text: str) -> list[tuple[int, int]] | str:
    found = []
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = render(tokenizer, messages[:i], answer_next=True)
        after = text if i == len(messages) - 1 else render(tokenizer, messages[: i + 1])
        if not (text.startswith(after) and after.startswith(before)):
            return "the chat template rewrites earlier turns, so the answer cannot be located in it"
        found.append((len(before), len(after)))
    return found


def _label(
    ids: list[int], offsets: list[tuple[int, int]], spans: list[tuple[int, int]], stop_ids: frozenset[int]
) -> Encoded | str:
    labels = [IGNORED] * len(ids)
    starts = {start for start, _ in offsets}
    i = 0
    for begin, end in spans:
        if begin not in starts:
            return "the answer's first characters share a token with the template"
        while offsets[i][0] < begin:
            i += 1
        while i < len(ids) and offsets[i][0] < end:
            labels[i] = ids[i]
            i += 1
            if ids[i - 1] in stop_ids:
                break
        else:
            return "the chat template ends the answer without the stop token, so the model would never learn to stop"
    return Encoded(ids, labels)
