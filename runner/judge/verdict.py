"""Two answers to one question, and what a judge that saw them in both orders says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from runner.conversation import Message

Outcome = Literal["win", "loss", "tie", "inconsistent", "unscored"]
Place = Literal["first", "second"]
MIRRORED: dict[Outcome, Outcome] = {
    "win": "loss",
    "loss": "win",
    "tie": "tie",
    "inconsistent": "inconsistent",
    "unscored": "unscored",
}
OTHER: dict[Place, Place] = {"first": "second", "second": "first"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers, `first` and `second`, to the conversation `prompt`; `reference` None: the judge is shown none."""

    id: str
    prompt: tuple[Message, ...]
    reference: str | None
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One request as it was answered: the digest of its prompt, the raw text (None: no answer came), who answered,
    tokens (None: not counted), and why the answer could not be used (None: it could)."""

    prompt_sha256: str
    raw: str | None
    model: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    fault: str | None


@dataclass(frozen=True, kw_only=True)
class Order:
    """One order of the two: `a` is the answer that was shown as A. Marks are as given, from 1 to the scale; None with
    the `fault` where the judge gave no usable ones in its attempts."""

    a: Place
    first: int | None
    second: int | None
    reason: str
    fault: str | None
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of `first` against `second`; marks are shares of the scale, 0 to 1, averaged over both orders.

    Equal answers tie unasked: no marks and no orders. `unscored` says why there is no outcome.
    """

    id: str
    outcome: Outcome
    first_mark: float | None
    second_mark: float | None
    reasons: tuple[str, ...]
    unscored: str | None
    orders: tuple[Order, ...]

    @property
    def wavers(self) -> bool:
        """Whether one order has a preference and the other has none; such a row is a tie."""
        leads = {lead(order) for order in self.orders}
        return len(leads) == 2 and 0 in leads and None not in leads

    @property
    def was_scored(self) -> bool:
        """Whether the judge was asked and gave marks in both orders."""
        return self.outcome != "unscored" and bool(self.orders)


def lead(order: Order) -> int | None:
    """Whom an order prefers: 1 the first, -1 the second, 0 neither; None without marks."""
    if order.first is None or order.second is None:
        return None
    return (order.first > order.second) - (order.first < order.second)


def conclude(orders: tuple[Order, ...]) -> Outcome:
    """A win or loss only where both orders agree on it (MT-Bench); inconsistent where they prefer different answers;
    a tie where at least one has no preference; unscored where one has no marks."""
    leads = [lead(order) for order in orders]
    if None in leads:
        return "unscored"
    found = {value for value in leads if value is not None}
    if found == {1}:
        return "win"
    if found == {-1}:
        return "loss"
    return "inconsistent" if found == {1, -1} else "tie"


def judgement(name: str, orders: tuple[Order, ...], scale: int) -> Judgement:
    """The judgement that both orders lead to."""
    outcome = conclude(orders)
    faults = [order.fault for order in orders if order.fault is not None]
    return Judgement(
        id=name,
        outcome=outcome,
        first_mark=_share([order.first for order in orders], scale),
        second_mark=_share([order.second for order in orders], scale),
        reasons=tuple(order.reason for order in orders if order.reason),
        unscored=faults[0] if faults else None,
        orders=orders,
    )


def equal_answers(name: str) -> Judgement:
    """The tie of two equal answers, for which nobody was asked."""
    return Judgement(id=name, outcome="tie", first_mark=None, second_mark=None, reasons=(), unscored=None, orders=())


def not_asked(name: str, reason: str) -> Judgement:
    """A pair that was never put to the judge."""
    return replace(equal_answers(name), outcome="unscored", unscored=reason)


def mirror(found: Judgement) -> Judgement:
    """The same judgement with the two answers in each other's place."""
    orders = tuple(replace(o, a=OTHER[o.a], first=o.second, second=o.first) for o in found.orders)
    return replace(
        found,
        outcome=MIRRORED[found.outcome],
        first_mark=found.second_mark,
        second_mark=found.first_mark,
        orders=orders,
    )


def _share(marks: list[int | None], scale: int) -> float | None:
    """The mean of marks as a share of the scale; None unless every order gave one."""
    given = [mark for mark in marks if mark is not None]
    return sum(mark - 1 for mark in given) / (len(given) * (scale - 1)) if len(given) == len(marks) else None
