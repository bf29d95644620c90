"""The judge is tested before it is believed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from runner.conversation import Example
from runner.errors import Exit, Problem, RunnerError
from runner.judge import JudgeCheck, Spending, check_judge, prompt_sha256
from runner.judge.check import NUM_GOLD, NUM_IDENTICAL, gold_pairs
from runner.plan import JudgePlan
from tests.fakes import FakeWatch, question, questions, write_rows
from tests.judge.scripted import (
    PLAN,
    PRICED,
    FakeChat,
    Script,
    Shown,
    always_first,
    good,
    longer_wins,
    marks,
    never_sure,
    numbers,
    rubbish,
    slow_learner,
)

ROWS = numbers(60)


def check(
    script: Script | FakeChat, rows: Sequence[Example] = ROWS, plan: JudgePlan = PLAN, *, seed: int = 0
) -> JudgeCheck:
    chat = script if isinstance(script, FakeChat) else FakeChat(script=script)
    return check_judge(plan, chat, rows, seed=seed, watch=FakeWatch())


def errors(found: JudgeCheck) -> list[str]:
    return [f.what for f in found.reasons]


def now_and_then(script: Script, num: int, other: Script, *, only_different: bool = True) -> Script:
    """A judge that acts otherwise in every num-th row that it is shown, by the row's number."""

    def mixed(shown: Shown) -> object:
        number = int(shown.task.split()[-1])
        return (other if number % num == 0 and (shown.a != shown.b or not only_different) else script)(shown)

    return mixed  # type: ignore[return-value]


def human(path: Path, preferred: Sequence[str]) -> JudgePlan:
    """Row i asks what is i; a is right."""
    rows = [
        {"prompt": f"what is {i}", "a": f"{i + 1}", "b": f"{i + 7}", "preferred": said}
        if i % 2
        else {"prompt": f"what is {i}", "a": f"{i + 7}", "b": f"{i + 1}", "preferred": said}
        for i, said in enumerate(preferred)
    ]
    return replace(PLAN, human=write_rows(path / "human.jsonl", rows))


def test_a_good_judge_is_reliable() -> None:
    found = check(good)
    shown = found.figures
    assert found.reliable and found.findings == found.reasons == ()
    assert (shown.gold_wins.num, shown.gold_wins.num_rows, shown.gold_wins.value) == (NUM_GOLD, NUM_GOLD, 1)
    assert (shown.identical_ties.value, shown.identical_ties.num_rows) == (1, NUM_IDENTICAL)
    assert (shown.flips.value, shown.unscored.value, shown.unscored.num_rows) == (0, 0, NUM_GOLD + NUM_IDENTICAL)
    assert shown.agreement is None and shown.kappa is None


def test_a_slow_learner_is_reliable_too() -> None:
    found = check(slow_learner)
    assert found.reliable and found.judged.num_calls == 2 * check(good).judged.num_calls


def test_a_judge_that_always_prefers_the_first_is_not_reliable() -> None:
    found = check(always_first)
    assert not found.reliable and found.figures.flips.value == 1
    assert (found.figures.gold_wins.value, found.figures.identical_ties.value) == (0, 0)
    assert {f.code for f in found.findings} == {"judge/not-reliable"} and len(found.findings) == 3
    flips = next(f for f in found.findings if f.where.key == "eval.judge.max_flips")
    assert "100 % (30 of 30 rows, 95 % interval 88 to 100 %), with 20 % allowed" in flips.what and flips.fix


def test_a_judge_that_prefers_the_longer_fails_on_gold_and_its_length_effect_is_told() -> None:
    found = check(longer_wins)
    assert not found.reliable and [f.where.key for f in found.findings] == ["eval.judge.min_gold_wins"]
    assert found.effects.length.clear and "longer answers win more often" in found.effects.length.text
    assert found.figures.flips.value == 0 and found.figures.identical_ties.value == 1


def test_rubbish_is_all_unscored_and_not_reliable() -> None:
    found = check(rubbish)
    assert not found.reliable and found.figures.unscored.value == 1
    assert (found.figures.gold_wins.value, found.figures.flips.value, found.figures.identical_ties.value) == (
        None,
        None,
        None,
    )
    assert "gave no usable marks in 100 % (35 of 35" in errors(found)[0]
    assert "the reply was no JSON (35)" in errors(found)[0]
    assert [f.code for f in found.findings] == ["judge/not-reliable", "judge/untested"]


