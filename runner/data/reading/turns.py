"""The rules of a conversation: turns in OpenAI's keys -> messages, or the reason why they teach nothing."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from runner.conversation import ROLES, Message, Role
from runner.data.reading.contents import Repairs, clean, content_text, scalar_text
from runner.data.reading.records import listed
from runner.data.reading.tools import answers_a_call, calls_text

NO_MESSAGES = "there are no messages"
NO_ANSWER = "the last message is not the assistant's, so there is no answer to learn"
NOT_IN_TURN = "user and assistant do not take turns, beginning with the user"
ROLE_MENDED = "a role's case or spaces were mended"
EMPTY_SYSTEM = "an empty system message was removed"
TAIL_CUT = "turns after the last trained answer were cut"
KEYS_LEFT_OUT = "message keys that are not used were left out"

SAYS = ("content", "tool_calls", "function_call")
USED = frozenset(("role", "weight", "tool_call_id", *SAYS))
MAY_FOLLOW = {
    "system": ("start",),
    "user": ("start", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("call", "tool"),
}


def read_turns(turns: Sequence[Any], names: Mapping[str, Role], repairs: Repairs) -> tuple[Message, ...]:
    """The turns as messages up to the last trained answer; raises ValueError when they teach nothing."""
    if not turns:
        raise ValueError(NO_MESSAGES)
    roles = [_role(turn, number, names, repairs) for number, turn in enumerate(turns, 1)]
    trained = [role == "assistant" and _is_trained(turns[i], i + 1) for i, role in enumerate(roles)]
    if "assistant" not in roles:
        raise ValueError(NO_ANSWER)
    if True not in trained:
        raise ValueError("no answer is trained, so there is nothing to learn (every weight is 0)")
    end = len(roles)
    while not trained[end - 1]:
        end -= 1
        repairs[TAIL_CUT] = None
    messages: list[Message] = []
    state, calls = "start", ""
    for i in range(end):
        message = _message(turns[i], roles[i], i + 1, trained[i] or roles[i] != "assistant", repairs)
        if message is None:
            continue
        if state not in MAY_FOLLOW[message.role]:
            raise ValueError(_disorder(message.role, state, i + 1))
        if message.tool_call_id and not answers_a_call(message.tool_call_id, calls):
            shown = ascii(message.tool_call_id[:40])
            raise ValueError(f"a tool_call_id is not that of a call before it (message {i + 1} has {shown})")
        state, calls = ("call", message.tool_calls) if message.tool_calls else (message.role, calls)
        messages.append(message)
    _tell_unused(turns[:end], repairs)
    return tuple(messages)


def _disorder(role: str, state: str, number: int) -> str:
    if role == "system":
        return "a system message stands after the first"
    if state in ("start", "system"):
        return f"the conversation does not begin with the user (message {number}, {role})"
    if role == "tool":
        return f"a tool message answers no call (message {number})"
    if state == "call":
        return f"a tool call is not answered (message {number}, {role})"
    return NOT_IN_TURN


def _tell_unused(turns: Sequence[Mapping[str, Any]], repairs: Repairs) -> None:
    """Keys with a value that says nothing here; without semicolons, which stand between repairs."""
    if all(map(USED.issuperset, turns)):
        return
    unused = [key for turn in turns for key, value in turn.items() if key not in USED and value is not None]
    if unused:
        repairs[f"{KEYS_LEFT_OUT} ({listed(dict.fromkeys(unused), 6).replace(';', ',')})"] = None


def _role(turn: Any, number: int, names: Mapping[str, Role], repairs: Repairs) -> Role:
    if not isinstance(turn, dict) or "role" not in turn or turn.keys().isdisjoint(SAYS):
        raise ValueError(f"a message has not the keys role and content (message {number})")
    written = turn["role"]
    if isinstance(written, str):
        if written in names:
            return names[written]
        plain = written.strip().lower()
        if plain in names:
            repairs[ROLE_MENDED] = None
            return names[plain]
    shown = json.dumps(written[:40] if isinstance(written, str) else written, default=str)[:40]
    hint = _nearest(shown.strip('"').lower(), tuple(names))
    raise ValueError(f"a role is not one of {', '.join(ROLES)} (message {number} has {shown}{hint})")


@lru_cache(maxsize=1024)
def _nearest(written: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(written, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _is_trained(turn: Mapping[str, Any], number: int) -> bool:
    weight = turn.get("weight")
    if weight is None:
        return True
    if weight not in (0, 1):
        raise ValueError(f"a weight is neither 0 nor 1 (message {number} has {scalar_text(weight) or 'no number'})")
    return bool(weight)


def _message(turn: Mapping[str, Any], role: Role, number: int, trained: bool, repairs: Repairs) -> Message | None:
    """The turn as a message, None for an empty system prompt; raises ValueError when it says nothing."""
    content, calls = turn.get("content"), turn.get("tool_calls") or turn.get("function_call")
    if type(content) is not str:
        content = "" if content is None and calls else content_text(content, role, number, repairs)
    content = clean(content, repairs)
    if calls:
        if role != "assistant":
            raise ValueError(f"a message calls tools and is not the assistant's (message {number}, {role})")
        return Message(role=role, content=content, tool_calls=calls_text(calls, number), trained=trained)
    if not content or content.isspace():
        if role != "system":
            raise ValueError(f"a message is empty (message {number}, {role})")
        repairs[EMPTY_SYSTEM] = None
        return None
    if role == "tool":
        return Message(role=role, content=content, tool_call_id=scalar_text(turn.get("tool_call_id")))
    return Message(role=role, content=content, trained=trained)
