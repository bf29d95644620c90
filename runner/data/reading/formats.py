"""Shapes of rows -> conversations: one table of formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.conversation import Message, Role
from runner.data.reading.columns import fill
from runner.data.reading.contents import Repairs, parsed, scalar_text
from runner.data.reading.records import HALF, listed
from runner.data.reading.tools import tools_text
from runner.data.reading.turns import read_turns
from runner.plan import Template

Turns = tuple[list[Any], Any]  # turns in OpenAI's keys, and the tools as written


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """What a row says, the tools on offer as JSON text, and what was mended."""

    messages: tuple[Message, ...]
    tools: str | None
    repairs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One shape of rows: the keys it is known by (each with its alternatives), an example, and its turns."""

    keys: tuple[tuple[str, ...], ...]
    shape: str
    turns: Callable[[Mapping[str, Any], Template | None], Turns]
    roles: Mapping[str, Role]

    @property
    def known_by(self) -> str:
        """`instruction and output`."""
        return " and ".join(" or ".join(names) for names in self.keys)

    def has_keys(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has every key, whatever its value."""
        return not any(row.keys().isdisjoint(names) for names in self.keys)

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has every key, with a value."""
        return bool(self.keys) and all(any(row.get(key) is not None for key in names) for names in self.keys)


def convert(value: Any, name: str, template: Template | None) -> Conversation:
    """The conversation in a row of the named format; raises ValueError with the reason when there is none."""
    form = FORMATS[name]
    try:
        if not isinstance(value, dict):
            raise ValueError("the row is not a JSON object")
        for names in form.keys:
            if value.keys().isdisjoint(names):
                found = listed(value, 6) or "none"
                raise ValueError(f"no '{names[0]}' (format {name}; the row has the keys: {found})")
        turns, tools = form.turns(value, template)
        repairs: Repairs = {}
        messages = read_turns(turns, form.roles, repairs)
        return Conversation(messages=messages, tools=tools_text(tools), repairs=tuple(repairs))
    except UnicodeEncodeError:
        raise ValueError(HALF) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _chat(row: Mapping[str, Any], template: Template | None) -> Turns:
    turns = row["messages"]
    if not isinstance(turns, list):
        raise ValueError("'messages' is not a list")
    return turns, row.get("tools") or row.get("functions")


def _sharegpt(row: Mapping[str, Any], template: Template | None) -> Turns:
    key = "conversations" if row.get("conversations") is not None else "conversation"
    if not isinstance(row.get(key), list):
        raise ValueError(f"'{key}' is not a list")
    turns = [_sharegpt_turn(turn, number) for number, turn in enumerate(row[key], 1)]
    return [*_system(row.get("system")), *turns], row.get("tools")


def _sharegpt_turn(turn: Any, number: int) -> Any:
    if not isinstance(turn, dict) or turn.get("from") is None:
        return turn
    if "value" not in turn:
        raise ValueError(f"a message has not the keys from and value (message {number})")
    more = dict(turn)
    role, content = more.pop("from"), more.pop("value")
    if isinstance(role, str) and role.strip().lower() == "function_call":
        return {**more, "role": role, "content": "", "tool_calls": parsed(content, "a tool call", number)}
    return {**more, "role": role, "content": content}


def _alpaca(row: Mapping[str, Any], template: Template | None) -> Turns:
    for key in ("instruction", "input", "output"):
        _refuse_texts(row.get(key), key)
    question, more = row["instruction"], row.get("input")
    if isinstance(more, str) and more.strip():
        question = f"{_text(question)}\n\n{more}" if question not in (None, "") else more
    elif more is not None and not isinstance(more, str):
        question = f"{_text(question)}\n\n{_text(more)}"
    turns = [*_system(row.get("system"))]
    history = row.get("history") or []
    if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
        raise ValueError("'history' is not a list of pairs")
    for pair in history:
        for text in pair:
            _refuse_texts(text, "history")
    for asked, answered in [*history, (question, row["output"])]:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return turns, row.get("tools")


def _prompt_completion(row: Mapping[str, Any], template: Template | None) -> Turns:
    prompt, completion = row["prompt"], row["completion"]
    asked = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    answered = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
    return [*asked, *answered], row.get("tools")


def _columns(row: Mapping[str, Any], template: Template | None) -> Turns:
    if template is None:
        raise ValueError("there is no template (data.template)")
    texts = (("system", template.system or ""), ("user", template.prompt), ("assistant", template.completion))
    system, *turns = [{"role": role, "content": fill(text, row)} for role, text in texts]
    return [system, *turns] if system["content"] else turns, None


def _system(text: Any) -> Iterator[dict[str, Any]]:
    if text is not None and text != "":
        yield {"role": "system", "content": text}


def _refuse_texts(value: Any, key: str) -> None:
    """Raises ValueError for a list of texts: it may hold alternatives, which joined would teach an answer of none."""
    if isinstance(value, list) and any(isinstance(part, str) for part in value):
        raise ValueError(f"a list stands where one text belongs ('{key}')")


def _text(value: Any) -> str:
    text = scalar_text(value)
    if text is None:
        raise ValueError("a message has no text as content (message 1, user)")
    return text


CHAT_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
SHAREGPT_ROLES: dict[str, Role] = {
    **CHAT_ROLES,
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bard", "model", "bing", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function_response"), "tool"),
}
FORMATS: dict[str, Format] = {
    "chat": Format(
        keys=(("messages",),),
        shape='{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
        turns=_chat,
        roles=CHAT_ROLES,
    ),
    "sharegpt": Format(
        keys=(("conversations", "conversation"),),
        shape='{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
        turns=_sharegpt,
        roles=SHAREGPT_ROLES,
    ),
    "alpaca": Format(
        keys=(("instruction",), ("output",)),
        shape='{"instruction": "...", "input": "...", "output": "..."}',
        turns=_alpaca,
        roles=CHAT_ROLES,
    ),
    "prompt_completion": Format(
        keys=(("prompt",), ("completion",)),
        shape='{"prompt": "...", "completion": "..."}',
        turns=_prompt_completion,
        roles=CHAT_ROLES,
    ),
    "columns": Format(
        keys=(),
        shape='{"question": "...", "answer": "..."} with data.template naming the columns',
        turns=_columns,
        roles=CHAT_ROLES,
    ),
}
