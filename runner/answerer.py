"""Whom to ask: the session's model as base or tuned, or another model behind an endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runner.arms import Arm
from runner.backends.base import Chat, Embedder, Endpoint, Reply, Sampling, Session, Watch
from runner.conversation import Example, Message
from runner.errors import Exit, RunnerError
from runner.judge import Spending
from runner.scoring import Outside, Prompt, Scored, Scoring, score

NO_TOOLS = Reply(completion=None, reason="an endpoint is not offered the row's tools")
OUTAGES = (Exit.INPUT_MISSING, Exit.UNAVAILABLE, Exit.CREDENTIALS, Exit.MANIFEST)


@dataclass(kw_only=True)
class Answerer:
    """The models at hand, and how they are asked; clients are opened when first needed.

    `outages` are failures of endpoints whose part of the work was left out; the run ends with them after all that
    could be done without the endpoint. `spending` is what the judge has cost so far.
    """

    session: Session
    open_chat: Callable[[Endpoint], Chat]
    open_embedder: Callable[[str], Embedder]
    sampling: Sampling
    schema: Mapping[str, Any] | None
    embedding: str | None
    watch: Watch
    outages: list[RunnerError] = field(default_factory=list)
    spending: Spending | None = None
    _chats: dict[Endpoint, Chat] = field(default_factory=dict)
    _embedders: dict[str, Embedder] = field(default_factory=dict)

    def chat(self, endpoint: Endpoint) -> Chat:
        """The client of an endpoint."""
        if endpoint not in self._chats:
            self._chats[endpoint] = self.open_chat(endpoint)
        return self._chats[endpoint]

    def measure(self, arm: Arm | None, rows: Sequence[Example], scoring: Scoring) -> Scored:
        """An un-tuned arm, or the tuned model (None), on these rows, by every metric but the judge; raises RunnerError
        (69, 77) when another model's endpoint fails."""
        replies = self.answer(arm, rows)
        losses = self.losses(arm, rows) if scoring.needs("loss") else None
        similarities = None
        if scoring.needs("similarity"):
            with self.outage("The embedding model"):
                similarities = self.similarities(replies, rows)
        outside = Outside(losses=losses, similarities=similarities)
        return score(scoring, rows, replies, outside, self.prompts(arm, rows))

    def prompts(self, arm: Arm | None, rows: Sequence[Example]) -> list[Prompt]:
        """What an arm asks for each row; the tuned model (None) is asked what the row says."""
        return [arm.prompt(row) if arm else row.prompt for row in rows]

    def answer(self, arm: Arm | None, rows: Sequence[Example]) -> list[Reply]:
        """One reply to each row by an un-tuned arm, or by the tuned model (None); raises RunnerError (69, 77) when
        another model's endpoint fails."""
        prompts = self.prompts(arm, rows)
        if arm is None or arm.model is None:
            side, label = ("base", arm.name) if arm else ("tuned", "tuned")
            tools = [row.tools for row in rows]
            found = self.session.complete(side, prompts, self.sampling, self.watch, tools, label=label)  # type: ignore[arg-type]
            return [Reply(completion=completion) for completion in found]
        schema = self.schema if arm.model.constrained else None
        asked = [prompt for prompt, row in zip(prompts, rows, strict=True) if not row.tools]
        chat = self.chat(arm.model.endpoint)
        given = iter(chat.complete(asked, self.sampling, self.watch, label=arm.name, schema=schema) if asked else ())
        return [NO_TOOLS if row.tools else next(given) for row in rows]

    def losses(self, arm: Arm | None, rows: Sequence[Example]) -> list[float | None]:
        """Mean nats per token of each expected answer, after the arm's prompt or by the tuned model (None); None for a
        model that does not tell."""
        if arm and arm.model:
            return [None] * len(rows)
        prompts = self.prompts(arm, rows)
        asked = [
            replace(row, messages=(*_as_context(prompt), row.messages[-1]))
            for row, prompt in zip(rows, prompts, strict=True)
        ]
        return list(self.session.held_out_loss("base" if arm else "tuned", asked, self.watch).rows)

    def similarities(self, replies: Sequence[Reply], rows: Sequence[Example]) -> list[float | None]:
        """Likeness of each answer to the expected one, by the embedding model; None where there is no answer."""
        if self.embedding is None:
            return [None] * len(rows)
        given = [(i, reply.completion.text) for i, reply in enumerate(replies) if reply.completion]
        expected = [rows[i].expected for i, _ in given]
        if self.embedding not in self._embedders:
            self._embedders[self.embedding] = self.open_embedder(self.embedding)
        embedder = self._embedders[self.embedding]
        found = dict(
            zip(
                (i for i, _ in given),
                embedder.similarities([text for _, text in given], expected, self.watch),
                strict=True,
            )
        )
        return [found.get(i) for i in range(len(rows))]

    @contextlib.contextmanager
    def outage(self, what: str) -> Iterator[None]:
        """Lets the work inside fail for an endpoint's sake: that is told and remembered, and the rest goes on."""
        try:
            yield
        except RunnerError as error:
            if error.exit_code not in OUTAGES:
                raise
            self.watch.say(f"{what} is left out: {error}")
            self.outages.append(error)

    def raise_outages(self) -> None:
        """Ends the run with what endpoints failed with, if any did."""
        if self.outages:
            problems = [problem for error in self.outages for problem in error.problems]
            raise RunnerError(list(dict.fromkeys(problems)), max(error.exit_code for error in self.outages))


def _as_context(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same turns, none of them scored."""
    return tuple(replace(message, trained=False) if message.role == "assistant" else message for message in prompt)
