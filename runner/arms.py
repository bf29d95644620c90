"""Ways of answering without tuning: a prompt, a better prompt, examples, retrieved examples, another model."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import islice
from statistics import median
from typing import Any, Literal

from runner.backends.base import Sampling
from runner.conversation import Example, Message
from runner.data.prepare import Dataset
from runner.metrics import find_classes
from runner.metrics.words import split_words
from runner.plan import GatePlan, OtherModel, Plan
from runner.retrieval import Retriever
from runner.scoring import Prompt

Kind = Literal["prompting", "retrieval", "model"]
MAX_EXAMPLES = 50_000  # more would fill the memory and find hardly nearer ones
MAX_CLASSES = 30
MAX_SCHEMA_CHARACTERS = 4000
CHARACTERS_PER_TOKEN = 2  # of JSON, or fewer: a schema must surely fit
SPARE = 1.25  # an answer may be this much longer than the longest expected one


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way of answering: `prompt` makes what the model is asked from a row; `model` is another one than the base.

    `num_shots` examples stand in each prompt. `left_out` says why the arm cannot be measured at all.
    """

    name: str
    kind: Kind
    description: str
    prompt: Callable[[Example], Prompt]
    num_shots: int = 0
    model: OtherModel | None = None
    left_out: str | None = None


def sampling_of(plan: Plan, dataset: Dataset) -> Sampling:
    """How every side and arm answers: greedy, with room for the longest expected answer."""
    longest = plan.eval.max_new_tokens or round(dataset.tokens.longest_answer * SPARE)
    return Sampling(max_new_tokens=longest, batch_size=plan.eval.batch_size)


