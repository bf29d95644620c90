"""Is the judge to be believed? It is tried on rows whose right judgement is known, before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.backends.base import Chat, Watch
from runner.conversation import Example
from runner.errors import Problem
from runner.judge.ask import Asker, Judged
from runner.judge.effects import Effects, effects
from runner.judge.figure import Figure, share, unknown
from runner.judge.human import HumanRow, agreement, read_human
from runner.judge.prompt import digest
from runner.judge.requirements import Figures, unmet
from runner.judge.spending import Spending
from runner.judge.verdict import Judgement, Pair
from runner.plan import JudgePlan

NUM_GOLD, NUM_IDENTICAL, MAX_HUMAN = 30, 5, 100
MIN_ROWS = 5  # below which a share says nothing
POOL = 300  # rows that another row's answer is drawn from
LABEL = "testing the judge"


@dataclass(frozen=True, kw_only=True)
class JudgeCheck:
    """What the judge showed. `reliable` only when every requirement was measured and met; `findings` says why not.
    `effects` are those of the gold rows; `judged` holds every judgement: gold, identical, people's."""

    reliable: bool
    findings: tuple[Problem, ...]
    figures: Figures
    effects: Effects
    judged: Judged

    @property
    def reasons(self) -> tuple[Problem, ...]:
        """Why the judge is not to be believed."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def check_judge(
    plan: JudgePlan,
    chat: Chat,
    examples: Sequence[Example],
    *,
    seed: int,
    watch: Watch,
    spending: Spending | None = None,
) -> JudgeCheck:
    """Tries the judge on rows that no result is read from (dev), and on the human file where there is one.

    Which rows are used depends on seed and contents alone. Raises RunnerError: 78 for a cap without prices, 65 or 66
    for the human file, and what the chat raises.
    """
    people = _draw_people(read_human(plan.human), seed) if plan.human else []
    pool = _draw(examples, seed)
    gold, same = gold_pairs(pool, seed), identical_pairs(pool)
    asker = Asker(plan, chat, seed, watch, LABEL, spending or Spending(plan.endpoint, plan.max_usd))
    judged = asker.judged(asker.judge([*gold, *same, *(row.pair for row in people)], also_equal=True))
    on_gold, rest = judged.judgements[: len(gold)], judged.judgements[len(gold) :]
    figures = _measure(on_gold, rest[: len(same)], rest[len(same) :], people if plan.human else None, len(pool))
    findings = unmet(plan, figures, judged.unscored_reasons)
    return JudgeCheck(
        reliable=not any(finding.severity == "error" for finding in findings),
        findings=findings,
        figures=figures,
        effects=effects(on_gold, gold),
        judged=judged,
    )


def gold_pairs(pool: Sequence[Example], seed: int) -> list[Pair]:
    """Each row's expected answer against that of another row, where one says something else to another question. No
    reference: it would give the answer away."""
    facts = [(row, row.id, row.question, " ".join(row.expected.casefold().split())) for row in pool]
    pairs = []
    for row, name, question, said in facts[:NUM_GOLD]:
        others = [(digest([seed, name, o]), r) for r, o, asked, told in facts if told != said and asked != question]
        if others:
            _, other = min(others, key=lambda entry: entry[0])
            pairs.append(Pair(id=name, prompt=row.prompt, reference=None, first=row.expected, second=other.expected))
    return pairs


def identical_pairs(pool: Sequence[Example]) -> list[Pair]:
    """Some rows' expected answer against itself."""
    return [
        Pair(id=row.id, prompt=row.prompt, reference=None, first=row.expected, second=row.expected)
        for row in pool[:NUM_IDENTICAL]
    ]


def _draw(examples: Sequence[Example], seed: int) -> list[Example]:
    """Different rows with an answer, by lot from their contents: the same ones in whatever order they come."""
    by_id = {example.id: example for example in examples if example.expected.strip()}
    return [by_id[name] for name in sorted(by_id, key=lambda name: digest([seed, name]))[:POOL]]


def _draw_people(rows: Sequence[HumanRow], seed: int) -> list[HumanRow]:
    def lot(row: HumanRow) -> str:
        turns = [[turn.role, turn.content] for turn in row.pair.prompt]
        return digest([seed, turns, row.pair.first, row.pair.second, row.preferred])

    return sorted(rows, key=lot)[:MAX_HUMAN]


def _measure(
    gold: Sequence[Judgement],
    same: Sequence[Judgement],
    on_people: Sequence[Judgement],
    people: Sequence[HumanRow] | None,
    num_rows: int,
) -> Figures:
    agreed, kappa = None, None
    if people is not None:
        num_agreed, num_compared, kappa = agreement(on_people, people)
        agreed = share([i < num_agreed for i in range(num_compared)], MIN_ROWS)
        kappa = None if agreed.value is None else kappa
    return Figures(
        gold_wins=_gold_wins(gold, num_rows),
        identical_ties=share([j.outcome == "tie" for j in same if j.was_scored], 1),
        flips=share([j.outcome == "inconsistent" for j in (*gold, *on_people) if j.was_scored], MIN_ROWS),
        unscored=share([j.outcome == "unscored" for j in (*gold, *same, *on_people)], 1),
        agreement=agreed,
        kappa=kappa,
    )


def _gold_wins(judgements: Sequence[Judgement], num_rows: int) -> Figure:
    if len(judgements) < MIN_ROWS:
        why = f"{num_rows} rows gave {len(judgements)} pairs of different answers to different questions"
        return unknown(f"{why}; it takes {MIN_ROWS}")
    return share([j.outcome == "win" for j in judgements if j.was_scored], MIN_ROWS)
