"""Shapes of rows -> conversations: one table of formats, and the rules that every conversation keeps."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from runner.conversation import ROLES, Message, Role
from runner.data.readers import HALF, Record
from runner.errors import Exit, Problem, RunnerError, Where
from runner.plan import Template

LOOKED_AT = 200
STRAY = 0.05  # share of rows in another format that are errors of the file, not a second format
CONTROL = bytes(set(range(32)) - set(b"\t\n\r")) + b"\x7f"

NO_ANSWER = "the last message is not the assistant's, so there is no answer to learn"
NOT_IN_TURN = "user and assistant do not take turns, beginning with the user"
ROLE_MENDED = "a role's case or spaces were mended"
MADE_TEXT = "a number or truth value as content was made text"
CLEANED = "control characters were removed"
LINE_ENDS = "line ends were made plain"
EMPTY_SYSTEM = "an empty system message was removed"
TAIL_CUT = "turns after the last trained answer were cut"

Turns = tuple[list[Any], Any]  # turns in OpenAI's keys, and the tools as written


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """What a row says, the tools on offer as JSON text, and what was mended."""

    messages: tuple[Message, ...]
    tools: str | None
    repairs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The format of a source's rows, and the sentence that says why."""

    format: str
    evidence: str


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
                found = ", ".join(map(str, list(value)[:6])) or "none"
                raise ValueError(f"no '{names[0]}' (format {name}; the row has the keys: {found})")
        turns, tools = form.turns(value, template)
        repairs: dict[str, None] = {}
        messages = _messages(turns, form.roles, repairs)
        return Conversation(messages=messages, tools=_tools(tools), repairs=tuple(repairs))
    except UnicodeEncodeError:
        raise ValueError(HALF) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


# The formats


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
    role, content = turn["from"], turn["value"]
    if isinstance(role, str) and role.strip().lower() == "function_call":
        return {"role": "assistant", "content": "", "tool_calls": _parsed(content, "a tool call", number)}
    return {**turn, "role": role, "content": content}


def _alpaca(row: Mapping[str, Any], template: Template | None) -> Turns:
    question, more = row["instruction"], row.get("input")
    if isinstance(more, str) and more.strip():
        question = f"{_text(question)}\n\n{more}" if question not in (None, "") else more
    elif more is not None and not isinstance(more, str):
        question = f"{_text(question)}\n\n{_text(more)}"
    turns = [*_system(row.get("system"))]
    history = row.get("history") or []
    if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
        raise ValueError("'history' is not a list of pairs")
    for asked, answered in [*history, (question, row["output"])]:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return turns, row.get("tools")


def _prompt_completion(row: Mapping[str, Any], template: Template | None) -> Turns:
    prompt, completion = row["prompt"], row["completion"]
    if type(prompt) is str and type(completion) is str:
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}], row.get("tools")
    asked = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    answered = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
    return [*asked, *answered], row.get("tools")


def _columns(row: Mapping[str, Any], template: Template | None) -> Turns:
    if template is None:
        raise ValueError("there is no template (data.template)")
    turns = [*_system(_filled(template.system, row) if template.system else None)]
    turns += [
        {"role": "user", "content": _filled(template.prompt, row)},
        {"role": "assistant", "content": _filled(template.completion, row)},
    ]
    return turns, None


def _system(text: Any) -> Iterator[dict[str, Any]]:
    if text is not None and text != "":
        yield {"role": "system", "content": text}


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

# Columns

PLACE = re.compile(r"\{\{\s*(.+?)\s*\}\}")


def look_up(row: Any, path: str) -> Any:
    """The value at a dotted path into a row, a column of just that name first; raises KeyError when there is none."""
    if isinstance(row, dict) and path in row:
        return row[path]
    for part in path.split("."):
        if not isinstance(row, dict):
            raise KeyError(path)
        row = row[part]
    return row


def scalar_text(value: Any) -> str | None:
    """A single value as text, numbers and truth values as JSON writes them; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return None if value is None or isinstance(value, dict | list | tuple | bytes) else str(value)


def _filled(template: str, row: Mapping[str, Any]) -> str:
    return PLACE.sub(lambda place: _cell(row, place[1]), template)


def _cell(row: Mapping[str, Any], path: str) -> str:
    try:
        value = look_up(row, path)
    except KeyError:
        raise ValueError(f"a column of the template is missing ('{path}')") from None
    text = _json(value) if isinstance(value, dict | list) else scalar_text(value)
    if text is None:
        raise ValueError(f"a column of the template has no value ('{path}')")
    return text


def _json(value: Any) -> str:
    """JSON text of a value out of a row, which Parquet may have given dates and numbers that JSON has not."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text.encode()
    return text


