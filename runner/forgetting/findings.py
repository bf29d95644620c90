"""What is worth knowing about forgetting, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.errors import Problem, Where
from runner.plan.parts import ForgettingPlan
from runner.stats import Interval

OPENING_LENGTH = 10  # characters by which the form of an answer is told
FORM_SHARE = 0.5  # of the tuned answers that open alike, when base's do so at most half as often


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Losses of the passages that both sides have a finite one for."""

    num: int
    unscored: int
    base: float | None = None
    tuned: float | None = None
    difference: Interval | None = None


def over_budget(difference: Interval, rise: Interval | None, budget: ForgettingPlan) -> list[Problem]:
    """What goes beyond its budget: an error where the whole interval does, else a warning."""
    drop = Interval(mean=-difference.mean, low=_minus(difference.high), high=_minus(difference.low))
    told = (
        (drop, budget.max_drop, "eval.forgetting.max_drop", "share of general probes passed fell", _points),
        (rise, budget.max_loss_rise, "eval.forgetting.max_loss_rise", "loss on general text rose", _nats),
    )
    found = []
    for change, limit, key, what, show in told:
        if change is None or limit is None or change.mean <= limit:
            continue
        sure = change.low is not None and change.low > limit
        amount, most = show(change.mean).lstrip("+"), show(limit).lstrip("+")
        certainty = "the whole 95 % interval lies beyond that" if sure else "but the 95 % interval does not settle it"
        found.append(
            Problem(
                code="eval/forgot" if sure else "eval/forgot-perhaps",
                what=f"The {what} by {amount}, more than the {most} allowed; {certainty}.",
                where=Where(key=key),
                fix="Mix general rows into the training (data.mix), or train less: fewer epochs, a lower rate.",
                severity="error" if sure else "warning",
            )
        )
    return found


def too_low_to_fall(base: Interval, budget: ForgettingPlan) -> list[Problem]:
    """Whether base passes so few probes that the budget for the drop could not be broken."""
    if budget.max_drop is None or base.mean > budget.max_drop:
        return []
    return [
        Problem(
            code="eval/nothing-to-forget",
            what=f"Base passes only {_percent(base.mean)} of the general probes, so a drop of more than "
            f"{_points(budget.max_drop).lstrip('+')} cannot be seen.",
            where=Where(key="eval.forgetting.max_drop"),
            fix="Go by the loss on general text (eval.forgetting.max_loss_rise).",
            severity="warning",
        )
    ]


def unscored_texts(loss: Losses, budget: ForgettingPlan) -> list[Problem]:
    """How many general texts have no finite loss on one side, and what that leaves unchecked."""
    if not loss.unscored:
        return []
    what = f"The loss on {loss.unscored} of {loss.num + loss.unscored} general texts is not a finite number"
    kept = " and they are left out" if loss.num else ""
    checked = "" if budget.max_loss_rise is None or loss.num else ", so eval.forgetting.max_loss_rise is not checked"
    return [
        Problem(
            code="eval/general-loss",
            what=f"{what}{kept}{checked}.",
            fix="Look at the training curve: a model that diverged has such losses.",
            severity="warning",
        )
    ]


def trained_form(base: Sequence[str], tuned: Sequence[str]) -> list[Problem]:
    """Whether the tuned answers to quite different questions begin alike, as those of base do not."""
    opening, count = Counter(map(_opening, tuned)).most_common(1)[0]
    before = [_opening(text) for text in base].count(opening)
    if count < FORM_SHARE * len(tuned) or before > count / 2:
        return []
    how = f"begin with '{opening}'" if opening else "are empty"
    return [
        Problem(
            code="eval/trained-form",
            what=f"The tuned model answers everything in the trained form: {count} of {len(tuned)} answers to general "
            f"probes {how} (base {before}).",
            fix="Mix general rows into the training (data.mix) if the model is to be used for anything else.",
            severity="warning",
        )
    ]


def _opening(text: str) -> str:
    return text.lstrip()[:OPENING_LENGTH].rstrip()


def describe(base: Interval, tuned: Interval, difference: Interval, num_probes: int, loss: Losses) -> str:
    """Both measures as a sentence for people."""
    lost = difference.high is not None and difference.high < 0
    opening = "General abilities were lost" if lost else "No loss of general abilities is shown"
    if base.mean == 0:
        opening = "Base passes no probe, so nothing can be lost there"
    return (
        f"{opening}: base passes {_percent(base.mean)} of {num_probes} probes, tuned {_percent(tuned.mean)} "
        f"({_between(difference, _points)}); {_loss_text(loss)}."
    )


def _loss_text(loss: Losses) -> str:
    if loss.base is None or loss.tuned is None or loss.difference is None:
        return "the loss on general text could not be taken"
    return (
        f"the loss on {loss.num} general texts went from {loss.base:.3f} to {loss.tuned:.3f} nats per token "
        f"({_between(loss.difference, _nats)})"
    )


def _between(difference: Interval, show: Callable[[float], str]) -> str:
    if difference.low is None or difference.high is None:
        return f"{show(difference.mean)}, too few for an interval"
    return f"{show(difference.mean)}, 95 % interval {show(difference.low)} to {show(difference.high)}"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:+z.1f} points"


def _nats(value: float) -> str:
    return f"{value:+z.3f} nats"
