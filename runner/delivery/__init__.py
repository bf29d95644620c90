"""The delivery stage: what was delivered is proven, loaded and scored again, described, and given a line to serve."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.answerer import Answerer
from runner.backends.base import Form, HeldOutLoss, Reply, TrainedModel
from runner.conversation import Example
from runner.data.prepare import Dataset
from runner.delivery.card import CardFacts, make_card
from runner.delivery.parts import Check, DeliveredFile, Delivery, Pushed
from runner.delivery.serve import ServeLine, serve_lines
from runner.errors import Exit, Problem, RunnerError
from runner.evaluate import Evaluation
from runner.files import sha256_of
from runner.plan import Plan
from runner.rundir import RunDirectory
from runner.scoring import Outside, Scoring, mean_of, score

__all__ = ["Check", "DeliveredFile", "Delivery", "Pushed", "ServeLine", "check_delivery", "deliver"]

NUM_ANSWERED = 32  # rows answered again, or as many more as fill a batch; the loss is that of all test rows
# Mean nats per token. The same numbers give the same loss but for the order of sums; merging rounds every weight once
# more, to bf16 where the model is held in it.
TOLERANCE_NATS: dict[Form, float] = {"adapter": 1e-3, "full": 1e-3, "merged": 0.02}
ROWS_BY_ROUNDING = 2  # of few rows may turn with the last digit, which is no other model


@dataclass(frozen=True, kw_only=True)
class _Evaluated:
    """How the model that was evaluated did on the test rows."""

    rows: Sequence[Example]
    replies: Sequence[Reply]
    losses: HeldOutLoss


def deliver(
    plan: Plan,
    dataset: Dataset,
    trained: TrainedModel,
    evaluation: Evaluation,
    answerer: Answerer,
    scoring: Scoring,
    run: RunDirectory,
    run_id: str,
) -> Delivery:
    """What is delivered, whether it agrees with what was evaluated or not (`check_delivery`); the session's weights are
    let go of.

    Raises RunnerError (74) when the weights on disk are not those that were trained, or there is no room for more.
    """
    session, watch = answerer.session, answerer.watch
    model_dir = Path(trained.model_dir)
    files = _list_files(model_dir)
    _check_weights(files, trained)
    evaluated = _evaluated(dataset.test, answerer)
    forms: dict[Form, Path] = {"full" if plan.approach == "full" else "adapter": model_dir}
    if plan.delivery.merge:
        forms["merged"] = run.path / "merged"
        session.merge(forms["merged"], watch)
        files += _list_files(forms["merged"])
    checks = tuple(_check(form, folder, evaluated, plan, answerer, scoring) for form, folder in forms.items())
    delivery = Delivery(
        model_dir=trained.model_dir,
        files=tuple(files),
        merged_dir=str(forms["merged"]) if "merged" in forms else None,
        checks=checks,
        serve=(),
        card=None,
    )
    if not all(check.agrees for check in checks):
        return delivery
    facts = CardFacts(
        plan=plan,
        dataset=dataset,
        trained=trained,
        evaluation=evaluation,
        checks=checks,
        base=session.folder,
        run_id=run_id,
    )
    cards = [run.write_text(f"{folder.name}/README.md", make_card(facts, form)) for form, folder in forms.items()]
    return replace(
        delivery,
        files=(*files, *map(_describe, cards)),
        serve=serve_lines(plan, session.folder, trained.model_dir, delivery.merged_dir),
        card=str(cards[0]),
    )


def _evaluated(rows: Sequence[Example], answerer: Answerer) -> _Evaluated:
    losses = answerer.session.held_out_loss("tuned", rows, answerer.watch)
    return _Evaluated(rows=rows, replies=answerer.answer(None, rows), losses=losses)


def check_delivery(delivery: Delivery) -> None:
    """Raises RunnerError where what is delivered is not what was evaluated: 74 when a file has changed since it was
    listed, 70 otherwise, which is a bug of ours."""
    differing = [check for check in delivery.checks if not check.agrees]
    if not differing:
        return
    folders = {Path(folder).name: Path(folder) for folder in (delivery.model_dir, delivery.merged_dir) if folder}
    changed = [file.name for file in delivery.files if not _is_as_listed(file, folders)]
    what = "What is delivered is not what was evaluated. " + " ".join(map(_told, differing))
    if changed:
        what += f" Files that changed meanwhile: {', '.join(changed)}."
    fix = "Run the same command again." if changed else "Use none of it, and please report this with the report.json."
    raise RunnerError(Problem(code="delivery/differs", what=what, fix=fix), Exit.IO if changed else Exit.BUG)


def _check(form: Form, folder: Path, evaluated: _Evaluated, plan: Plan, answerer: Answerer, scoring: Scoring) -> Check:
    """What the files of a folder give, beside what was evaluated."""
    answerer.watch.check()
    again = answerer.session.reopen(form, folder)
    rows = evaluated.rows
    losses = again.held_out_loss("tuned", rows, answerer.watch)
    prompts, tools = [row.prompt for row in rows], [row.tools for row in rows]
    answers = again.answer_anew("tuned", prompts, NUM_ANSWERED, answerer.sampling, answerer.watch, tools)
    chosen = sorted(answers)
    delivered = _Evaluated(
        rows=[rows[i] for i in chosen],
        replies=[Reply(completion=answers[i]) for i in chosen],
        losses=replace(losses, rows=tuple(losses.rows[i] for i in chosen)),
    )
    before = _Evaluated(
        rows=delivered.rows,
        replies=[evaluated.replies[i] for i in chosen],
        losses=replace(evaluated.losses, rows=tuple(evaluated.losses.rows[i] for i in chosen)),
    )
    first, second = (_score(side, answerer, scoring) for side in (before, delivered))
    check = Check(
        form=form,
        num_rows=len(rows),
        loss_evaluated=evaluated.losses.mean,
        loss_delivered=losses.mean,
        num_answers=len(chosen),
        same_answers=sum(map(_same, before.replies, delivered.replies)),
        score_evaluated=first,
        score_delivered=second,
        unscored=_why_unscored(scoring, first, second),
        agrees=False,
    )
    check = replace(check, agrees=_agrees(check, plan.eval.margin))
    answerer.watch.say(_told(check))
    return check


def _score(side: _Evaluated, answerer: Answerer, scoring: Scoring) -> float | None:
    """The primary metric over the rows; None where nobody can take it again."""
    metric = scoring.metrics[scoring.primary]
    if metric.needs == "judge":
        return None
    likeness = answerer.similarities(side.replies, side.rows) if metric.needs == "similarity" else None
    outside = Outside(losses=side.losses.rows, similarities=likeness)
    own = replace(scoring, metrics={scoring.primary: metric})
    return mean_of(own, score(own, side.rows, side.replies, outside), scoring.primary)


def _why_unscored(scoring: Scoring, first: float | None, second: float | None) -> str | None:
    if scoring.metrics[scoring.primary].needs == "judge":
        return "the judge is not asked a second time"
    return "none of these rows has a score" if first is None or second is None else None


def _agrees(check: Check, margin: float) -> bool:
    """The loss within its tolerance, of a large one relatively; the score within the margin, or two rows' worth."""
    apart = abs(check.loss_delivered - check.loss_evaluated)
    same_loss = apart <= TOLERANCE_NATS[check.form] * max(1.0, check.loss_evaluated)
    if check.score_evaluated is None or check.score_delivered is None:
        return same_loss and (check.score_evaluated is None) == (check.score_delivered is None)
    allowed = max(margin, ROWS_BY_ROUNDING / check.num_answers) + 1e-9
    return same_loss and abs(check.score_delivered - check.score_evaluated) <= allowed


