"""The two shapes on the wire: what is asked, and what an answer must look like to be believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from runner.backends.base import Reply
from runner.conversation import Completion, Message

# OpenAI says stop and length; the others are what compatible servers say instead.
FINISHES: dict[str, Literal["stop", "length"]] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "function_call"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
}


class NotAnAnswer(Exception):
    """The body of a success is no chat completion; the text says what it is instead."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a server takes. Compatible servers know max_tokens, and some silently ignore max_completion_tokens; OpenAI's
    newer models refuse max_tokens, and any temperature but their own."""

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True

    def without(self, parameter: str | None) -> Dialect | None:
        """The same without a refused parameter; None where there is no other way to ask."""
        if parameter == "max_tokens" and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if parameter == "temperature" and self.temperature:
            return replace(self, temperature=False)
        return None

    def request(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        max_new_tokens: int,
        schema: Mapping[str, object] | None,
    ) -> dict[str, Any]:
        """The body of a request, greedy where the server lets us choose."""
        body: dict[str, Any] = {"model": model, "messages": list(messages), self.limit: max_new_tokens}
        if self.temperature:
            body["temperature"] = 0
        if schema is not None:
            wanted = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return body


def wire_message(message: Message) -> dict[str, Any]:
    """A turn in OpenAI's shape."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls is not None:
        turn["tool_calls"] = json.loads(message.tool_calls)
        turn["content"] = message.content or None
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def read_reply(body: bytes, seconds: float) -> Reply:
    """The reply in the body of a success: an answer, or why the server gave none. Raises NotAnAnswer."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAnAnswer("its body is not JSON, or only a part of it") from error
    if not isinstance(value, dict):
        raise NotAnAnswer("its body is not a JSON object")
    if value.get("error"):
        raise NotAnAnswer(f"it holds an error: {_short(value['error'])}")
    try:
        choice = value["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = message.get("content")
    except (LookupError, TypeError, AttributeError) as error:
        raise NotAnAnswer("it holds no choice with a message") from error
    model = value["model"] if isinstance(value.get("model"), str) else None
    if reason := _refusal(text, finish, message):
        return Reply(completion=None, reason=reason, model=model)
    if not isinstance(text, str):
        raise NotAnAnswer("its message has no text")
    completion = Completion(
        text=text,
        prompt_tokens=_count(value, "prompt_tokens"),
        output_tokens=_count(value, "completion_tokens"),
        seconds=seconds,
        finish=FINISHES[finish],
    )
    return Reply(completion=completion, model=model)


def _refusal(text: Any, finish: Any, message: Mapping[str, Any]) -> str | None:
    """Why a sound reply is still no answer; asking again would be paid again and end the same."""
    if refusal := message.get("refusal"):
        return f"the model refused to answer: {_short(refusal)}"
    if finish == "content_filter":
        return "the server's content filter stopped the answer"
    if text is None and FINISHES.get(finish) == "length":
        return "the answer's tokens were spent before it began (reasoning counts too): allow more"
    if not isinstance(finish, str) or finish not in FINISHES:
        return f"the server does not say how the answer ended (finish_reason {_short(finish)})"
    return None


def _count(value: Mapping[str, Any], name: str) -> int | None:
    """A count of the usage; None where it is missing or not a count."""
    usage = value.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count >= 0 else None


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("message") or value
    return " ".join(str(value).split())[:200]
