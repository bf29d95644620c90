"""Tools on offer and calls of them -> JSON text in OpenAI's shape, however a row writes them."""

from __future__ import annotations

import json
from typing import Any

from runner.data.reading.contents import json_text, parsed


def calls_text(calls: Any, number: int) -> str:
    """The calls of message `number`; raises ValueError with the reason when one cannot be used."""
    calls = parsed(calls, "a tool call", number)
    return json_text([_call(call, number) for call in (calls if isinstance(calls, list) else [calls])])


def _call(call: Any, number: int) -> dict[str, Any]:
    function = _function(call, f"a tool call names no function (message {number})")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments.strip():
        parsed(arguments, "the text of a tool call's arguments", number)
    else:
        arguments = json_text(arguments or {})
    named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**named, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def tools_text(tools: Any) -> str | None:
    """The tools on offer, None when there are none; raises ValueError when one cannot be used."""
    tools = parsed(tools, "the list of tools") if tools else None
    if not tools:
        return None
    functions = [
        _function(tool, "a tool has no name (tools)") for tool in (tools if isinstance(tools, list) else [tools])
    ]
    return json_text([{"type": "function", "function": function} for function in functions])


def _function(value: Any, otherwise: str) -> dict[str, Any]:
    """What names a function, in the wrapping of its kind or without."""
    function = value.get("function") or value if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(otherwise)
    return function


def answers_a_call(tool_call_id: str, calls: str) -> bool:
    """Whether a tool's answer may be to one of these calls; where a call has no id it may."""
    ids = [call.get("id") for call in json.loads(calls)]
    return not all(ids) or tool_call_id in ids