def test_a_judge_that_has_no_preference_fails_on_gold_alone() -> None:
    assert [f.where.key for f in check(never_sure).findings] == ["eval.judge.min_gold_wins"]


def test_a_judge_that_misses_identical_answers_is_not_reliable() -> None:
    def partial(shown: Shown) -> str:
        return marks(5, 4) if shown.a == shown.b else good(shown)

    found = check(partial)
    assert not found.reliable and found.figures.identical_ties.value == 0 and found.figures.gold_wins.value == 1
    assert "tied with itself in only 0 % (0 of 5" in errors(found)[0]


def test_identical_answers_are_really_asked_about_once() -> None:
    chat = FakeChat(script=good)
    found = check(chat)
    assert len(chat.asked) == 2 * NUM_GOLD + NUM_IDENTICAL == found.judged.num_calls


@pytest.mark.parametrize(("limit", "reliable"), [(0.9, True), (0.901, False)])
def test_gold_must_win_in_the_share_that_was_asked_for(limit: float, reliable: bool) -> None:
    rows = numbers(30)  # all of them are used; every tenth is lost
    found = check(now_and_then(good, 10, never_sure), rows, replace(PLAN, min_gold_wins=limit))
    assert found.figures.gold_wins.value == 0.9 and found.reliable is reliable


@pytest.mark.parametrize(("limit", "reliable"), [(0.2, True), (0.199, False)])
def test_preferences_may_turn_in_the_share_that_is_allowed(limit: float, reliable: bool) -> None:
    plan = replace(PLAN, max_flips=limit, min_gold_wins=0.5)
    found = check(now_and_then(good, 5, always_first), numbers(30), plan)
    assert found.figures.flips.value == 0.2 and found.reliable is reliable


@pytest.mark.parametrize(("limit", "reliable"), [(0.2, True), (0.17, False)])
def test_rows_may_be_unscored_in_the_share_that_is_allowed(limit: float, reliable: bool) -> None:
    found = check(now_and_then(good, 5, rubbish), numbers(30), replace(PLAN, max_unscored=limit))
    assert (
        found.figures.unscored.num == 6
        and found.figures.gold_wins.value == 1
        and found.figures.gold_wins.num_rows == 24
    )
    assert found.reliable is reliable


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "0 rows gave 0 pairs"),
        (numbers(4), "4 rows gave 4 pairs"),
        (list(questions(50)), "50 rows gave 0 pairs of different answers"),
        ([question(f"what is {i}", " \n") for i in range(50)], "0 rows gave 0 pairs"),
        ([question("what is 1", f"{i}") for i in range(50)], "50 rows gave 0 pairs"),
    ],
)
def test_a_judge_that_cannot_be_tried_is_not_reliable_but_untested(rows: list[Example], said: str) -> None:
    found = check(lambda shown: marks(3, 3), rows)
    assert not found.reliable and found.figures.gold_wins.value is None
    problem = next(f for f in found.findings if f.code == "judge/untested")
    assert problem.severity == "error" and "not reliable: untested" in problem.what and said in problem.what


def test_gold_is_set_against_an_answer_that_says_something_else() -> None:
    rows = [question(f"what is {i}", ("YES", "yes ", "no", "Yes")[i % 4]) for i in range(40)]
    pairs = gold_pairs(rows, 0)
    assert len(pairs) == NUM_GOLD
    assert all((p.first.strip().lower() == "no") != (p.second.strip().lower() == "no") for p in pairs)
    assert all(p.reference is None for p in pairs)


def test_the_expected_answer_is_never_shown_as_reference() -> None:
    seen: list[str | None] = []

    def script(shown: Shown) -> str:
        seen.append(shown.reference)
        return good(shown)

    check(script)
    assert set(seen) == {None}


def test_the_order_of_rows_changes_nothing_and_the_seed_draws_others() -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    assert check(longer_wins) == check(longer_wins, shuffled)
    assert check(longer_wins) == check(longer_wins, [*ROWS, *ROWS[:20]])
    ids = [{j.id for j in check(good, seed=seed).judged.judgements} for seed in (0, 1)]
    assert ids[0] != ids[1]


def test_a_rerun_asks_nothing_and_says_the_same() -> None:
    chat = FakeChat(script=slow_learner)
    first = check(chat)
    num_asked = len(chat.asked)
    again = check(chat)
    assert len(chat.asked) == num_asked and again.judged.num_cached == num_asked
    assert replace(again, judged=first.judged) == first


