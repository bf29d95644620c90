"""Pairs -> judgements: both orders of each, one retry, within the cap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from runner.backends.base import Chat, Reply, Sampling, Watch
from runner.judge.prompt import clean, digest, prompt_sha256, reply_schema, write_retry
from runner.judge.reply import Marks, read_reply
from runner.judge.sheet import CUT_ALIKE, Prompt, Sheet, make_sheet
from runner.judge.spending import Spending
from runner.judge.verdict import (
    Attempt,
    Judgement,
    Order,
    Outcome,
    Pair,
    Place,
    equal_answers,
    judgement,
    mirror,
    not_asked,
)
from runner.plan import JudgePlan

MAX_NEW_TOKENS = 2048  # thoughts of a model that reasons count too
BATCH_ROWS = 16  # rows asked at a time under a cap; without one, all at once
NO_REPLY = "no reply came"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Judgements in the order of their pairs, and what they took.

    `flip_rate` is the share of rows with marks whose preference turned with the order, `waver_rate` of those where
    only one order had a preference (None: no row has marks); `unscored_share` is of all rows (None: no rows). `usd`
    is the price of every reply, `new_usd` of those that were not kept from earlier (None: prices or counts unknown).
    `num_uncounted` replies came without their tokens, which are estimated in the sums.
    """

    judgements: tuple[Judgement, ...]
    outcomes: Mapping[Outcome, int]
    flip_rate: float | None
    waver_rate: float | None
    unscored_share: float | None
    unscored_reasons: Mapping[str, int]
    num_calls: int
    num_cached: int
    num_uncounted: int
    prompt_tokens: int
    output_tokens: int
    usd: float | None
    new_usd: float | None
    snapshots: tuple[str, ...]
    prompt_sha256: str


def compare(
    plan: JudgePlan,
    chat: Chat,
    pairs: Sequence[Pair],
    *,
    seed: int,
    watch: Watch,
    label: str,
    spending: Spending | None = None,
) -> Judged:
    """Judges `first` against `second` of each pair, blind and in both orders; equal answers tie unasked.

    Rows that cannot be asked within the cap, or give no usable marks in two tries, are unscored. Pass the `spending`
    of the judge's check, so that one cap holds for both. Raises RunnerError (78 for a cap without prices, and what the
    chat raises).
    """
    asker = Asker(plan, chat, seed, watch, label, spending or Spending(plan.endpoint, plan.max_usd))
    return asker.judged(asker.judge(pairs))