def _parsed(value: Any, what: str, number: int | None = None) -> Any:
    """A value that may be written as JSON text inside the row."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(f"{what} is not JSON" + (f" (message {number})" if number else "")) from None


# The rules of a conversation


def _messages(turns: Sequence[Any], names: Mapping[str, Role], repairs: dict[str, None]) -> tuple[Message, ...]:
    """The turns as messages up to the last trained answer; raises ValueError when they teach nothing."""
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
    state = "start"
    for i in range(end):
        message = _message(turns[i], roles[i], i + 1, trained[i] or roles[i] != "assistant", repairs)
        if message is None:
            continue
        if state not in MAY_FOLLOW[message.role]:
            raise ValueError(_disorder(message.role, state, i + 1))
        state = "call" if message.tool_calls else message.role
        messages.append(message)
    return tuple(messages)


MAY_FOLLOW = {
    "system": ("start",),
    "user": ("start", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("call", "tool"),
}


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


def _role(turn: Any, number: int, names: Mapping[str, Role], repairs: dict[str, None]) -> Role:
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


SAYS = ("content", "tool_calls", "function_call")


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


def _message(
    turn: Mapping[str, Any], role: Role, number: int, trained: bool, repairs: dict[str, None]
) -> Message | None:
    """The turn as a message, None for an empty system prompt; raises ValueError when it says nothing."""
    content, calls = turn.get("content"), turn.get("tool_calls") or turn.get("function_call")
    if type(content) is not str:
        content = "" if content is None and calls else _content(content, role, number, repairs)
    content = _clean(content, repairs)
    if calls:
        if role != "assistant":
            raise ValueError(f"a message calls tools and is not the assistant's (message {number}, {role})")
        return Message(role=role, content=content, tool_calls=_calls(calls, number), trained=trained)
    if not content or content.isspace():
        if role != "system":
            raise ValueError(f"a message is empty (message {number}, {role})")
        repairs[EMPTY_SYSTEM] = None
        return None
    if role == "tool":
        return Message(role=role, content=content, tool_call_id=scalar_text(turn.get("tool_call_id")))
    return Message(role=role, content=content, trained=trained)


def _content(content: Any, role: str, number: int, repairs: dict[str, None]) -> str:
    """Content that is no text: parts are joined by line ends, as servers join them, numbers written out."""
    if isinstance(content, list) and content:
        return "\n".join(_part(part, role, number) for part in content)
    text = scalar_text(content)
    if text is None:
        raise ValueError(f"a message has no text as content (message {number}, {role})")
    repairs[MADE_TEXT] = None
    return text


def _part(part: Any, role: str, number: int) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "no type") if isinstance(part, dict) else "no object"
    if kind != "text":
        raise ValueError(f"a message has a part that is not text (message {number} has {str(kind)[:20]!a})")
    if not isinstance(part.get("text"), str):
        raise ValueError(f"a message has no text as content (message {number}, {role})")
    return str(part["text"])


def _text(value: Any) -> str:
    text = scalar_text(value)
    if text is None:
        raise ValueError("a message has no text as content (message 1, user)")
    return text


def _clean(text: str, repairs: dict[str, None]) -> str:
    """Text without control characters, its lines ended by LF; raises UnicodeEncodeError for half a character."""
    raw = text.encode()
    clean = raw.translate(None, CONTROL)
    if len(clean) != len(raw):
        repairs[CLEANED] = None
        text = clean.decode()
    if b"\r" in clean:
        repairs[LINE_ENDS] = None
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


# Tools


def _calls(calls: Any, number: int) -> str:
    """Tool calls as JSON text in OpenAI's shape."""
    calls = _parsed(calls, "a tool call", number)
    return _json([_call(call, number) for call in (calls if isinstance(calls, list) else [calls])])


def _call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function") or call if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"a tool call names no function (message {number})")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments.strip():
        _parsed(arguments, "the text of a tool call's arguments", number)
    else:
        arguments = _json(arguments or {})
    named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**named, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tools(tools: Any) -> str | None:
    """The tools on offer as JSON text in OpenAI's shape; None when there are none."""
    if not tools:
        return None
    tools = _parsed(tools, "the list of tools")
    tools = tools if isinstance(tools, list) else [tools]
    return _json([_tool(tool) for tool in tools]) if tools else None


def _tool(tool: Any) -> dict[str, Any]:
    function = tool.get("function") or tool if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("a tool has no name (tools)")
    return {"type": "function", "function": function}


# Which format?


