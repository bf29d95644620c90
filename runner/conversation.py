"""The words of the field that every layer shares: messages, examples, completions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A conversation whose last turn is the expected answer; `source` is ``file:row``, rows from 1."""

    messages: tuple[Message, ...]
    source: str

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Every turn before the expected answer."""
        return self.messages[:-1]

    @property
    def expected(self) -> str:
        """The answer the person wants."""
        return self.messages[-1].content

    @property
    def id(self) -> str:
        """Stable name from the contents alone: the same conversation has the same id wherever it stands."""
        return _digest([(m.role, m.content) for m in self.messages])

    @property
    def question_id(self) -> str:
        """Stable name of the question alone, blind to case and white space, so that repeats stay together."""
        return _digest([(m.role, " ".join(m.content.lower().split())) for m in self.prompt if m.role != "system"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model answered: text, tokens read and written, seconds (its share of the batch), and how it ended."""

    text: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    finish: Literal["stop", "length"]


def _digest(turns: list[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()[:16]
