"""What a training curve says beside its last value: that it overfitted, stopped early, or has further to go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from runner.backends.base import CurvePoint
from runner.backends.local.checkpoints import Quarantined
from runner.errors import Problem, Where

PARTED = 0.02  # the dev loss has to rise by this share over its best to be more than noise
STILL_FALLING = 0.02


def training_findings(
    curve: Sequence[CurvePoint], *, best_step: int, stopped_early: bool, num_steps: int
) -> Iterator[Problem]:
    """What to know of a finished training, from its losses."""
    looks = [(point.step, point.dev_loss) for point in curve if point.dev_loss is not None]
    before, *after = looks
    best = min(loss for _, loss in after)
    if best >= before[1]:
        yield Problem(
            code="train/no-better",
            what=f"Training never brought the dev loss under that of the untrained model ({before[1]:.3f}; "
            f"best {best:.3f} at step {best_step:,}).",
            fix="Lower hyperparameters.learning_rate, or check that train and dev rows ask for the same.",
            severity="warning",
        )
    elif (last := after[-1][1]) > best * (1 + PARTED) and (fell := _train_loss_fell(curve, best_step)):
        yield Problem(
            code="train/overfit",
            what=f"Train and dev loss parted after step {best_step:,}: dev rose from {best:.3f} to {last:.3f} while "
            f"train fell from {fell[0]:.3f} to {fell[1]:.3f}. The weights of step {best_step:,} are used.",
            where=Where(key="hyperparameters.epochs"),
            fix="Fewer epochs, a lower learning rate or rank, or more rows.",
            severity="warning",
        )
    if stopped_early:
        yield Problem(
            code="train/stopped-early",
            what=f"Training stopped at step {looks[-1][0]:,} of {num_steps:,}: the dev loss had not fallen since step "
            f"{best_step:,}.",
            where=Where(key="hyperparameters.early_stopping_patience"),
            severity="note",
        )
    elif len(after) > 1 and after[-1][1] < after[-2][1] * (1 - STILL_FALLING) and best_step == looks[-1][0]:
        yield Problem(
            code="train/still-falling",
            what=f"The dev loss was still falling at the end ({after[-2][1]:.3f} to {after[-1][1]:.3f}).",
            where=Where(key="hyperparameters.epochs"),
            fix="More epochs may help.",
            severity="note",
        )


def resumed(
    steps: Sequence[int], quarantined: Sequence[Quarantined], computed_on: Sequence[str] = ()
) -> Iterator[Problem]:
    """That training was interrupted, whether it went on on something else, and what of its checkpoints was damaged."""
    if steps:
        shown = ", ".join(f"{step:,}" for step in steps)
        what = f"Training was interrupted and went on from a checkpoint (of step {shown})."
        yield Problem(code="train/resumed", what=what, severity="note")
    if len(computed_on) > 1:
        yield Problem(
            code="train/other-computer",
            what=f"Training began on {computed_on[0]} and went on on {', then '.join(computed_on[1:])}: sums may round "
            "otherwise there, so an uninterrupted run may have other last digits.",
            fix="Where it matters, give every attempt the same: OMP_NUM_THREADS, approach.processes, the GPU's model.",
            severity="warning",
        )
    for damaged in quarantined:
        yield Problem(
            code="train/checkpoint-damaged",
            what=f"'{damaged.name}' was set aside: {damaged.reason}.",
            fix="Nothing is lost but time: training went on from what was whole. If it happens again, check the disk.",
            severity="warning",
        )


def _train_loss_fell(curve: Sequence[CurvePoint], step: int) -> tuple[float, float] | None:
    """The mean train loss of the quarter of the points up to a step and of those at the end, where it fell."""
    losses = [(point.step, point.loss) for point in curve if point.loss is not None]
    some = max(1, len(losses) // 4)
    until = [loss for at, loss in losses if at <= step][-some:]
    since = [loss for at, loss in losses if at > step][-some:]
    if not until or not since:
        return None
    early, late = fmean(until), fmean(since)
    return (early, late) if late < early else None
