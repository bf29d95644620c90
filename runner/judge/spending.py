"""What the judge costs, and the cap that it may not pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from runner.backends.base import Endpoint, Reply
from runner.conversation import Completion, Message
from runner.errors import Exit, Problem, RunnerError, Where

# Before a judge has answered, and for servers that count no tokens: bytes of text per token (prose in most languages
# has more) and tokens of a reply. Measured ones take their place.
BYTES_PER_TOKEN = 3.0
REPLY_TOKENS = 200.0


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Requests and their tokens; those of `num_uncounted` replies are estimated. `new_` leaves out what was kept from
    an earlier start."""

    num_calls: int = 0
    num_cached: int = 0
    num_answered: int = 0
    num_uncounted: int = 0
    num_bytes: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    new_prompt_tokens: int = 0
    new_output_tokens: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __sub__(self, other: Totals) -> Totals:
        return Totals(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)})


class Spending:
    """Requests, tokens and dollars of one judge, over its check and all its comparisons.

    Replies that were kept from an earlier start count as if they came now, so that an interrupted run stops at the cap
    where an uninterrupted one would. Raises RunnerError (78) for a cap without prices.
    """

    def __init__(self, endpoint: Endpoint, max_usd: float | None):
        self._input, self._output = endpoint.usd_per_million_input, endpoint.usd_per_million_output
        self.max_usd = max_usd
        self.totals = Totals()
        if max_usd is not None and (self._input is None or self._output is None):
            raise RunnerError(_no_prices(), Exit.MANIFEST)

    @property
    def cap_reason(self) -> str:
        """Why a row was not asked."""
        return f"the judge's cap of ${self.max_usd:g} was reached"

    def usd(self, totals: Totals) -> float | None:
        """What all replies cost, whenever they came; None where prices or counts are unknown."""
        return None if totals.num_uncounted else self._price(totals.prompt_tokens, totals.output_tokens)

    def new_usd(self, totals: Totals) -> float | None:
        """What the replies cost that were not kept from an earlier start; None as above."""
        return None if totals.num_uncounted else self._price(totals.new_prompt_tokens, totals.new_output_tokens)

    def fits(self, prompts: Sequence[Sequence[Message]]) -> bool:
        """Whether asking these is expected to stay within the cap."""
        if self.max_usd is None:
            return True
        so_far = self.totals
        per_token = so_far.num_bytes / so_far.prompt_tokens if so_far.prompt_tokens else BYTES_PER_TOKEN
        reply = so_far.output_tokens / so_far.num_answered if so_far.num_answered else REPLY_TOKENS
        more = sum(map(_bytes, prompts)) / per_token, len(prompts) * reply
        expected = self._price(so_far.prompt_tokens + more[0], so_far.output_tokens + more[1])
        return expected is not None and expected <= self.max_usd

    def add(self, prompts: Sequence[Sequence[Message]], replies: Sequence[Reply]) -> None:
        """Counts what came."""
        for prompt, reply in zip(prompts, replies, strict=True):
            self.totals += _count(prompt, reply)

    def _price(self, prompt_tokens: float, output_tokens: float) -> float | None:
        if self._input is None or self._output is None:
            return None
        return (prompt_tokens * self._input + output_tokens * self._output) / 1e6


def _count(prompt: Sequence[Message], reply: Reply) -> Totals:
    answer = reply.completion
    if answer is None:
        return Totals(num_calls=1, num_cached=int(reply.cached))
    num_read, num_written = _tokens(prompt, answer)
    return Totals(
        num_calls=1,
        num_cached=int(reply.cached),
        num_answered=1,
        num_uncounted=int(not answer.prompt_tokens or answer.output_tokens is None),
        num_bytes=_bytes(prompt),
        prompt_tokens=num_read,
        output_tokens=num_written,
        new_prompt_tokens=0 if reply.cached else num_read,
        new_output_tokens=0 if reply.cached else num_written,
    )


def _tokens(prompt: Sequence[Message], answer: Completion) -> tuple[int, int]:
    """Tokens read and written, estimated where the server does not count them (no prompt is of 0 tokens)."""
    read: int | None = answer.prompt_tokens
    written: int | None = answer.output_tokens
    estimated = len(answer.text.encode("utf-8", "replace")) / BYTES_PER_TOKEN
    return read or round(_bytes(prompt) / BYTES_PER_TOKEN), round(estimated) if written is None else written


def _bytes(prompt: Sequence[Message]) -> int:
    return sum(len(turn.content.encode("utf-8", "replace")) for turn in prompt)


def _no_prices() -> Problem:
    return Problem(
        code="judge/no-prices",
        what="The judge has a cap in dollars, but the prices of its endpoint are not given.",
        where=Where(key="eval.judge.max_usd"),
        fix="Write eval.judge.endpoint.usd_per_million_input and usd_per_million_output, or leave out max_usd.",
    )
