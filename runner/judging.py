"""The judge within a run: tested on dev rows before it is believed, then asked about the test rows' answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from runner.answerer import Answerer
from runner.data.prepare import Dataset
from runner.errors import Problem
from runner.files import file_name
from runner.judge import (
    Effects,
    JudgeCheck,
    Judged,
    Judgement,
    Pair,
    Spending,
    check_judge,
    choice_findings,
    compare,
    comparison_findings,
    effects,
    snapshot_findings,
)
from runner.metrics import Score
from runner.plan import Plan
from runner.scoring import Scored
from runner.stats import SignTest, sign_test

METRIC = "judge"
NOT_RELIABLE = "the judge is not reliable"
NOT_ASKED = "the judge could not be asked"
TOO_FEW = "too few rows have a mark"
UNASKED_TIE = "equal answers: a tie without asking, entered at the mean mark"
ALL_TIES = "equal answers: a tie without asking, and no row was asked that would give a mark"


@dataclass(frozen=True, kw_only=True)
class JudgedPair:
    """Tuned against one side as the judge prefers: outcomes over the rows, the exact sign test over groups of rows that
    were won or lost, and what length and style have to do with it. `judged.judgements` are in the run directory."""

    against: str
    judged: Judged
    signs: SignTest
    effects: Effects


@dataclass(frozen=True, kw_only=True)
class JudgeResult:
    """What the judge is worth, and what it said; `pairs` is empty where it is not reliable or could not be asked."""

    reliable: bool
    check: JudgeCheck | None
    pairs: tuple[JudgedPair, ...]
    usd: float | None
    findings: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class JudgedSides:
    """All sides with the judge's marks. `tuned` has the tuned side as it was marked beside each of the others."""

    sides: dict[str, Scored]
    tuned: dict[str, Scored]
    result: JudgeResult


def try_judge(plan: Plan, dataset: Dataset, answerer: Answerer, folder: Path) -> JudgeCheck | None:
    """Tests the manifest's judge on dev rows, unless that was done or there is none. Its evidence goes into `folder`.

    None also where it could not be asked, which `answerer.outages` then holds.
    """
    judge = plan.eval.judge
    if judge is None:
        return None
    check = None
    with answerer.outage("The judge"):
        chat, spending = answerer.chat(judge.endpoint), _spending(plan, answerer)
        found = check_judge(judge, chat, dataset.dev, seed=plan.seed, watch=answerer.watch, spending=spending)
        _keep(folder / "judge-test.jsonl", found.judged.judgements)
        own = choice_findings(judge, plan.model, plan.model_facts.family)
        check = replace(found, judged=replace(found.judged, judgements=()), findings=(*found.findings, *own))
        answerer.watch.say("The judge is reliable." if check.reliable else "The judge is not reliable.")
    return check


def judge_sides(
    plan: Plan,
    answerer: Answerer,
    check: JudgeCheck | None,
    sides: Mapping[str, Scored],
    folder: Path,
) -> JudgedSides | None:
    """Has every other side's answers compared with the tuned ones; None without a judge. An unreliable judge, and one
    that cannot be asked, give no marks at all."""
    judge = plan.eval.judge
    if judge is None:
        return None
    found: dict[str, tuple[Judged, Sequence[Pair]]] = {}
    why = NOT_RELIABLE if check and not check.reliable else NOT_ASKED
    if check and check.reliable:
        with answerer.outage("The judge"):
            for name, scored in sides.items():
                if name != "tuned":
                    found[name] = _judge(plan, answerer, name, scored, sides["tuned"], folder)
    findings = [
        problem
        for judged, pairs in found.values()
        for problem in comparison_findings(judge, judged, effects(judged.judgements, pairs))
    ]
    rounds = [judged for judged, _ in found.values()] + ([check.judged] if check else [])
    findings += snapshot_findings(rounds)
    if any(finding.severity == "error" for finding in findings):
        found, why = {}, TOO_FEW
    spent = answerer.spending
    usd = spent.usd(spent.totals) if spent else 0.0
    return _with_marks(check, sides, found, why, usd, findings)


def _spending(plan: Plan, answerer: Answerer) -> Spending:
    """One cap for the judge's test and all its comparisons."""
    assert plan.eval.judge
    if answerer.spending is None:
        answerer.spending = Spending(plan.eval.judge.endpoint, plan.eval.judge.max_usd)
    return answerer.spending


