"""The judge within a run: believed only after its test, asked about every other side, never in the way of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.answerer import Answerer
from runner.conversation import Example
from runner.errors import Exit, Problem, RunnerError
from runner.evaluate import Evaluation, evaluate
from runner.judging import ALL_TIES, NOT_ASKED, NOT_RELIABLE, TOO_FEW, UNASKED_TIE, judge_sides, try_judge
from runner.plan import Plan
from runner.scoring import Scored, Scoring, read_scoring
from tests.evaluate.sides import scoring_of, side
from tests.fakes import FakeSession, make_answerer, make_dataset, make_decision, make_test_plan, read_lines
from tests.judge.scripted import PLAN as JUDGE
from tests.judge.scripted import (
    PRICED,
    FakeChat,
    Script,
    Shown,
    always_first,
    good,
    longer_wins,
    marks,
    numbers,
    rubbish,
)

ROWS = numbers(60)
TEST = ROWS[:24]
RIGHT = {row.prompt[-1].content: row.expected for row in ROWS}
WRONG = {asked: answer.replace("It is", "It's not") + "000" for asked, answer in RIGHT.items()}
DOWN = RunnerError(Problem(code="endpoint/down", what="Nobody answers."), Exit.UNAVAILABLE)
REFUSED = RunnerError(Problem(code="endpoint/key", what="The key is refused."), Exit.CREDENTIALS)


def judged_plan(metrics: str = "judge, exact_match", **changes: Any) -> Plan:
    plan = make_test_plan(
        f"eval.metrics=[{metrics}]",
        "eval.judge={endpoint: {base_url: 'http://judge.test/v1', model: wise-model-2026-01-31}, rubric: r}",
        "eval.forgetting.measure=false",
    )
    return replace(plan, eval=replace(plan.eval, judge=replace(JUDGE, **changes)))


def answerer_of(plan: Plan, chat: FakeChat | Script, session: FakeSession | None = None) -> Answerer:
    made = chat if isinstance(chat, FakeChat) else FakeChat(script=chat)
    return make_answerer(plan, dataset(), session or FakeSession(), {PRICED.model: made})


def dataset(test: Sequence[Example] = TEST) -> Any:
    return make_dataset(dev=tuple(ROWS[24:]), test=tuple(test))


def run(
    folder: Path,
    chat: FakeChat | Script,
    *,
    tuned: Mapping[str, str] = RIGHT,
    base: Mapping[str, str] = WRONG,
    arms: Mapping[str, Mapping[str, str]] | None = None,
    best: str | None = None,
    metrics: str = "judge, exact_match",
    **changes: Any,
) -> tuple[Evaluation, Answerer]:
    plan = judged_plan(metrics, **changes)
    session = FakeSession(answers={"base": base, "tuned": tuned, **(arms or {})})
    answerer = answerer_of(plan, chat, session)
    check = try_judge(plan, dataset(), answerer, folder / "gate")
    decision = make_decision(best=best, judge=check)
    return evaluate(plan, dataset(), answerer, read_scoring(plan), decision, folder / "evaluation"), answerer


def judge_of(found: Evaluation) -> Any:
    assert found.judge is not None
    return found.judge


# --- the four judges --------------------------------------------------------------------------------------------------


def test_a_good_judge_is_believed_and_its_marks_are_the_verdict(tmp_path: Path) -> None:
    found, answerer = run(tmp_path, good)
    assert (judge_of(found).reliable, found.verdict, answerer.outages) == (True, "improved", [])
    (pair,) = judge_of(found).pairs
    assert (pair.against, pair.judged.outcomes["win"], pair.signs.wins, pair.signs.losses) == ("base", 24, 24, 0)
    assert found.comparison is not None
    assert (found.comparison.untuned, found.comparison.tuned, found.comparison.num_rows) == (0, 1, 24)
    assert "judge/not-reliable" not in [finding.code for finding in found.findings]


def test_a_judge_that_prefers_the_first_is_not_reliable_and_gives_no_figure(tmp_path: Path) -> None:
    found, answerer = run(tmp_path, always_first)
    assert (judge_of(found).reliable, judge_of(found).pairs, found.verdict) == (False, (), "inconclusive")
    assert found.text == f"No verdict: no row can be compared by 'judge', the primary metric ({NOT_RELIABLE})."
    assert [c.metric for c in found.comparisons] == ["exact_match"]
    assert answerer.outages == []
    assert not (tmp_path / "evaluation" / "judge-base.jsonl").exists(), "it is not asked about the answers at all"
    for name in ("base", "tuned"):
        records = read_lines(tmp_path / "evaluation" / f"{name}.jsonl")
        assert {record["scores"]["judge"]["reason"] for record in records} == {NOT_RELIABLE}


def test_a_judge_that_prefers_the_longer_has_its_length_effect_reported(tmp_path: Path) -> None:
    def lengthy(shown: Shown) -> str:
        return good(shown) if shown.reference is None else longer_wins(shown)

    mixed = {asked: text if i % 3 else text[-2:] for i, (asked, text) in enumerate(RIGHT.items())}
    found, _ = run(tmp_path, lengthy, tuned=mixed, base={asked: text[-8:] for asked, text in RIGHT.items()})
    (pair,) = judge_of(found).pairs
    assert pair.effects.length.clear and pair.effects.length.slope > 0
    assert "judge/length-effect" in [finding.code for finding in found.findings]


def test_a_judge_that_answers_rubbish_leaves_all_unscored(tmp_path: Path) -> None:
    found, _ = run(tmp_path, rubbish, metrics="exact_match, judge")
    assert (judge_of(found).reliable, found.verdict) == (False, "improved")
    assert found.tuned.unscored == {"exact_match": 0, "judge": 24}
    assert found.tuned.scores["judge"] is None


def test_a_judge_that_breaks_down_after_its_test_gives_no_figure(tmp_path: Path) -> None:
    def tired(shown: Shown) -> str:
        return good(shown) if shown.reference is None else rubbish(shown)

    found, _ = run(tmp_path, tired)
    assert (judge_of(found).check.reliable, judge_of(found).reliable, judge_of(found).pairs) == (True, False, ())
    assert TOO_FEW in found.text
    assert ("judge/unscored", "error") in [(f.code, f.severity) for f in found.findings]
    assert len(read_lines(tmp_path / "evaluation" / "judge-base.jsonl")) == 24, "what it said is kept all the same"
    assert judge_of(found).usd > judge_of(found).check.judged.usd, "and paid"


def test_a_few_rows_without_a_mark_are_left_out_of_marks_and_signs(tmp_path: Path) -> None:
    odd = TEST[0].prompt[-1].content

    def moody(shown: Shown) -> str:
        return rubbish(shown) if shown.task.endswith(odd) and shown.reference is not None else good(shown)

    found, _ = run(tmp_path, moody)
    (pair,) = judge_of(found).pairs
    assert (pair.judged.outcomes["unscored"], pair.signs.wins, pair.signs.ties) == (1, 23, 0)
    assert found.comparison is not None and (found.comparison.num_rows, found.comparison.unscored) == (23, 1)
    assert found.tuned.unscored["judge"] == 1


# --- sides and ties ---------------------------------------------------------------------------------------------------


def sides_of(scoring: Scoring, rows: Sequence[Example], **texts: Sequence[str | None]) -> dict[str, Scored]:
    return {name: side(scoring, rows, outputs) for name, outputs in texts.items()}


def marked(chat: FakeChat | Script, sides: Mapping[str, Scored], folder: Path, **changes: Any) -> Any:
    plan = judged_plan(**changes)
    answerer = answerer_of(plan, chat)
    check = try_judge(plan, dataset(), answerer, folder)
    found = judge_sides(plan, answerer, check, sides, folder)
    assert found is not None
    return found


def values(scored: Scored) -> list[float | None]:
    return [one.value for one in scored.scores["judge"]]


def test_equal_answers_tie_at_the_mean_mark_and_add_no_difference(tmp_path: Path) -> None:
    rows, right = TEST[:4], [row.expected for row in TEST[:4]]
    sides = sides_of(scoring_of("judge"), rows, base=["0"] * 3 + right[3:], tuned=right)
    chat = FakeChat(script=good)
    found = marked(chat, sides, tmp_path)
    assert values(found.tuned["base"]) == [1, 1, 1, 0.5]
    assert values(found.sides["base"]) == [0, 0, 0, 0.5]
    assert found.sides["tuned"].scores["judge"][3].reason == UNASKED_TIE
    assert (found.result.pairs[0].signs.wins, found.result.pairs[0].signs.ties) == (3, 1)


def test_equal_answers_throughout_have_no_mark_and_say_so(tmp_path: Path) -> None:
    right = [row.expected for row in TEST]
    found = marked(good, sides_of(scoring_of("judge"), TEST, base=right, tuned=right), tmp_path)
    assert values(found.sides["tuned"]) == values(found.sides["base"]) == [None] * 24
    assert {one.reason for one in found.sides["tuned"].scores["judge"]} == {ALL_TIES}
    assert found.result.pairs[0].judged.outcomes["tie"] == 24


def test_a_row_that_a_side_did_not_answer_is_unscored_and_not_asked_about(tmp_path: Path) -> None:
    right: list[str | None] = [row.expected for row in TEST]
    sides = sides_of(scoring_of("judge"), TEST, base=[None, *["0"] * 23], tuned=[right[0], None, *right[2:]])
    chat = FakeChat(script=good)
    found = marked(chat, sides, tmp_path)
    assert values(found.sides["tuned"]) == [None, None, *[1] * 22]
    assert found.sides["base"].scores["judge"][0].reason == "a side gave no answer"
    kept = read_lines(tmp_path / "judge-base.jsonl")
    assert [record["outcome"] for record in kept] == ["unscored", "unscored", *["win"] * 22]
    assert [record["id"] for record in kept] == [row.id for row in TEST]
    asked = "".join(prompt[1].content for prompt in chat.asked)
    assert "what is 2\n" in asked and "what is 0\n" not in asked and "what is 1\n" not in asked
    assert found.result.pairs[0].signs.ties == 0


def test_tuned_is_marked_anew_beside_each_side_and_compared_with_those_marks(tmp_path: Path) -> None:
    def relative(shown: Shown) -> str:
        """Marks a short answer lower beside a long one than beside a short one."""
        if shown.reference is None:
            return good(shown)
        long_beside = max(len(shown.a), len(shown.b)) > 70
        a, b = ((3 if long_beside else 5) if text.startswith("It is") else 2 for text in (shown.a, shown.b))
        return marks(a, b)

    wordy = {asked: f"Well, {answer}, {'or so ' * 10}" for asked, answer in WRONG.items()}
    found, _ = run(tmp_path, relative, best="few_shot", arms={"few_shot": wordy})
    beside = {c.against: c for c in found.comparisons if c.metric == "judge"}
    assert (beside["base"].tuned, beside["few_shot"].tuned) == (1, 0.5)
    assert [pair.against for pair in judge_of(found).pairs] == ["base", "few_shot"]
    assert found.comparison is not None and found.comparison.against == "few_shot"
    assert {"judge-base.jsonl", "judge-few_shot.jsonl"} <= {p.name for p in (tmp_path / "evaluation").iterdir()}


def test_the_judge_does_not_learn_which_side_is_tuned(tmp_path: Path) -> None:
    chats = []
    for base, tuned in ((WRONG, RIGHT), (RIGHT, WRONG)):
        chat = FakeChat(script=good)
        found, _ = run(tmp_path, chat, base=base, tuned=tuned)
        chats.append((set(chat.asked), found.verdict))
    assert chats[0][0] == chats[1][0], "the same questions, whichever side is which"
    assert [verdict for _, verdict in chats] == ["improved", "worse"]


def test_rows_of_one_group_are_one_vote(tmp_path: Path) -> None:
    rows = [replace(row, group=f"g{i // 4}") for i, row in enumerate(TEST)]
    sides = sides_of(scoring_of("judge"), rows, base=["0"] * 24, tuned=[row.expected for row in rows])
    assert marked(good, sides, tmp_path).result.pairs[0].signs.wins == 6


def test_marks_are_no_score_where_the_judge_is_no_metric(tmp_path: Path) -> None:
    found, _ = run(tmp_path, good, metrics="exact_match")
    assert [c.metric for c in found.comparisons] == ["exact_match"]
    assert judge_of(found).pairs[0].judged.outcomes["win"] == 24


# --- outages, money, evidence -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DOWN, REFUSED])
@pytest.mark.parametrize("metrics", ["exact_match, judge", "judge, exact_match"])
def test_a_judge_that_cannot_be_asked_leaves_all_other_scores(tmp_path: Path, error: RunnerError, metrics: str) -> None:
    num_tests = FakeChat(script=good)
    try_judge(judged_plan(), dataset(), answerer_of(judged_plan(), num_tests), tmp_path)
    chat = FakeChat(script=good, error=error, fails_after=len(num_tests.asked) + 10)
    found, answerer = run(tmp_path, chat, metrics=metrics)
    assert answerer.outages == [error]
    assert (judge_of(found).check.reliable, judge_of(found).reliable) == (True, False)
    assert found.verdict == ("improved" if metrics.startswith("exact") else "inconclusive")
    assert (NOT_ASKED in found.text) == metrics.startswith("judge")
    assert found.tuned.unscored["judge"] == 24
    exact = found.tuned.scores["exact_match"]
    assert exact is not None and exact.mean == 1
    assert len(read_lines(tmp_path / "evaluation" / "tuned.jsonl")) == 24
    with pytest.raises(RunnerError) as raised:
        answerer.raise_outages()
    assert raised.value.exit_code == error.exit_code


def test_after_an_outage_only_what_is_missing_is_asked_and_the_result_is_the_same(tmp_path: Path) -> None:
    whole = FakeChat(script=good)
    expected, _ = run(tmp_path / "whole", whole)
    chat = FakeChat(script=good, error=DOWN, fails_after=len(whole.asked) - 7)
    broken, _ = run(tmp_path / "cut", chat)
    assert not judge_of(broken).reliable
    chat.error = None
    again, _ = run(tmp_path / "cut", chat)
    assert sorted(map(str, chat.asked)) == sorted(map(str, whole.asked)), "nothing twice, and nothing left out"
    assert again.comparisons == expected.comparisons and again.text == expected.text
    assert judge_of(again).usd == judge_of(expected).usd


def test_a_judge_that_is_down_from_the_start_is_told_once_and_tested_never(tmp_path: Path) -> None:
    plan = judged_plan()
    answerer = answerer_of(plan, FakeChat(script=good, error=DOWN))
    assert try_judge(plan, dataset(), answerer, tmp_path) is None
    assert answerer.outages == [DOWN]


def test_an_arm_s_outage_does_not_keep_the_judge_from_being_asked(tmp_path: Path) -> None:
    plan, scoring = judged_plan(), scoring_of("judge")
    answerer = answerer_of(plan, good)
    answerer.outages.append(DOWN)
    sides = sides_of(scoring, TEST, base=["0"] * 24, tuned=[row.expected for row in TEST])
    check = try_judge(plan, dataset(), answerer, tmp_path)
    found = judge_sides(plan, answerer, check, sides, tmp_path)
    assert found is not None and found.result.reliable


def test_without_a_judge_nothing_is_asked_or_marked(tmp_path: Path) -> None:
    plan = make_test_plan()
    answerer = answerer_of(plan, good)
    assert try_judge(plan, dataset(), answerer, tmp_path) is None
    assert judge_sides(plan, answerer, None, {}, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_one_cap_holds_for_test_and_comparisons_and_all_is_counted(tmp_path: Path) -> None:
    free, _ = run(tmp_path / "free", good)
    check, (pair,) = judge_of(free).check, judge_of(free).pairs
    assert judge_of(free).usd == pytest.approx(check.judged.usd + pair.judged.usd)
    cap = check.judged.usd + pair.judged.usd / 2
    capped, _ = run(tmp_path / "capped", good, max_usd=cap, max_unscored=1.0)
    assert check.judged.usd < judge_of(capped).usd <= cap
    (half,) = judge_of(capped).pairs
    assert 0 < half.judged.outcomes["unscored"] < 24
    assert capped.tuned.unscored["judge"] == half.judged.outcomes["unscored"]


def test_the_test_of_the_judge_is_kept_as_evidence_and_not_in_the_report(tmp_path: Path) -> None:
    plan = judged_plan()
    check = try_judge(plan, dataset(), answerer_of(plan, good), tmp_path / "gate")
    assert check is not None and check.judged.judgements == ()
    kept = read_lines(tmp_path / "gate" / "judge-test.jsonl")
    assert len(kept) == sum(check.judged.outcomes.values()) > 30
    assert all(record["orders"] for record in kept)


def test_a_judge_of_the_model_s_own_kind_draws_a_warning(tmp_path: Path) -> None:
    kin = replace(PRICED, model="llama-9-2026-01-31")
    plan = judged_plan(endpoint=kin)
    answerer = make_answerer(plan, dataset(), FakeSession(), {kin.model: FakeChat(script=good)})
    check = try_judge(replace(plan, model="llama-1b"), dataset(), answerer, tmp_path)
    assert check is not None and "judge/own-family" in [finding.code for finding in check.findings]
    assert check.reliable, "a warning is no verdict on it"


def test_no_test_row_is_shown_while_the_judge_is_tested(tmp_path: Path) -> None:
    plan, chat = judged_plan(), FakeChat(script=good)
    try_judge(plan, dataset(), answerer_of(plan, chat), tmp_path)
    shown = " ".join(prompt[1].content for prompt in chat.asked)
    assert not any(f"{row.prompt[-1].content}\n" in shown for row in TEST)
