"""Ways of answering without tuning: a prompt, a better prompt, examples, retrieved examples, another model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from statistics import median
from typing import Any, Literal

from runner.backends.base import Sampling
from runner.conversation import Example, Message
from runner.data import Dataset
from runner.metrics import find_classes
from runner.plan import GatePlan, OtherModel, Plan
from runner.retrieval import Retriever

Kind = Literal["prompting", "retrieval", "model"]
Prompt = tuple[Message, ...]
MAX_EXAMPLES = 50_000  # evenly drawn: more would fill the memory and find hardly nearer ones
MAX_CLASSES = 30
MAX_SCHEMA_CHARACTERS = 4000
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
    stride = -(-len(dataset.own) // MAX_EXAMPLES) or 1
    examples = sorted((dataset.own[i] for i in range(0, len(dataset.own), stride)), key=lambda example: example.id)
    shots = min(gate.shots, _room(plan, dataset), len(examples))
    makers: dict[str, Callable[[], Arm]] = {
        "zero_shot": lambda: ZERO_SHOT,
        "instruction": lambda: _instruction(gate, examples, schema),
        "few_shot": lambda: _few_shot(examples, shots, plan.seed),
        "nearest": lambda: _nearest(examples, shots),
    }
    named = [maker() for name, maker in makers.items() if name in gate.arms]
    return (*named, *(_other(model) for model in gate.models))


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
        text = written or "\n\n".join(filter(None, (system, added)))
        return (Message(role="system", content=text), *rest)

    about = (
        "the prompt in gate.instruction" if written else "your own prompt, and what the expected answers have in common"
    )
    return Arm(name="instruction", kind="prompting", description=about, prompt=prompt)


def _few_shot(examples: Sequence[Example], shots: int, seed: int) -> Arm:
    chosen = choose_examples(examples, shots, seed)
    turns = [turn for example in chosen for turn in _turns(example)]

    def prompt(row: Example) -> Prompt:
        return _with_examples(row, turns)

    about = f"the same {len(chosen)} training examples in every prompt"
    return Arm(
        name="few_shot",
        kind="prompting",
        description=about,
        prompt=prompt,
        num_shots=len(chosen),
        left_out=None if chosen else NO_ROOM,
    )


def _nearest(examples: Sequence[Example], shots: int) -> Arm:
    retriever = Retriever(examples) if shots else None

    def prompt(row: Example) -> Prompt:
        found = retriever.nearest(row.question, shots) if retriever else []
        return _with_examples(row, [turn for example in reversed(found) for turn in _turns(example)])

    return Arm(
        name="nearest",
        kind="retrieval",
        description=f"the {shots} training examples nearest to each question (BM25)",
        prompt=prompt,
        num_shots=shots,
        left_out=None if shots else NO_ROOM,
    )


NO_ROOM = "no example fits into the model's context beside a question"


def describe_answers(examples: Sequence[Example], schema: Mapping[str, Any] | None) -> str:
    """What the expected answers have in common, as an instruction."""
    answers = [example.expected for example in examples]
    classes = find_classes(answers)
    words = round(median(len(answer.split()) for answer in answers))
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
    rest = [example for example in short if example not in chosen.values()]
    return [*chosen.values(), *rest][:num_shots]


def _size(example: Example) -> int:
    return sum(len(message.text) for message in example.messages if message.role != "system")


def _lot(example: Example, seed: int) -> str:
    return sha256(f"{seed} {example.id}".encode()).hexdigest()


def _room(plan: Plan, dataset: Dataset) -> int:
    """How many examples fit into the context beside nearly every question (99 % of rows) and its answer."""
    context, tokens = plan.model_facts.context_tokens, dataset.tokens
    if context is None:
        return plan.gate.shots
    free = context - tokens.p99 - sampling_of(plan, dataset).max_new_tokens
    return max(0, free // max(tokens.p99, 1))


def _apart(prompt: Prompt) -> tuple[str, Prompt]:
    """The system prompt ('' where there is none) and the other turns."""
    has_system = bool(prompt) and prompt[0].role == "system"
    return (prompt[0].content, prompt[1:]) if has_system else ("", prompt)


def _with_examples(row: Example, turns: Sequence[Message]) -> Prompt:
    """The row's prompt with example turns between the system prompt and the conversation."""
    _, rest = _apart(row.prompt)
    return (*row.prompt[: len(row.prompt) - len(rest)], *turns, *rest)


def _turns(example: Example) -> list[Message]:
    return [message for message in example.messages if message.role != "system"]
