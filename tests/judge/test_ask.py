"""Both orders, one retry, a cap: what becomes of each pair."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest

from runner.backends.base import Reply
from runner.conversation import Completion
from runner.errors import Exit, Interrupted, Problem, RunnerError
from runner.judge import Judged, Pair, Spending, prompt_sha256
from tests.fakes import FakeWatch
from tests.judge.scripted import (
    PLAN,
    PRICED,
    FakeChat,
    Script,
    Shown,
    always_first,
    good,
    judged,
    longer_wins,
    marks,
    never_sure,
    pair,
    right_and_wrong,
    rubbish,
    slow_learner,
)


def outcomes(found: Judged) -> list[str]:
    return [j.outcome for j in found.judgements]


def by_text(**given: int) -> Script:
    """Marks an answer by what it says."""
    return lambda shown: marks(given[shown.a], given[shown.b])


def by_order(when_a: tuple[int, int], when_b: tuple[int, int]) -> Script:
    """Marks (of x, of y) as they depend on whether x is A or B."""

    def script(shown: Shown) -> str:
        x, y = when_a if shown.a == "x" else when_b
        return marks(x, y) if shown.a == "x" else marks(y, x)

    return script


def test_a_good_judge_finds_the_right_answers() -> None:
    found = judged(good, right_and_wrong(12))
    assert outcomes(found) == ["win" if i % 3 else "loss" for i in range(12)]
    assert found.outcomes == {"win": 8, "loss": 4, "tie": 0, "inconsistent": 0, "unscored": 0}
    assert (found.flip_rate, found.waver_rate, found.unscored_share) == (0, 0, 0)


@pytest.mark.parametrize(
    ("when_a", "when_b", "outcome", "wavers"),
    [
        ((5, 1), (2, 1), "win", False),
        ((1, 2), (3, 5), "loss", False),
        ((3, 3), (1, 1), "tie", False),
        ((5, 1), (3, 3), "tie", True),
        ((3, 3), (1, 5), "tie", True),
        ((5, 1), (3, 4), "inconsistent", False),
        ((1, 5), (5, 1), "inconsistent", False),
    ],
)
def test_an_outcome_needs_both_orders(
    when_a: tuple[int, int], when_b: tuple[int, int], outcome: str, wavers: bool
) -> None:
    found = judged(by_order(when_a, when_b), [pair(1, "x", "y")])
    one = found.judgements[0]
    assert (one.outcome, one.wavers) == (outcome, wavers)
    assert one.first_mark == pytest.approx((when_a[0] + when_b[0] - 2) / 8)
    assert one.second_mark == pytest.approx((when_a[1] + when_b[1] - 2) / 8)
    assert {(o.a, o.first, o.second) for o in one.orders} == {("first", *when_a), ("second", *when_b)}
    assert (found.flip_rate, found.waver_rate) == (outcome == "inconsistent", wavers)


def test_marks_are_shares_of_the_scale() -> None:
    found = judged(by_text(x=3, y=11), [pair(1, "x", "y")], replace(PLAN, scale=11)).judgements[0]
    assert (found.first_mark, found.second_mark) == (0.2, 1.0)


def test_a_judge_that_always_prefers_the_first_is_inconsistent_everywhere() -> None:
    found = judged(always_first, right_and_wrong(10))
    assert found.outcomes["inconsistent"] == 10 and found.flip_rate == 1
    assert all(j.first_mark == j.second_mark == 0.5 for j in found.judgements)


def test_equal_answers_tie_without_a_call() -> None:
    chat = FakeChat(script=always_first)
    found = judged(chat, [pair(1, "same", "same"), pair(2, " same\n", "same"), pair(3, "", " ")])
    assert chat.asked == [] and chat.batches == [] and outcomes(found) == ["tie"] * 3
    assert found.judgements[0].first_mark is None and found.flip_rate is None and found.unscored_share == 0


def test_no_pairs_are_no_figures() -> None:
    found = judged(good, [])
    assert found.judgements == () and (found.flip_rate, found.waver_rate, found.unscored_share) == (None,) * 3
    assert found.usd == 0 and found.snapshots == ()


def test_rubbish_is_asked_twice_and_then_unscored_with_the_reason() -> None:
    chat = FakeChat(script=rubbish)
    found = judged(chat, [pair(i, "x", "y") for i in range(3)])
    assert len(chat.asked) == len(set(chat.asked)) == 12  # a retry is another request to whoever keeps replies
    assert outcomes(found) == ["unscored"] * 3 and found.unscored_share == 1 and found.flip_rate is None
    assert found.unscored_reasons == {"the reply was no JSON": 3}
    one = found.judgements[0]
    assert (one.first_mark, one.second_mark, one.unscored) == (None, None, "the reply was no JSON")
    assert [[a.raw for a in o.attempts] for o in one.orders] == [[rubbish_text := "I like both of them."] * 2] * 2
    assert rubbish_text not in "".join(turn.content for prompt in chat.asked for turn in prompt)


def test_a_slow_learner_is_fine_on_the_retry() -> None:
    chat = FakeChat(script=slow_learner)
    pairs = right_and_wrong(6)
    found = judged(chat, pairs)
    assert outcomes(found) == outcomes(judged(good, pairs)) and found.num_calls == 24
    assert [[a.fault for a in o.attempts] for o in found.judgements[0].orders] == [["the reply was no JSON", None]] * 2
    assert all("could not be used: the reply was no JSON." in p[1].content for p in chat.asked[12:])


def test_the_second_reply_is_the_last_word() -> None:
    def worse(shown: Shown) -> str:
        return marks(9, 1) if shown.is_retry else rubbish(shown)

    found = judged(worse, [pair(1, "x", "y")])
    assert found.num_calls == 4 and found.judgements[0].unscored == '"a" was no whole number from 1 to 5'


def test_marks_out_of_range_are_told_and_asked_again() -> None:
    chat = FakeChat(script=lambda shown: marks(5, 1) if shown.is_retry and shown.a == "x" else marks(0, 1))
    one = judged(chat, [pair(1, "x", "y")]).judgements[0]
    assert one.outcome == "unscored"  # one good order is not enough
    assert (one.first_mark, one.second_mark) == (None, None)
    assert {o.fault for o in one.orders} == {None, '"a" was no whole number from 1 to 5'}


def test_a_request_without_an_answer_is_unscored_with_the_servers_reason_and_not_asked_again() -> None:
    chat = FakeChat(script=lambda shown: None if shown.a == "x" else marks(1, 2))
    one = judged(chat, [pair(1, "x", "y"), pair(2, "p", "q")]).judgements
    assert [j.outcome for j in one] == ["unscored", "inconsistent"] and len(chat.asked) == 4
    assert one[0].unscored == "the server said 400"


@pytest.mark.parametrize("script", [good, always_first, longer_wins, slow_learner, rubbish, never_sure])
@pytest.mark.parametrize("max_usd", [None, 0.02])
def test_the_order_of_rows_changes_nothing(script: Script, max_usd: float | None) -> None:
    pairs = right_and_wrong(30)
    shuffled = random.Random(3).sample(pairs, len(pairs))
    plan = replace(PLAN, max_usd=max_usd)
    there, back = judged(script, pairs, plan), judged(script, shuffled, plan)
    assert {j.id: j for j in there.judgements} == {j.id: j for j in back.judgements}
    assert [j.id for j in back.judgements] == [p.id for p in shuffled]
    assert replace(there, judgements=()) == replace(back, judgements=())


@pytest.mark.parametrize("script", [good, always_first, longer_wins, slow_learner, rubbish, never_sure])
@pytest.mark.parametrize("max_usd", [None, 0.02])
def test_swapping_the_sides_mirrors_every_outcome_exactly(script: Script, max_usd: float | None) -> None:
    pairs = [*right_and_wrong(20), pair(50, "It is 51 so it is", "It is 7"), pair(51, "same", "same")]
    swapped = [replace(p, first=p.second, second=p.first) for p in pairs]
    plan = replace(PLAN, max_usd=max_usd)
    chat = FakeChat(script=script)
    there = judged(chat, pairs, plan)
    num_asked = len(chat.asked)
    back = judged(chat, swapped, plan)
    assert len(chat.asked) == num_asked  # the same questions, whichever way round
    mirrored = {"win": "loss", "loss": "win"}
    for one, other in zip(there.judgements, back.judgements, strict=True):
        assert other.outcome == mirrored.get(one.outcome, one.outcome)
        assert (other.first_mark, other.second_mark) == (one.second_mark, one.first_mark)
        assert (other.reasons, other.unscored) == (one.reasons, one.unscored)
        assert [o.a for o in other.orders] != [o.a for o in one.orders] or not one.orders
    assert (there.flip_rate, there.unscored_share) == (back.flip_rate, back.unscored_share)


def test_one_question_in_two_rows_is_asked_once() -> None:
    chat = FakeChat(script=good)
    found = judged(chat, [pair(1, "2", "3"), replace(pair(1, "3", "2"), id="twin"), pair(1, "2", "3")])
    assert outcomes(found) == ["win", "loss", "win"] and len(chat.asked) == 2
    assert [j.id for j in found.judgements] == ["row 1", "twin", "row 1"]


def test_a_rerun_asks_nothing_and_says_the_same() -> None:
    chat = FakeChat(script=slow_learner)
    pairs = right_and_wrong(10)
    first = judged(chat, pairs)
    num_asked = len(chat.asked)
    again = judged(chat, pairs)
    assert len(chat.asked) == num_asked == first.num_calls == again.num_cached
    assert replace(again, num_cached=0, new_usd=first.new_usd) == first
    assert first.new_usd == first.usd and again.new_usd == 0


def test_another_seed_asks_with_other_words_and_finds_the_same() -> None:
    chat = FakeChat(script=good)
    pairs = right_and_wrong(5)
    assert outcomes(judged(chat, pairs)) == outcomes(judged(chat, pairs, seed=1)) and len(chat.asked) == 20


def test_tokens_money_snapshots_and_the_prompts_digest_are_recorded() -> None:
    chat = FakeChat(script=good, models=("wise-1", None, "wise-2"))
    found = judged(chat, right_and_wrong(4))
    replies = [reply.completion for reply in chat.kept.values()]
    num_read, num_written = (sum(getattr(r, n) for r in replies) for n in ("prompt_tokens", "output_tokens"))
    assert (found.prompt_tokens, found.output_tokens, found.num_calls) == (num_read, num_written, 8)
    assert found.usd == pytest.approx((2 * num_read + 8 * num_written) / 1e6) and found.num_uncounted == 0
    assert found.snapshots == ("wise-1", "wise-2") and found.prompt_sha256 == prompt_sha256(PLAN)


def test_unknown_prices_are_an_unknown_cost() -> None:
    plan = replace(PLAN, endpoint=replace(PRICED, usd_per_million_output=None))
    found = judged(good, right_and_wrong(2), plan)
    assert found.usd is None and found.new_usd is None and found.prompt_tokens > 0


def test_two_comparisons_with_one_purse_each_say_what_they_took() -> None:
    purse = Spending(PRICED, None)
    first, second = (judged(good, right_and_wrong(n), cap=purse) for n in (3, 6))
    assert (first.num_calls, second.num_calls, purse.totals.num_calls) == (6, 12, 18)
    assert first.usd is not None and second.usd is not None
    assert first.usd + second.usd == pytest.approx(purse.usd(purse.totals))


def test_a_cap_without_prices_is_refused_before_anything_is_asked() -> None:
    chat = FakeChat(script=good)
    plan = replace(PLAN, max_usd=1.0, endpoint=replace(PRICED, usd_per_million_input=None))
    with pytest.raises(RunnerError) as caught:
        judged(chat, right_and_wrong(2), plan)
    assert caught.value.exit_code == Exit.MANIFEST and chat.asked == []
    assert [(p.code, p.where.key) for p in caught.value.problems] == [("judge/no-prices", "eval.judge.max_usd")]


@pytest.mark.parametrize("max_usd", [0.0005, 0.01, 0.02, 0.05])
def test_the_cap_is_kept_and_rows_beyond_it_are_unscored(max_usd: float) -> None:
    pairs = right_and_wrong(60)
    whole = judged(good, pairs).usd
    found = judged(good, pairs, replace(PLAN, max_usd=max_usd))
    left_out = [j for j in found.judgements if j.outcome == "unscored"]
    assert whole is not None and whole > 0.05 and found.usd is not None
    assert len(left_out) > 0 and (found.usd > 0.8 * max_usd or max_usd < 0.01)
    assert found.usd <= max_usd
    assert {j.unscored for j in left_out} == {f"the judge's cap of ${max_usd:g} was reached"}
    assert found.num_calls == 2 * (60 - len(left_out)) and all(not j.orders for j in left_out)


def test_a_cap_that_suffices_leaves_nothing_out() -> None:
    pairs = right_and_wrong(40)
    chat = FakeChat(script=good)
    free, capped = judged(good, pairs), judged(chat, pairs, replace(PLAN, max_usd=1.0))
    assert capped == free and len(chat.batches) > 1


def test_a_cap_that_allows_no_retry_says_both_reasons() -> None:
    one = [pair(1, "x", "y")]
    first_try = judged(never_sure, one).usd
    assert first_try is not None
    plan = replace(PLAN, max_usd=0.005)
    assert first_try < 0.005
    dear = FakeChat(
        script=lambda shown: Completion(text="no", prompt_tokens=400, output_tokens=200, seconds=0.1, finish="stop")
    )
    found = judged(dear, one, plan)
    assert found.num_calls == 2
    assert found.judgements[0].unscored == "the reply was no JSON; the judge's cap of $0.005 was reached"


def test_a_run_that_goes_on_stops_at_the_cap_where_it_would_have_stopped() -> None:
    pairs, plan = right_and_wrong(60), replace(PLAN, max_usd=0.02)
    whole = judged(good, pairs, plan)
    refused = RunnerError(Problem(code="x/y", what="gone"), Exit.UNAVAILABLE)
    chat = FakeChat(script=good, error=refused, fails_after=11)
    with pytest.raises(RunnerError):
        judged(chat, pairs, plan)
    chat.error = None
    again = judged(chat, pairs, plan)
    assert again.judgements == whole.judgements and again.usd == whole.usd
    assert again.num_cached == 11 and len(chat.asked) == whole.num_calls


def test_a_judge_that_costs_more_than_expected_is_found_out_at_the_first_row() -> None:
    def thinker(shown: Shown) -> Completion:
        return Completion(text=good(shown), prompt_tokens=400, output_tokens=2000, seconds=0.1, finish="stop")

    found = judged(thinker, right_and_wrong(60), replace(PLAN, max_usd=0.2))
    assert found.usd is not None and 0.1 < found.usd <= 0.2
    tight = judged(thinker, right_and_wrong(60), replace(PLAN, max_usd=0.02))
    assert tight.num_calls == 2


def test_halves_of_characters_in_a_reply_do_not_reach_the_evidence() -> None:
    found = judged(
        lambda shown: '{"reason": "\\ud800", "a": 1, "b": 2}' + "\ud800" * (not shown.is_retry), [pair(1, "x", "y")]
    )
    text = json.dumps(asdict(found), ensure_ascii=False, allow_nan=False).encode().decode()
    assert json.loads(text)["judgements"][0]["outcome"] == "inconsistent" and "\ufffd" in text


@pytest.mark.parametrize("counted", [0, None])
def test_a_server_that_counts_no_tokens_is_still_held_to_the_cap(counted: int | None) -> None:
    def uncounted(shown: Shown) -> Completion:
        return Completion(
            text=good(shown), prompt_tokens=counted, output_tokens=counted or 9, seconds=0.1, finish="stop"
        )

    found = judged(uncounted, right_and_wrong(60), replace(PLAN, max_usd=0.02))
    assert 0 < found.outcomes["unscored"] < 60
    assert found.usd is None and found.num_uncounted == found.num_calls > 0


@pytest.mark.parametrize("exit_code", [Exit.CREDENTIALS, Exit.UNAVAILABLE])
def test_a_refused_key_and_a_dead_server_pass_through(exit_code: Exit) -> None:
    error = RunnerError(Problem(code="chat/gone", what="gone"), exit_code)
    with pytest.raises(RunnerError) as caught:
        judged(FakeChat(script=good, error=error), right_and_wrong(3))
    assert caught.value is error


def test_a_run_that_was_asked_to_stop_asks_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: FakeWatch) -> None:
        raise Interrupted("evaluate")

    monkeypatch.setattr(FakeWatch, "check", stop)
    chat = FakeChat(script=good)
    with pytest.raises(Interrupted):
        judged(chat, right_and_wrong(3))
    assert chat.asked == []


def test_the_reference_is_shown_where_there_is_one() -> None:
    seen: list[str | None] = []

    def script(shown: Shown) -> str:
        seen.append(shown.reference)
        return marks(1, 1)

    judged(script, [pair(1, "x", "y", reference="z"), pair(2, "x", "y", reference=""), pair(3, "x", "y")])
    assert sorted(map(str, seen)) == ["", "", "None", "None", "z", "z"]


def test_a_chat_that_loses_replies_is_our_bug() -> None:
    class Short(FakeChat):
        def complete(self, *args: object, **kwargs: object) -> list[Reply]:
            return []

    pairs: Sequence[Pair] = [pair(1, "x", "y")]
    with pytest.raises(ValueError, match="shorter"):
        judged(Short(script=good), pairs)