def detect(records: Iterable[Record], wanted: str, template: Template | None, name: str) -> Detection:
    """The format of the rows: the one that is `wanted`, or the only one that the first rows have.

    Raises RunnerError (65) when they have none or more than one, or lack a column of the template in every row.
    """
    looked_at = list(islice((record for record in records if record.reason is None), LOOKED_AT))
    rows = [record.value for record in looked_at if isinstance(record.value, dict)]
    if wanted == "columns" or (wanted == "auto" and template is not None):
        return _columns_there(rows, template, name)
    if wanted != "auto":
        return Detection(format=wanted, evidence=f"{wanted}: named by data.format")
    fitting = Counter(frozenset(key for key, form in FORMATS.items() if form.fits(row)) for row in rows)
    known = Counter({names: count for names, count in fitting.items() if names})
    if not known:
        raise _problem("data/unknown-format", *_unknown(rows, len(looked_at)), name)
    (best, _), *others = known.most_common()
    if len(best) > 1 or sum(other for _, other in others) > STRAY * known.total():
        raise _problem("data/ambiguous-format", *_ambiguous(known, len(looked_at)), name)
    evidence = "; ".join(_counted(names, n, len(looked_at)) for names, n in known.most_common())
    return Detection(format=next(iter(best)), evidence=evidence)


def _counted(names: frozenset[str], count: int, looked_at: int) -> str:
    keys = " and ".join(FORMATS[name].known_by for name in sorted(names))
    return f"{' and '.join(sorted(names))}: {count} of {looked_at} rows looked at have {keys}"


def _ambiguous(known: Counter[frozenset[str]], looked_at: int) -> tuple[str, str]:
    counts = "; ".join(_counted(names, count, looked_at) for names, count in known.most_common())
    choices = " or ".join(sorted(frozenset().union(*known)))
    return f"The rows fit more than one format: {counts}.", f"Write data.format: {choices}; or one source for each."


def _unknown(rows: list[dict[str, Any]], looked_at: int) -> tuple[str, str]:
    """What was found instead of a known format, and a template made of the columns that there are."""
    columns = [str(column) for column in Counter(column for row in rows for column in row)]
    if not columns:
        what = "No row has a known format" if looked_at else "No row can be read"
        return f"{what}: none is an object with keys.", f"Write rows such as {FORMATS['chat'].shape}"
    what = f"The rows have no known format; their columns are: {', '.join(columns[:12])}."
    for known in (key for form in FORMATS.values() for names in form.keys for key in names):
        if near := difflib.get_close_matches(known, [column.strip().lower() for column in columns], n=1, cutoff=0.8):
            return what, f"Did you mean '{known}' where '{near[0]}' stands? Else write data.template."
    prompt, completion = _likely(columns, QUESTIONS, 0), _likely(columns, ANSWERS, -1)
    example = f'{{prompt: "{{{{{prompt}}}}}", completion: "{{{{{completion}}}}}"}}'
    return what, f"Write data.format ({', '.join(FORMATS)}), or for example data.template: {example}"


QUESTIONS = ("question", "query", "prompt", "instruction", "input", "text", "message", "user", "context", "sentence")
ANSWERS = ("answer", "answers", "response", "output", "completion", "target", "label", "reply", "summary", "assistant")


def _likely(columns: list[str], usual: tuple[str, ...], otherwise: int) -> str:
    return next((c for word in usual for c in columns if c.lower() == word), columns[otherwise])


def _columns_there(rows: list[dict[str, Any]], template: Template | None, name: str) -> Detection:
    """That every column of the template is in some row; raises RunnerError (65) with the nearest name otherwise."""
    if template is None:
        fix = 'For example data.template: {prompt: "{{question}}", completion: "{{answer}}"}'
        raise _problem("data/no-template", "The format 'columns' needs a template.", fix, name, "data.template")
    texts = (template.system or "", template.prompt, template.completion)
    wanted = list(dict.fromkeys(path for text in texts for path in PLACE.findall(text)))
    missing = [path for path in wanted if rows and not any(_has(row, path) for row in rows)]
    if missing:
        columns = list(dict.fromkeys(str(column) for row in rows for column in row))
        near = difflib.get_close_matches(missing[0], columns, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        what = f"No row has the template's column '{missing[0]}'."
        fix = f"{hint}The columns are: {', '.join(columns[:12])}."
        raise _problem("data/unknown-column", what, fix, name, "data.template")
    return Detection(format="columns", evidence=f"columns: data.template names {', '.join(wanted) or 'none'}")


def _has(row: Mapping[str, Any], path: str) -> bool:
    try:
        look_up(row, path)
    except KeyError:
        return False
    return True


def _problem(code: str, what: str, fix: str, name: str, key: str = "data.format") -> RunnerError:
    return RunnerError(Problem(code=code, what=what, where=Where(path=name, key=key), fix=fix), Exit.DATA_REJECTED)