def test_intervals_are_exact() -> None:
    found = check(now_and_then(good, 10, never_sure), numbers(30)).figures.gold_wins
    ends = stats.binomtest(27, 30).proportion_ci(method="exact")
    assert (found.low, found.high) == (ends.low, ends.high)


def test_tokens_money_and_prompt_are_recorded() -> None:
    found = check(good).judged
    assert found.prompt_sha256 == prompt_sha256(PLAN) and found.snapshots == ("wise-model-2026-01-31",)
    assert found.prompt_tokens > 0 and found.usd is not None and found.usd > 0


def test_the_cap_holds_for_the_check_and_leaves_it_not_reliable() -> None:
    plan = replace(PLAN, max_usd=0.02)
    purse = Spending(PRICED, 0.02)
    found = check_judge(plan, FakeChat(script=good), ROWS, seed=0, watch=FakeWatch(), spending=purse)
    spent = purse.usd(purse.totals)
    assert spent is not None and spent <= 0.02 and not found.reliable
    assert "the judge's cap of $0.02 was reached" in errors(found)[0]


def test_a_cap_without_prices_is_refused() -> None:
    plan = replace(PLAN, max_usd=1.0, endpoint=replace(PRICED, usd_per_million_input=None))
    with pytest.raises(RunnerError) as caught:
        check(good, plan=plan)
    assert caught.value.exit_code == Exit.MANIFEST and caught.value.problems[0].code == "judge/no-prices"


def test_a_refused_key_passes_through() -> None:
    error = RunnerError(Problem(code="chat/key", what="no"), Exit.CREDENTIALS)
    with pytest.raises(RunnerError) as caught:
        check(FakeChat(script=good, error=error))
    assert caught.value is error


def test_a_judge_that_agrees_with_people_is_reliable(tmp_path: Path) -> None:
    found = check(good, plan=human(tmp_path, ["b", "a"] * 15))
    assert found.reliable and found.findings == () and found.figures.kappa == pytest.approx(1)
    assert found.figures.agreement is not None and (found.figures.agreement.num, found.figures.agreement.num_rows) == (
        30,
        30,
    )


def test_a_judge_that_disagrees_with_people_is_not(tmp_path: Path) -> None:
    found = check(good, plan=human(tmp_path, ["a", "b"] * 15))
    assert not found.reliable and found.figures.kappa == pytest.approx(-1) and found.figures.gold_wins.value == 1
    assert "hardly agrees with people: Cohen's kappa -1.00, the same preference in 0 % (0 of 30" in errors(found)[0]


@pytest.mark.parametrize(("num_wrong", "severity"), [(8, None), (10, "warning"), (13, "error")])
def test_weak_agreement_is_a_warning(tmp_path: Path, num_wrong: int, severity: str | None) -> None:
    said = [("a" if i % 2 == 0 else "b") if i < num_wrong else ("b", "a")[i % 2] for i in range(30)]
    found = check(good, plan=human(tmp_path, said))
    assert [f.severity for f in found.findings] == ([severity] if severity else [])
    assert found.reliable is (severity != "error")


@pytest.mark.parametrize("preferred", [["b", "a"], []])
def test_agreement_on_too_few_rows_is_unknown_and_said(tmp_path: Path, preferred: list[str]) -> None:
    found = check(good, plan=human(tmp_path, [*preferred, "b"]))
    assert found.figures.kappa is None and found.figures.agreement is not None and found.figures.agreement.value is None
    assert [(f.code, f.severity) for f in found.findings] == [("judge/human-unknown", "warning")]


def test_agreement_that_chance_would_reach_too_is_unknown_and_said(tmp_path: Path) -> None:
    rows = [{"prompt": f"what is {i}", "a": f"{i + 1}", "b": "no", "preferred": "a"} for i in range(10)]
    plan = replace(PLAN, human=write_rows(tmp_path / "h.jsonl", rows))
    found = check(good, plan=plan)
    assert found.figures.kappa is None and found.figures.agreement is not None and found.figures.agreement.value == 1
    assert "chance" in found.findings[0].what and found.findings[0].severity == "warning"


def test_a_faulty_human_file_ends_it_before_anything_is_asked(tmp_path: Path) -> None:
    chat = FakeChat(script=good)
    with pytest.raises(RunnerError) as caught:
        check(chat, plan=replace(PLAN, human=tmp_path / "none.jsonl"))
    assert caught.value.exit_code == Exit.INPUT_MISSING and chat.asked == []
