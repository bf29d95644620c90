"""Rows that are conversations, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from runner.data.reading.formats import Conversation, convert
from runner.plan import Template

USER, ANSWER = ("user", "Hi?"), ("assistant", "Ho.")
SYSTEM = ("system", "Be brief.")
TEMPLATE = Template(prompt="Where is {{city}}?", completion="{{ answer.text }}", system="Map of {{n}}.")


def chat(*turns: Any, **more: Any) -> dict[str, Any]:
    messages = [{"role": t[0], "content": t[1]} if isinstance(t, tuple) else t for t in turns]
    return {"messages": messages, **more}


def turns_of(talk: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in talk.messages]


def refusal(value: Any, name: str = "chat", template: Template | None = None) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        convert(value, name, template)
    return str(caught.value)


SHAREGPT = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]