def _same(one: Reply, other: Reply) -> bool:
    return bool(one.completion and other.completion and one.completion.text == other.completion.text)


def _told(check: Check) -> str:
    said = f"{check.form}, loaded again: loss {check.loss_delivered:.4f}, evaluated {check.loss_evaluated:.4f}"
    if check.score_evaluated is not None and check.score_delivered is not None:
        said += f"; score {check.score_delivered:.3f}, evaluated {check.score_evaluated:.3f}"
    return f"{said}; {check.same_answers} of {check.num_answers} answers the same."


def _check_weights(files: Sequence[DeliveredFile], trained: TrainedModel) -> None:
    """Holds the weights on disk to those that training wrote, by the hash of their files' hashes."""
    weights = sorted((file.name, file.sha256) for file in files if file.name.endswith(".safetensors"))
    if hashlib.sha256("".join(digest for _, digest in weights).encode()).hexdigest() == trained.weights_sha256:
        return
    problem = Problem(
        code="delivery/damaged",
        what=f"The weights in {trained.model_dir} are not those that were trained: a file has changed, or is missing.",
        fix="Check the disk, and run the same command again: it notices that, and trains anew.",
    )
    raise RunnerError(problem, Exit.IO)


def _list_files(folder: Path) -> list[DeliveredFile]:
    """The files of a folder but for the card, which is written anew."""
    return [_describe(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != "README.md"]


def _describe(path: Path) -> DeliveredFile:
    return DeliveredFile(name=f"{path.parent.name}/{path.name}", bytes=path.stat().st_size, sha256=sha256_of(path))


def _is_as_listed(file: DeliveredFile, folders: dict[str, Path]) -> bool:
    folder, _, name = file.name.partition("/")
    try:
        return _describe(folders[folder] / name) == file
    except OSError:
        return False
