"""The words of the field that every layer shares: messages, examples, completions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation.

    `tool_calls` is JSON text in OpenAI's shape. `trained` False: an assistant's turn that is only context (OpenAI's
    `weight: 0`). `complete` False: the turn was cut, so that its end must not be taught.
    """

    role: Role
    content: str
    tool_calls: str | None = None
    tool_call_id: str | None = None
    trained: bool = True
    complete: bool = True

    @property
    def text(self) -> str:
        """What the turn says: its words, or the tools it calls."""
        return self.content or self.tool_calls or ""

    @property
    def extras(self) -> dict[str, Any]:
        """What is said beyond role and content; most turns have nothing."""
        if self.tool_calls is None and self.tool_call_id is None and self.trained and self.complete:
            return {}
        usual = {"tool_calls": None, "tool_call_id": None, "trained": True, "complete": True}
        return {name: value for name in usual if (value := getattr(self, name)) != usual[name]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A conversation whose last turn is the expected answer; `source` is ``file:row``, rows from 1.

    `tools` is the JSON text of the tools on offer. Rows of one `group` stand in the same part of the split; `label`
    is the class of a row where the data has classes.
    """

    messages: tuple[Message, ...]
    source: str
    tools: str | None = None
    group: str | None = None
    label: str | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Every turn before the expected answer."""
        return self.messages[:-1]

    @property
    def expected(self) -> str:
        """The answer the person wants."""
        return self.messages[-1].text

    @property
    def id(self) -> str:
        """Stable name from the contents alone: the same conversation has the same id wherever it stands."""
        return _digest([*map(_contents, self.messages), *([self.tools] if self.tools else [])])

    @property
    def question(self) -> str:
        """What is asked, every turn but the system's and the expected answer, blind to case and white space."""
        return "\n".join(" ".join(m.text.lower().split()) for m in self.prompt if m.role != "system")


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model answered: text, tokens read and written (None: the server does not say), seconds (its share of the
    batch), and how it ended."""

    text: str
    prompt_tokens: int | None
    output_tokens: int | None
    seconds: float
    finish: Literal["stop", "length"]


def _contents(message: Message) -> tuple[Any, ...]:
    """What makes a turn what it is."""
    return (message.role, message.content, *([message.extras] if message.extras else []))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:16]
