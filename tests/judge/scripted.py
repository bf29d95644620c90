"""Judges that answer by a script from what they are shown, behind a chat that keeps its replies as a real one does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runner.backends.base import Endpoint, Reply, Sampling, Watch
from runner.conversation import Completion, Example, Message
from runner.errors import RunnerError
from runner.judge import Judged, Pair, Spending, compare
from runner.plan import JudgePlan
from tests.fakes import FakeWatch, question

PRICED = Endpoint(
    base_url="http://judge.test/v1",
    model="wise-model-2026-01-31",
    usd_per_million_input=2.0,
    usd_per_million_output=8.0,
)
PLAN = JudgePlan(
    endpoint=PRICED,
    rubric="Says the right number.",
    scale=5,
    human=None,
    min_gold_wins=0.9,
    max_flips=0.2,
    max_unscored=0.05,
    max_usd=None,
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a judge reads in one prompt, taken apart at its fences."""

    system: str
    key: str
    skeleton: str
    task: str
    reference: str | None
    a: str
    b: str
    is_retry: bool


Script = Callable[[Shown], str | Completion | None]


def take_apart(prompt: Sequence[Message]) -> Shown:
    """The blocks of a prompt, in the way that its own key says."""
    system, user = prompt
    key = re.match(r"The key of this message is (\S+)\.", user.content)
    assert key is not None
    block = re.compile(rf"<data {key[1]}>\n(.*?)\n</data {key[1]}>", re.DOTALL)
    texts = block.findall(user.content)
    assert len(texts) in (3, 4)
    return Shown(
        system=system.content,
        key=key[1],
        skeleton=block.sub("#", user.content).replace(key[1], "KEY"),
        task=texts[0],
        reference=texts[1] if len(texts) == 4 else None,
        a=texts[-2],
        b=texts[-1],
        is_retry="could not be used" in block.sub("", user.content),
    )


@dataclass(kw_only=True)
class FakeChat:
    """A chat whose replies come from a script; each prompt is answered once and kept after that."""

    script: Script
    endpoint: Endpoint = PRICED
    models: Sequence[str | None] = ("wise-model-2026-01-31",)
    error: RunnerError | None = None
    fails_after: int | None = None
    kept: dict[tuple[Message, ...], Reply] = field(default_factory=dict)
    asked: list[tuple[Message, ...]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    schemas: list[Mapping[str, object] | None] = field(default_factory=list)

    def check(self) -> None:
        pass

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        *,
        label: str,
        schema: Mapping[str, object] | None = None,
    ) -> list[Reply]:
        self.batches.append(len(prompts))
        self.schemas.append(schema)
        return [self._reply(tuple(prompt)) for prompt in prompts]

    def _reply(self, prompt: tuple[Message, ...]) -> Reply:
        if prompt in self.kept:
            return replace(self.kept[prompt], cached=True)
        if self.error is not None and (self.fails_after is None or len(self.asked) >= self.fails_after):
            raise self.error
        model = self.models[len(self.asked) % len(self.models)]
        self.asked.append(prompt)
        said = self.script(take_apart(prompt))
        if isinstance(said, str):
            words = sum(len(turn.content.split()) for turn in prompt)
            said = Completion(
                text=said, prompt_tokens=words, output_tokens=len(said.split()), seconds=0.1, finish="stop"
            )
        reason = None if said else "the server said 400"
        self.kept[prompt] = Reply(completion=said, reason=reason, model=model)
        return self.kept[prompt]


def marks(a: object, b: object, reason: str = "because") -> str:
    """A reply of the asked form."""
    return json.dumps({"reason": reason, "a": a, "b": b})


def always_first(shown: Shown) -> str:
    return marks(5, 1)


def never_sure(shown: Shown) -> str:
    return marks(3, 3)


def longer_wins(shown: Shown) -> str:
    gap = len(shown.a) - len(shown.b)
    return marks(3 + (gap > 0) - (gap < 0), 3)


def rubbish(shown: Shown) -> str:
    return "I like both of them."


def slow_learner(shown: Shown) -> str:
    return good(shown) if shown.is_retry else rubbish(shown)


def good(shown: Shown) -> str:
    """Knows that the right answer to "what is N" holds the number N + 1."""
    number = re.search(r"what is (\d+)", shown.task)
    assert number is not None
    right = str(int(number[1]) + 1)
    return marks(*(5 if right in re.findall(r"\d+", text) else 1 for text in (shown.a, shown.b)))


def numbers(num_rows: int) -> list[Example]:
    """Questions of which no two have the same answer; answers differ in length."""
    return [question(f"what is {i}", "It is " * (1 + i * 7 % 4) + str(i + 1)) for i in range(num_rows)]


def pair(number: int, first: str, second: str, *, reference: str | None = None) -> Pair:
    prompt = (Message(role="user", content=f"what is {number}"),)
    return Pair(id=f"row {number}", prompt=prompt, reference=reference, first=first, second=second)


def right_and_wrong(num_rows: int) -> list[Pair]:
    """The first answer is right in two rows of three; all answers are of one length."""
    return [
        pair(20 + i, f"It is {i + (21 if i % 3 else 29)}", f"It is {i + (29 if i % 3 else 21)}")
        for i in range(num_rows)
    ]


def judged(
    script: Script | FakeChat,
    pairs: Sequence[Pair],
    plan: JudgePlan = PLAN,
    *,
    seed: int = 0,
    cap: Spending | None = None,
) -> Judged:
    """A comparison by a scripted judge."""
    chat = script if isinstance(script, FakeChat) else FakeChat(script=script, endpoint=plan.endpoint)
    return compare(plan, chat, pairs, seed=seed, watch=FakeWatch(), label="judging", spending=cap)
