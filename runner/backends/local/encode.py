"""Conversations -> token ids and labels, by the model's own tokenizer and chat template."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby, pairwise
from typing import Any

from jinja2 import TemplateError

from runner.backends.base import Segment
from runner.conversation import Example, Message

Answer = tuple[int, int, bool]  # first character, last one and one more, whether the turn is complete


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row: its tokens, and the spans of them (first, last and one more) that are trained on."""

    input_ids: list[int]
    spans: list[tuple[int, int]]

    @property
    def trained_ids(self) -> list[int]:
        """The tokens that carry a loss."""
        return [token for first, end in self.spans for token in self.input_ids[first:end]]

    @property
    def num_labelled(self) -> int:
        """How many tokens carry a loss."""
        return sum(end - first for first, end in self.spans)


def render(tokenizer: Any, messages: Sequence[Message], *, tools: str | None = None, answer_next: bool = False) -> str:
    """The template's text for the turns, with the opening of an assistant turn when `answer_next`."""
    return _render_all(tokenizer, [messages], tools, answer_next)[0]


def encode(tokenizer: Any, examples: Sequence[Example], stop_ids: frozenset[int]) -> list[Encoded | str]:
    """Each example as tokens and trained spans, or the reason why it cannot be trained on; `stop_ids` end an answer.

    Trained on are the assistant's words and the stop token after them, nothing else. The template is rendered up to
    each assistant turn; every such text must be a prefix of the whole, or the spans could not be placed.
    """
    marks = _template_marks(tokenizer, stop_ids)
    located = [
        f"a message contains a special token of the chat template ({mark})"
        if (mark := _said(example, marks))
        else found
        for example, found in zip(examples, _locate(tokenizer, examples), strict=True)
    ]
    rows = _tokenize(tokenizer, [("", []) if isinstance(found, str) else found for found in located])
    return [
        found if isinstance(found, str) else _place(row, found[1], stop_ids, tokenizer.bos_token_id)
        for row, found in zip(rows, located, strict=True)
    ]


def shorten(tokenizer: Any, example: Example, max_length: int, stop_ids: frozenset[int]) -> Example | None:
    """The example in at most `max_length` tokens: earliest exchanges are left out, then the last answer is cut at its
    end. None when nothing of the answer would remain."""

    def excess(shorter: Example) -> int | None:
        (row,) = encode(tokenizer, [shorter], stop_ids)
        return None if isinstance(row, str) else len(row.input_ids) - max_length

    asked = [i for i, message in enumerate(example.messages) if message.role == "user"]
    head = example.messages[: asked[0]]
    later = [replace(example, messages=(*head, *example.messages[i:])) for i in asked]
    fitting = bisect_left(later, True, key=lambda shorter: (excess(shorter) or 0) <= 0)
    example = later[min(fitting, len(later) - 1)]
    while (over := excess(example)) is not None and over > 0:
        example = _with_less_answer(tokenizer, example, over)
        if not example.expected:
            return None
    return None if over is None else example


def mark(row: Encoded, tokenizer: Any) -> list[Segment]:
    """The row's text as the model sees it, in stretches that are trained on or not."""
    ends = [0, *chain.from_iterable(row.spans), len(row.input_ids)]
    stretches = [(row.input_ids[a:b], i % 2 == 1) for i, (a, b) in enumerate(pairwise(ends)) if a < b]
    return [Segment(text=tokenizer.decode(ids), trained=trained) for ids, trained in stretches]


class _Pieces:
    """A tokenized text, in the pieces between its special tokens."""

    def __init__(self, texts: Sequence[str], encodings: Sequence[Any]):
        self._encodings = encodings
        self._chars = [0, *accumulate(map(len, texts))]
        self._tokens = [0, *accumulate(map(len, encodings))]

    @property
    def ids(self) -> list[int]:
        return list(chain.from_iterable(encoding.ids for encoding in self._encodings))

    def token_at(self, char: int) -> tuple[int, int] | None:
        """Number of the token that a character belongs to, and where that token begins; None: not known, or to none."""
        i = bisect_right(self._chars, char) - 1
        if char == self._chars[i]:
            return self._tokens[i], char
        token = self._encodings[i].char_to_token(char - self._chars[i])
        if token is None:
            return None
        return self._tokens[i] + token, self._chars[i] + self._encodings[i].token_to_chars(token)[0]


def _tokenize(tokenizer: Any, rows: Sequence[tuple[str, list[Answer]]]) -> list[_Pieces]:
    """Tokenizes the texts; what stands between special tokens in many of them, such as a system prompt, only once.

    A tokenizer never joins characters across a special token, so the pieces' tokens are the whole text's (a test). An
    answer is a piece by itself, as it is when the model writes it behind the prompt.
    """
    split, backend = _splitter(tokenizer), tokenizer.backend_tokenizer
    if split is None:
        texts = [text for text, _ in rows]
        encodings = backend.encode_batch(texts, add_special_tokens=False)
        return [_Pieces([text], [encoding]) for text, encoding in zip(texts, encodings, strict=True)]
    pieces = [[piece for piece in split(text, [begin for begin, _, _ in answers]) if piece] for text, answers in rows]
    different = list(dict.fromkeys(chain.from_iterable(pieces)))
    # Fast: without the characters' places, which nobody asks for where every answer begins a piece.
    encodings = backend.encode_batch_fast(different, add_special_tokens=False)
    known = dict(zip(different, encodings, strict=True))
    return [_Pieces(some, [known[piece] for piece in some]) for some in pieces]


