"""A question as the judge gets it: the same whichever way round, and wherever, the two answers came."""

from __future__ import annotations

from dataclasses import dataclass

from runner.conversation import Message
from runner.judge.prompt import choose_fence, clean, cut, digest, show_task, write_prompt
from runner.judge.verdict import Pair, Place
from runner.plan import JudgePlan

Prompt = tuple[Message, Message]
CUT_ALIKE = "the answers differ only in the middle, which is too long to show"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Two answers in the order of the alphabet, with the prompt of each order to ask: who is A, and the words.

    `key` comes from the contents alone. `equal`: both answers say the same but for white space at their ends.
    """

    key: str
    equal: bool
    unseen: bool
    prompts: tuple[tuple[Place, Prompt], ...]


def make_sheet(plan: JudgePlan, pair: Pair, seed: int) -> tuple[Sheet, bool]:
    """The sheet of a pair, and whether the pair's first answer is the sheet's second; swapping the two answers gives
    the same sheet. Fence and the order that comes first are drawn from seed and contents."""
    low, high = sorted((pair.first, pair.second))
    task = show_task(pair.prompt)
    key = digest([seed, task, pair.reference, low, high])
    shown = [clean(text) for text in (task, low, high)]
    reference = None if pair.reference is None else clean(pair.reference)
    fence = choose_fence([*shown, reference or ""], key)
    prompts: list[tuple[Place, Prompt]] = [
        ("first", write_prompt(plan, shown[0], reference, shown[1], shown[2], fence)),
        ("second", write_prompt(plan, shown[0], reference, shown[2], shown[1], fence)),
    ]
    equal = low.strip() == high.strip()
    sheet = Sheet(
        key=key,
        equal=equal,
        unseen=not equal and (cut(shown[1]) or shown[1]) == (cut(shown[2]) or shown[2]),
        prompts=tuple(prompts if int(digest([key, "order"]), 16) % 2 else reversed(prompts)),
    )
    return sheet, pair.first != low