def _judge(
    plan: Plan, answerer: Answerer, name: str, untuned: Scored, tuned: Scored, folder: Path
) -> tuple[Judged, Sequence[Pair]]:
    """Tuned first, though the judge does not learn which is which; a row that a side did not answer is unscored."""
    assert plan.eval.judge
    sides = list(zip(tuned.rows, tuned.texts, untuned.texts, strict=True))
    pairs = [
        Pair(id=row.id, prompt=row.prompt, reference=row.expected, first=mine or "", second=other or "")
        for row, mine, other in sides
    ]
    answered = [mine is not None and other is not None for _, mine, other in sides]
    judged = compare(
        plan.eval.judge,
        answerer.chat(plan.eval.judge.endpoint),
        [pair for pair, both in zip(pairs, answered, strict=True) if both],
        seed=plan.seed,
        watch=answerer.watch,
        label=f"judging tuned against {name}",
        spending=_spending(plan, answerer),
    )
    given = iter(judged.judgements)
    everyone = [next(given) if both else _unanswered(pair) for pair, both in zip(pairs, answered, strict=True)]
    _keep(folder / f"judge-{file_name(name)}.jsonl", everyone)
    return replace(judged, judgements=tuple(everyone)), pairs


def _unanswered(pair: Pair) -> Judgement:
    return Judgement(
        id=pair.id,
        outcome="unscored",
        first_mark=None,
        second_mark=None,
        reasons=(),
        unscored="a side gave no answer",
        orders=(),
    )


def _with_marks(
    check: JudgeCheck | None,
    sides: Mapping[str, Scored],
    found: Mapping[str, tuple[Judged, Sequence[Pair]]],
    why: str,
    usd: float | None,
    findings: Sequence[Problem],
) -> JudgedSides:
    marked, tuned = dict(sides), {}
    for name, (judged, _) in found.items():
        tuned[name] = _marked(sides["tuned"], judged.judgements, first=True)
        marked[name] = _marked(sides[name], judged.judgements, first=False)
    nothing = [Score(value=None, reason=why)]
    for name in sides:
        if name not in (*found, "tuned"):
            marked[name] = _scored(sides[name], nothing * len(sides[name].rows))
    marked["tuned"] = tuned.get("base") or _scored(sides["tuned"], nothing * len(sides["tuned"].rows))
    pairs = tuple(
        JudgedPair(
            against=name,
            judged=replace(judged, judgements=()),
            signs=_signs(judged, [row.group for row in sides[name].rows]),
            effects=effects(judged.judgements, asked),
        )
        for name, (judged, asked) in found.items()
    )
    result = JudgeResult(
        reliable=bool(check and check.reliable) and bool(found),
        check=check,
        pairs=pairs,
        usd=usd,
        findings=tuple(findings),
    )
    return JudgedSides(sides=marked, tuned=tuned, result=result)


def _signs(judged: Judged, groups: Sequence[str | None]) -> SignTest:
    """Rows that were won or lost, by group; a row without an outcome is no tie."""
    known = [(j, group) for j, group in zip(judged.judgements, groups, strict=True) if j.outcome != "unscored"]
    preferences = [(j.outcome == "win") - float(j.outcome == "loss") for j, _ in known]
    return sign_test(preferences, groups=[group for _, group in known])


def _marked(scored: Scored, judgements: Sequence[Judgement], *, first: bool) -> Scored:
    """The side with its marks. Equal answers, which tie unasked, count at the mean mark of both sides, so that they
    add no difference."""
    asked = [
        (j.first_mark, j.second_mark) for j in judgements if j.first_mark is not None and j.second_mark is not None
    ]
    middle = fmean(mark for pair in asked for mark in pair) if asked else None
    scores = []
    for judgement in judgements:
        mark = judgement.first_mark if first else judgement.second_mark
        if judgement.outcome == "tie" and mark is None:
            scores.append(Score(value=middle, reason=ALL_TIES if middle is None else UNASKED_TIE))
        else:
            scores.append(Score(value=mark, reason=judgement.unscored))
    return _scored(scored, scores)


def _scored(scored: Scored, marks: Sequence[Score]) -> Scored:
    """The side with these scores of the judge, where the judge is one of the metrics."""
    if METRIC not in scored.scores:
        return scored
    return replace(scored, scores={**scored.scores, METRIC: marks})


def _keep(path: Path, judgements: Sequence[Judgement]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for judgement in judgements:
            file.write(json.dumps(asdict(judgement), ensure_ascii=False) + "\n")