def _splitter(tokenizer: Any) -> Callable[[str, list[int]], list[str]] | None:
    """Divides a text at its special tokens and at the places given; None: the tokenizer must see the text whole."""
    special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    joins = any(token.lstrip or token.rstrip or token.single_word for token in special)
    whole = "Metaspace" in str(tokenizer.backend_tokenizer.pre_tokenizer) or tokenizer.backend_tokenizer.normalizer
    if joins or whole or not special:
        return None
    longest_first = sorted(map(str, special), key=len, reverse=True)
    split = re.compile(f"({'|'.join(map(re.escape, longest_first))})").split
    return lambda text, places: [
        piece for begin, end in pairwise([0, *places, len(text)]) for piece in split(text[begin:end])
    ]


def _locate(tokenizer: Any, examples: Sequence[Example]) -> list[tuple[str, list[Answer]] | str]:
    """Each row's text and its trained spans (first and last character, and whether the turn is complete)."""
    try:
        return [
            found
            for tools, some in groupby(examples, key=lambda example: example.tools)
            for found in _locate_batch(tokenizer, list(some), tools)
        ]
    except (TemplateError, TypeError, ValueError) as error:  # a template speaks its refusals as exceptions
        if len(examples) == 1:
            return [f"the chat template refuses the row: {(str(error).splitlines() or [type(error).__name__])[0]}"]
        return [found for example in examples for found in _locate(tokenizer, [example])]


def _locate_batch(
    tokenizer: Any, examples: Sequence[Example], tools: str | None
) -> Iterator[tuple[str, list[Answer]] | str]:
    answers = [[i for i, m in enumerate(e.messages) if m.role == "assistant" and m.trained] for e in examples]
    opened = [e.messages[:i] for e, turns in zip(examples, answers, strict=True) for i in turns]
    closed = [e.messages[: i + 1] for e, turns in zip(examples, answers, strict=True) for i in turns[:-1]]
    whole = [example.messages for example in examples]
    texts = _render_all(tokenizer, whole, tools)
    bare = _render_all(tokenizer, whole, None) if tools else [""] * len(texts)
    befores = iter(_render_all(tokenizer, opened, tools, answer_next=True))
    afters = iter(_render_all(tokenizer, closed, tools))
    for example, text, plain, turns in zip(examples, texts, bare, answers, strict=True):
        answered: list[Answer] = []
        faithful = spoken = True
        for i in turns:
            before, after = next(befores), text if i == turns[-1] else next(afters)
            faithful = faithful and text.startswith(after) and after.startswith(before)
            spoken = spoken and _shows_calls(example.messages[i], text[len(before) : len(after)])
            answered.append((len(before), len(after), example.messages[i].complete))
        if not faithful:
            yield "the chat template rewrites earlier turns, so the answer cannot be located in it"
        elif not spoken:
            yield "the chat template leaves out tool calls, so the model would not learn them"
        elif text == plain:
            yield "the chat template leaves out the tools on offer, so the model would not see them"
        else:
            yield text, answered


def _template_marks(tokenizer: Any, stop_ids: frozenset[int]) -> list[str]:
    """The special tokens that a text must not contain, because they would make or end a turn."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    used = {token for token in special if token in tokenizer.chat_template}
    return sorted(used | set(tokenizer.convert_ids_to_tokens(sorted(stop_ids))))


def _said(example: Example, words: Sequence[str]) -> str | None:
    text = "\n".join(m.content if m.tool_calls is None else f"{m.content}\n{m.tool_calls}" for m in example.messages)
    for word in words:
        if word in text:
            return word
    return None


def _shows_calls(message: Message, rendered: str) -> bool:
    if message.tool_calls is None:
        return True
    return all(call["function"]["name"] in rendered for call in json.loads(message.tool_calls))


def _render_all(
    tokenizer: Any, conversations: Sequence[Sequence[Message]], tools: str | None, answer_next: bool = False
) -> list[str]:
    if not conversations:
        return []
    turns = [[_turn(message) for message in messages] for messages in conversations]
    # A template that can open a "thinking" part is told not to: the answers in the data have none.
    options = {"tokenize": False, "add_generation_prompt": answer_next, "enable_thinking": False}
    return list(tokenizer.apply_chat_template(turns, tools=json.loads(tools) if tools else None, **options))


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = json.loads(message.tool_calls)
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _place(row: _Pieces, answers: list[Answer], stop_ids: frozenset[int], start_id: int | None) -> Encoded | str:
    ids = row.ids
    if start_id is not None and ids[:2] == [start_id, start_id]:
        return "the start token stands twice at the row's beginning"
    spans = []
    for begin, end, complete in answers:
        first, last = row.token_at(begin), row.token_at(end - 1)
        if first is None or first[1] != begin:
            return "the answer's first characters share a token with the template"
        upto = last[0] + 1 if last else len(ids)
        stop = next((i for i in range(first[0], upto) if ids[i] in stop_ids), None)
        if stop is None:
            return "the chat template ends the answer without the stop token, so the model would never learn to stop"
        spans.append((first[0], stop + 1 if complete else stop))
    return Encoded(ids, spans)


def _with_less_answer(tokenizer: Any, example: Example, excess: int) -> Example:
    """The example with its last answer at least `excess` tokens shorter."""
    last = example.messages[-1]
    encoding = tokenizer.backend_tokenizer.encode(last.content, add_special_tokens=False)
    kept = len(encoding.ids) - excess
    text = last.content[: encoding.token_to_chars(kept)[0]].rstrip() if kept > 0 else ""
    return replace(example, messages=(*example.prompt, replace(last, content=text, tool_calls=None, complete=False)))