class Asker:
    """One round of questions to one judge."""

    def __init__(self, plan: JudgePlan, chat: Chat, seed: int, watch: Watch, label: str, spending: Spending):
        self.plan, self.chat, self.seed = plan, chat, seed
        self.watch, self.label, self.spending = watch, label, spending
        self.before = spending.totals

    def judge(self, pairs: Sequence[Pair], *, also_equal: bool = False) -> list[Judgement]:
        """A judgement for each pair; `also_equal` asks about equal answers too."""
        sheets = [make_sheet(self.plan, pair, self.seed) for pair in pairs]
        asked = {s.key: s for s, _ in sheets if not s.unseen and (also_equal or not s.equal)}
        # By key, so that the order of rows does not decide which of them the cap leaves out.
        found = self._ask(sorted(asked.values(), key=lambda sheet: sheet.key))
        judgements = []
        for pair, (sheet, swapped) in zip(pairs, sheets, strict=True):
            if sheet.key in found:
                own = replace(found[sheet.key], id=pair.id)
            else:
                own = not_asked(pair.id, CUT_ALIKE) if sheet.unseen else equal_answers(pair.id)
            judgements.append(mirror(own) if swapped else own)
        return judgements

    def judged(self, judgements: Sequence[Judgement]) -> Judged:
        """The judgements with their totals, and what was spent since this round began."""
        totals = self.spending.totals - self.before
        outcomes = Counter(j.outcome for j in judgements)
        num_scored = sum(j.was_scored for j in judgements)
        return Judged(
            judgements=tuple(judgements),
            outcomes={name: outcomes[name] for name in ("win", "loss", "tie", "inconsistent", "unscored")},
            flip_rate=outcomes["inconsistent"] / num_scored if num_scored else None,
            waver_rate=sum(j.wavers for j in judgements) / num_scored if num_scored else None,
            unscored_share=outcomes["unscored"] / len(judgements) if judgements else None,
            unscored_reasons=unscored_reasons(judgements),
            num_calls=totals.num_calls,
            num_cached=totals.num_cached,
            num_uncounted=totals.num_uncounted,
            prompt_tokens=totals.prompt_tokens,
            output_tokens=totals.output_tokens,
            usd=self.spending.usd(totals),
            new_usd=self.spending.new_usd(totals),
            snapshots=snapshots(judgements),
            prompt_sha256=prompt_sha256(self.plan),
        )

    def _ask(self, sheets: Sequence[Sheet]) -> dict[str, Judgement]:
        found: dict[str, Judgement] = {}
        rest = list(sheets)
        while rest:
            self.watch.check()
            batch = self._affordable(rest)
            if not batch:
                break
            found |= self._ask_batch(batch)
            rest = rest[len(batch) :]
        return found | {sheet.key: not_asked("", self.spending.cap_reason) for sheet in rest}

    def _affordable(self, sheets: Sequence[Sheet]) -> Sequence[Sheet]:
        """As many of the first rows as one batch holds and the cap allows."""
        if self.spending.max_usd is None:
            return sheets
        most = BATCH_ROWS if self.spending.totals.num_answered else 1  # the first reply tells what replies cost
        prompts: list[Prompt] = []
        for num, sheet in enumerate(sheets[:most]):
            prompts += [prompt for _, prompt in sheet.prompts]
            if not self.spending.fits(prompts):
                return sheets[:num]
        return sheets[:most]

    def _ask_batch(self, sheets: Sequence[Sheet]) -> dict[str, Judgement]:
        places = [(sheet.key, a, prompt) for sheet in sheets for a, prompt in sheet.prompts]
        answers = self._complete([prompt for *_, prompt in places])
        tries = {prompt: [_attempt(prompt, answers[prompt], self.plan.scale)] for *_, prompt in places}
        again = {prompt: write_retry(prompt, str(marks)) for prompt, [(_, marks)] in tries.items() if _may_retry(marks)}
        left_out = None if not again or self.spending.fits([*again.values()]) else self.spending.cap_reason
        if left_out is None:
            answers = self._complete([*again.values()])
            for prompt, retry in again.items():
                tries[prompt].append(_attempt(retry, answers[retry], self.plan.scale))
        orders: dict[str, list[Order]] = {}
        for key, a, prompt in places:
            orders.setdefault(key, []).append(_order(a, tries[prompt], left_out if prompt in again else None))
        return {key: judgement("", tuple(both), self.plan.scale) for key, both in orders.items()}

    def _complete(self, prompts: Sequence[Prompt]) -> dict[Prompt, Reply]:
        """The reply to each prompt; one that stands there twice is asked once."""
        unique = list(dict.fromkeys(prompts))
        if not unique:
            return {}
        sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, batch_size=self.plan.endpoint.max_parallel)
        schema = reply_schema(self.plan.scale)
        replies = self.chat.complete(unique, sampling, self.watch, label=self.label, schema=schema)
        self.spending.add(unique, replies)
        return dict(zip(unique, replies, strict=True))


def unscored_reasons(judgements: Sequence[Judgement]) -> dict[str, int]:
    """How many rows have no outcome, by reason, the commonest first."""
    counts = Counter(j.unscored or NO_REPLY for j in judgements if j.outcome == "unscored")
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def snapshots(judgements: Sequence[Judgement]) -> tuple[str, ...]:
    """The names by which the server called the model that answered."""
    return tuple(sorted({t.model for j in judgements for t in _attempts(j) if t.model is not None}))


def _attempts(found: Judgement) -> Iterator[Attempt]:
    return (attempt for order in found.orders for attempt in order.attempts)


def _attempt(prompt: Prompt, reply: Reply, scale: int) -> tuple[Attempt, Marks | str | None]:
    """A request as it was answered, and its marks, or what is wrong with them (None: there is no answer)."""
    answer = reply.completion
    marks = None if answer is None else read_reply(answer, scale)
    fault = marks if isinstance(marks, str) else (reply.reason or NO_REPLY) if answer is None else None
    attempt = Attempt(
        prompt_sha256=digest([[turn.role, turn.content] for turn in prompt]),
        raw=None if answer is None else clean(answer.text),
        model=reply.model,
        prompt_tokens=None if answer is None else answer.prompt_tokens,
        output_tokens=None if answer is None else answer.output_tokens,
        fault=fault,
    )
    return attempt, marks


def _may_retry(marks: Marks | str | None) -> bool:
    """Only an answer that cannot be used is asked for again; where none came, the chat has tried again itself."""
    return isinstance(marks, str)


def _order(a: Place, tries: Sequence[tuple[Attempt, Marks | str | None]], left_out: str | None) -> Order:
    attempt, marks = tries[-1]
    given = marks if isinstance(marks, Marks) else None
    by_label = (None, None) if given is None else (given.a, given.b)
    fault = attempt.fault if left_out is None else f"{attempt.fault}; {left_out}"
    return Order(
        a=a,
        first=by_label[0] if a == "first" else by_label[1],
        second=by_label[1] if a == "first" else by_label[0],
        reason="" if given is None else clean(given.reason),
        fault=fault,
        attempts=tuple(attempt for attempt, _ in tries),
    )