def make_arms(plan: Plan, dataset: Dataset, schema: Mapping[str, Any] | None) -> tuple[Arm, ...]:
    """The arms of the manifest, cheap ones first. Examples come from the training rows alone."""
    gate = plan.gate
    drawn = draw_rows(dataset.own, MAX_EXAMPLES, plan.seed)
    whole = {example.id: example for example in drawn if example.messages[-1].complete}  # each once, none cut short
    examples, free = list(whole.values()), _free_tokens(plan, dataset)
    room = gate.shots if free is None else max(0, free // max(dataset.tokens.p99, 1))
    shots = min(gate.shots, room, len(examples))
    shown = schema if free is None or len(json.dumps(schema)) <= free * CHARACTERS_PER_TOKEN else None
    makers: dict[str, Callable[[], Arm]] = {
        "zero_shot": lambda: ZERO_SHOT,
        "instruction": lambda: _instruction(gate, examples, shown),
        "few_shot": lambda: _few_shot(examples, shots, gate.shots, plan.seed),
        "nearest": lambda: _nearest(examples, shots, gate.shots),
    }
    named = [maker() for name, maker in makers.items() if name in gate.arms]
    return (*named, *(_other(model) for model in gate.models))


def draw_rows(rows: Sequence[Example], most: int, seed: int) -> list[Example]:
    """At most so many rows, chosen and ordered by their contents and the seed, so that their order changes nothing."""
    return heapq.nsmallest(most, rows, key=lambda row: _lot(row, seed))


def _zero_shot(row: Example) -> Prompt:
    return row.prompt


ZERO_SHOT = Arm(name="zero_shot", kind="prompting", description="your own prompt, as it is", prompt=_zero_shot)


def _other(model: OtherModel) -> Arm:
    how = ", decoding constrained to eval.json_schema" if model.constrained else ""
    return Arm(
        name=model.name,
        kind="model",
        description=f"{model.endpoint.model} with your own prompt{how}",
        prompt=_zero_shot,
        model=model,
    )


def _instruction(gate: GatePlan, examples: Sequence[Example], schema: Mapping[str, Any] | None) -> Arm:
    written = gate.instruction
    added = "" if written else describe_answers(examples, schema)

    def prompt(row: Example) -> Prompt:
        system, rest = _apart(row.prompt)
        if not system:  # a template may refuse the role of the system, where no row has one
            return _before_first_turn(written or added, rest)
        return (Message(role="system", content=written or f"{system}\n\n{added}"), *rest)

    about = (
        "the prompt in gate.instruction" if written else "your own prompt, and what the expected answers have in common"
    )
    return Arm(name="instruction", kind="prompting", description=about, prompt=prompt)


def _few_shot(examples: Sequence[Example], shots: int, wanted: int, seed: int) -> Arm:
    chosen = choose_examples(examples, shots, seed)
    turns = [turn for example in chosen for turn in _turns(example)]

    def prompt(row: Example) -> Prompt:
        return _with_examples(row, turns)

    about = f"the same {len(chosen)} training examples in every prompt"
    return Arm(
        name="few_shot",
        kind="prompting",
        description=about + _fewer(len(chosen), wanted),
        prompt=prompt,
        num_shots=len(chosen),
        left_out=None if chosen else _why_none(examples),
    )


def _nearest(examples: Sequence[Example], shots: int, wanted: int) -> Arm:
    index = cache(lambda: Retriever(examples))  # made when first asked: a preview asks nothing

    @cache  # what is asked is also measured, and kept as evidence
    def prompt(row: Example) -> Prompt:
        found = index().nearest(row.question, shots) if shots else []
        return _with_examples(row, [turn for example in reversed(found) for turn in _turns(example)])

    return Arm(
        name="nearest",
        kind="retrieval",
        description=f"the {shots} training examples nearest to each question (BM25){_fewer(shots, wanted)}",
        prompt=prompt,
        num_shots=shots,
        left_out=None if shots else _why_none(examples),
    )


def _fewer(num_shots: int, wanted: int) -> str:
    return f", no more of the {wanted} in gate.shots fit" if num_shots < wanted else ""


NO_ROOM = "no example fits into the model's context beside a question"
NO_EXAMPLE = "there is no whole training row to take examples from"


def _why_none(examples: Sequence[Example]) -> str:
    return NO_ROOM if examples else NO_EXAMPLE


def describe_answers(examples: Sequence[Example], schema: Mapping[str, Any] | None) -> str:
    """What the expected answers have in common, as an instruction."""
    answers = [example.expected for example in examples]
    classes = find_classes(answers)
    words = round(median([len(split_words(answer)) for answer in answers] or [0])) or 1
    lines = ["Give only the answer itself, with no introduction and no explanation."]
    written = json.dumps(schema, ensure_ascii=False) if schema else ""
    if classes and len(classes) <= MAX_CLASSES:
        spelled = sorted({answer.strip() for answer in answers})
        lines.append(f"The answer is one of: {'; '.join(spelled)}.")
    elif written and len(written) <= MAX_SCHEMA_CHARACTERS:
        lines.append(f"The answer is one JSON value that satisfies this JSON Schema: {written}")
    elif answers and all(answer.lstrip().startswith(("{", "[")) for answer in answers):
        lines.append("The answer is one JSON value.")
    lines.append(f"A usual answer has about {words} word{'s' if words != 1 else ''}.")
    return " ".join(lines)


def choose_examples(examples: Sequence[Example], num_shots: int, seed: int) -> list[Example]:
    """A few rows for every prompt: not the long ones, and different classes or answers first. Their order is random by
    content and seed, so that the order of rows changes nothing."""
    if not num_shots:
        return []
    most = median(_size(example) for example in examples)
    short = sorted((e for e in examples if _size(e) <= most), key=lambda e: _lot(e, seed))
    chosen: dict[str, Example] = {}
    for example in short:
        chosen.setdefault(example.label or example.expected, example)
        if len(chosen) == num_shots:
            break
    taken = {example.id for example in chosen.values()}
    rest = (example for example in short if example.id not in taken)
    return [*chosen.values(), *islice(rest, num_shots - len(chosen))]


def _size(example: Example) -> int:
    return sum(len(message.text) for message in example.messages if message.role != "system")


def _lot(example: Example, seed: int) -> str:
    return sha256(f"{seed} {example.id}".encode()).hexdigest()


def _free_tokens(plan: Plan, dataset: Dataset) -> int | None:
    """What the context holds beside nearly every question (99 % of rows) and its answer; None: it is not known."""
    context = plan.model_facts.context_tokens
    return None if context is None else context - dataset.tokens.p99 - sampling_of(plan, dataset).max_new_tokens


def _apart(prompt: Prompt) -> tuple[str, Prompt]:
    """The system prompt ('' where there is none) and the other turns."""
    has_system = bool(prompt) and prompt[0].role == "system"
    return (prompt[0].content, prompt[1:]) if has_system else ("", prompt)


def _before_first_turn(text: str, turns: Prompt) -> Prompt:
    """The turns, the person's first one opening with a text."""
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), 0)
    opened = replace(turns[first], content=f"{text}\n\n{turns[first].content}")
    return (*turns[:first], opened, *turns[first + 1 :])


def _with_examples(row: Example, turns: Sequence[Message]) -> Prompt:
    """The row's prompt with example turns between the system prompt and the conversation."""
    _, rest = _apart(row.prompt)
    return (*row.prompt[: len(row.prompt) - len(rest)], *turns, *rest)


def _turns(example: Example) -> list[Message]:
    return [message for message in example.messages if message.role != "system"]
