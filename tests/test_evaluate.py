"""Base beside tuned, on answers and losses that a test wrote down."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.backends.base import Side
from runner.conversation import Example
from runner.errors import Exit, RunnerError
from runner.evaluate import Comparison, Evaluation, check_metrics, describe, evaluate, read_answer_schema
from runner.stats import Verdict
from tests.fakes import (
    FakeSession,
    FakeWatch,
    make_comparison,
    make_dataset,
    make_test_plan,
    question,
    questions,
    read_lines,
)

ROWS = questions(30)
PROMPTS = [row.prompt[-1].content for row in ROWS]
RIGHT = dict.fromkeys(PROMPTS, "yes")


def first(count: int, text: str = "yes") -> dict[str, str]:
    """Answers to the first questions; the others are answered with 'no'."""
    return dict.fromkeys(PROMPTS[:count], text)


def compare(
    folder: Path,
    session: FakeSession,
    *,
    rows: tuple[Example, ...] = ROWS,
    metrics: str = "exact_match",
    overrides: tuple[str, ...] = (),
) -> Evaluation:
    plan = make_test_plan(f"eval.metrics=[{metrics}]", *overrides)
    return evaluate(plan, make_dataset(test=rows), session, folder, FakeWatch())


def by_metric(found: Evaluation) -> dict[str, Comparison]:
    return {comparison.metric: comparison for comparison in found.comparisons}


@pytest.mark.parametrize(
    ("base", "tuned", "difference", "verdict"),
    [
        ({}, RIGHT, 1, "improved"),
        (RIGHT, {}, -1, "worse"),
        (RIGHT, RIGHT, 0, "equivalent"),
        (first(10), first(20), 1 / 3, "improved"),
        (first(10), first(12), 2 / 30, "inconclusive"),
    ],
)
def test_a_share_is_better_when_it_is_higher(
    tmp_path: Path, base: Mapping[str, str], tuned: Mapping[str, str], difference: float, verdict: Verdict
) -> None:
    found = compare(tmp_path, FakeSession(answers={"base": base, "tuned": tuned}))
    assert found.comparison.difference == pytest.approx(difference)
    assert found.comparison.tuned - found.comparison.base == pytest.approx(difference)
    assert (found.comparison.verdict, found.comparison.higher_is_better) == (verdict, True)
    assert (found.comparison.rows_needed is not None) == (verdict == "inconclusive")


@pytest.mark.parametrize(("tuned", "verdict"), [(0.5, "improved"), (1.5, "worse"), (1.0, "equivalent")])
def test_a_loss_is_better_when_it_is_lower(tmp_path: Path, tuned: float, verdict: Verdict) -> None:
    losses = {prompt: tuned + 0.01 * (i % 3 - 1) for i, prompt in enumerate(PROMPTS)}
    found = compare(tmp_path, FakeSession(losses={"tuned": losses}), metrics="loss").comparison
    assert found.difference == pytest.approx(tuned - 1)
    assert found.ci_low is not None and found.ci_high is not None
    assert found.ci_low < found.difference < found.ci_high
    assert (found.verdict, found.higher_is_better) == (verdict, False)


def test_swapping_the_sides_mirrors_every_comparison(tmp_path: Path) -> None:
    session = FakeSession(
        answers={"base": first(8), "tuned": first(22)}, losses={"tuned": dict.fromkeys(PROMPTS[:15], 0.2)}
    )
    swapped = FakeSession(
        answers={"base": first(22), "tuned": first(8)}, losses={"base": dict.fromkeys(PROMPTS[:15], 0.2)}
    )
    there, back = (by_metric(compare(tmp_path, s, metrics="exact_match, chrf, loss")) for s in (session, swapped))
    for name, one in there.items():
        assert (back[name].base, back[name].tuned) == (one.tuned, one.base)
        assert back[name].difference == pytest.approx(-one.difference)
        assert (one.verdict, back[name].verdict) == ("improved", "worse")


def test_the_order_of_test_rows_changes_no_comparison(tmp_path: Path) -> None:
    session = FakeSession(answers={"tuned": first(17)})
    there, back = (compare(tmp_path, session, rows=rows, metrics="exact_match, chrf") for rows in (ROWS, ROWS[::-1]))
    assert there.comparisons == back.comparisons
    assert (there.base, there.tuned) == (back.base, back.tuned)


def test_the_first_metric_is_the_primary_one(tmp_path: Path) -> None:
    session = FakeSession(answers={"tuned": RIGHT}, losses={"tuned": dict.fromkeys(PROMPTS, 3.0)})
    by_answers = compare(tmp_path, session, metrics="exact_match, loss")
    by_loss = compare(tmp_path, session, metrics="loss, exact_match")
    assert (by_answers.comparison.verdict, by_loss.comparison.verdict) == ("improved", "worse")
    assert by_loss.comparisons == by_answers.comparisons[::-1]
    assert by_loss.text.startswith("Tuning made it worse. Held-out loss")


def test_every_answer_is_kept_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    session = FakeSession(answers={"tuned": first(3, "はい")}, losses={"tuned": {PROMPTS[0]: math.nan}})
    compare(tmp_path / "evaluation", session, metrics="exact_match, json_valid, chrf, loss")
    base, tuned = (read_lines(tmp_path / "evaluation" / f"{side}.jsonl") for side in ("base", "tuned"))
    assert [record["source"] for record in base] == [row.source for row in ROWS]
    assert [record["id"] for record in tuned] == [row.id for row in ROWS]
    assert tuned[0] == {
        "id": ROWS[0].id,
        "source": "rows.jsonl:1",
        "input": [{"role": "user", "content": "question 0"}],
        "expected": "yes",
        "output": "はい",
        "scores": {
            "exact_match": {"value": 0.0, "reason": None},
            "json_valid": {"value": 0.0, "reason": None},
            "chrf": {"value": 0.0, "reason": None},
            "loss": {"value": None, "reason": "the loss is not a finite number"},
        },
        "prompt_tokens": 2,
        "output_tokens": 2,
        "seconds": 0.5,
        "finish": "stop",
    }


def test_the_evidence_adds_up_to_the_scores(tmp_path: Path) -> None:
    found = compare(tmp_path, FakeSession(answers={"base": first(4), "tuned": first(19)}))
    for side in ("base", "tuned"):
        records = read_lines(tmp_path / f"{side}.jsonl")
        mean = sum(record["scores"]["exact_match"]["value"] for record in records) / len(records)
        assert mean == pytest.approx(getattr(found.comparison, side))
        assert mean == pytest.approx(getattr(found, side).scores["exact_match"].mean)


def test_what_answers_cost_is_measured_by_side(tmp_path: Path) -> None:
    found = compare(tmp_path, FakeSession(answers={"base": dict.fromkeys(PROMPTS, "a b c"), "tuned": first(15, "a b")}))
    assert (found.base.prompt_tokens, found.tuned.prompt_tokens) == (2, 2)
    assert (found.base.output_tokens, found.tuned.output_tokens) == (4, 2.5)
    assert found.tuned.seconds_per_answer == 0.5


@pytest.mark.parametrize(("same", "codes"), [(30, ["eval/identical"]), (29, [])])
def test_answers_that_are_all_the_same_raise_the_alarm(tmp_path: Path, same: int, codes: list[str]) -> None:
    tuned = {**RIGHT, **dict.fromkeys(PROMPTS[same:], "else")}
    found = compare(tmp_path, FakeSession(answers={"base": RIGHT, "tuned": tuned}))
    assert found.identical_share == pytest.approx(same / 30)
    assert [finding.code for finding in found.findings] == codes


def test_tuned_answers_that_do_not_stop_are_found(tmp_path: Path) -> None:
    endless = FakeSession(answers={"tuned": RIGHT}, unfinished=frozenset({"tuned"}))
    (finding,) = compare(tmp_path, endless).findings
    assert finding.code == "eval/does-not-stop"
    assert finding.what == "Only 0% of the tuned answers end by themselves (base 100%)."
    assert compare(tmp_path, replace(endless, unfinished=frozenset({"base"}))).findings == ()


def test_rows_without_a_score_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = (*questions(20, '{"a": 1}'), *(question(f"letter {i}", "Dear Ann") for i in range(10)))
    session = FakeSession(answers={"tuned": dict.fromkeys(PROMPTS, '{"a": 1}')})
    found = compare(tmp_path, session, rows=rows, metrics="field_f1, exact_match")
    fields, exact = found.comparisons
    assert (fields.num_rows, fields.unscored, exact.num_rows, exact.unscored) == (20, 10, 30, 0)
    assert (fields.tuned, fields.verdict) == (1, "improved")
    assert found.tuned.unscored == {"field_f1": 10, "exact_match": 0}
    assert [f.what for f in found.findings] == ["10 rows have no score of 'field_f1' and are left out of it."]


def test_a_row_counts_only_where_both_sides_have_a_score(tmp_path: Path) -> None:
    losses: dict[Side, dict[str, float]] = {"base": {PROMPTS[0]: math.inf}, "tuned": {PROMPTS[1]: math.nan}}
    found = compare(tmp_path, FakeSession(answers={"tuned": RIGHT}, losses=losses), metrics="loss")
    assert (found.comparison.num_rows, found.comparison.unscored) == (28, 2)
    assert (found.base.unscored, found.tuned.unscored) == ({"loss": 1}, {"loss": 1})
    assert found.comparison.base == 1


@pytest.mark.parametrize(
    ("metrics", "what"),
    [
        ("field_f1", "No test row has a score of 'field_f1': the expected answer is not JSON."),
        ("loss", "No test row has a score of 'loss': the loss is not a finite number."),
    ],
)
def test_a_metric_without_one_scored_row_is_a_clear_problem(tmp_path: Path, metrics: str, what: str) -> None:
    session = FakeSession(losses={"tuned": dict.fromkeys(PROMPTS, math.nan)})
    with pytest.raises(RunnerError) as caught:
        compare(tmp_path, session, metrics=metrics)
    (problem,) = caught.value.problems
    assert (problem.code, problem.what, problem.where.key) == ("eval/unscored", what, "eval.metrics")
    assert caught.value.exit_code == Exit.MANIFEST
    assert len(read_lines(tmp_path / "tuned.jsonl")) == 30


def test_a_secondary_metric_without_one_scored_row_is_a_warning_beside_the_verdict(tmp_path: Path) -> None:
    found = compare(tmp_path, FakeSession(answers={"tuned": RIGHT}), metrics="exact_match, field_f1")
    assert [comparison.metric for comparison in found.comparisons] == ["exact_match"]
    assert ("eval/unscored", "warning") in [(problem.code, problem.severity) for problem in found.findings]


def test_a_primary_metric_that_fits_no_expected_answer_is_refused_before_training() -> None:
    plan = make_test_plan("eval.metrics=[field_f1]")
    with pytest.raises(RunnerError) as caught:
        check_metrics(plan, make_dataset())
    assert caught.value.problems[0].code == "eval/unscored"


def test_one_test_row_gives_no_verdict(tmp_path: Path) -> None:
    found = compare(tmp_path, FakeSession(answers={"tuned": RIGHT}), rows=ROWS[:1])
    assert (found.comparison.ci_low, found.comparison.verdict) == (None, "inconclusive")
    assert found.text == "Inconclusive. Exact match: base 0.0 %, tuned 100.0 % on 1 rows, too few for an interval."


@pytest.mark.parametrize(("overrides", "longest"), [((), 25), (("eval.max_new_tokens=7",), 7)])
def test_both_sides_may_answer_a_quarter_longer_than_the_longest_expected_answer_unless_written(
    tmp_path: Path, overrides: tuple[str, ...], longest: int
) -> None:
    session = FakeSession(answers={"tuned": RIGHT})
    found = compare(tmp_path, session, overrides=(*overrides, "eval.batch_size=5"))
    assert found.max_new_tokens == longest
    assert [(s.max_new_tokens, s.batch_size) for s in session.samplings] == [(longest, 5)] * 2


@pytest.mark.parametrize("metric", ["exact_match", "loss"])
def test_samples_show_improved_rows_first_whatever_way_the_metric_points(tmp_path: Path, metric: str) -> None:
    better, worse = PROMPTS[-6:], PROMPTS[:3]
    session = FakeSession(
        answers={"base": dict.fromkeys(worse, "yes"), "tuned": dict.fromkeys(better, "yes")},
        losses={"tuned": {**dict.fromkeys(better, 0.1), **dict.fromkeys(worse, 9.0)}},
    )
    samples = compare(tmp_path, session, metrics=metric).samples
    assert [sample["question"] for sample in samples] == [*better[:4], *PROMPTS[3:5], *worse[:2]]
    tuned_score = 1 if metric == "exact_match" else 0.1
    assert (samples[0]["tuned"], samples[0]["expected"], samples[0]["tuned_score"]) == ("yes", "yes", tuned_score)


@pytest.mark.parametrize(
    ("changes", "margin", "text"),
    [
        (
            {},
            0.05,
            "Tuning helped. Exact match: base 50.0 %, tuned 75.0 %: +25.0 points (95 % interval +15.0 points to "
            "+35.0 points, 60 rows), more than the margin of 5.0 points.",
        ),
        (
            {"tuned": 0.5, "difference": -0.0, "ci_low": -0.01, "ci_high": 0.01, "verdict": "equivalent"},
            0.05,
            "Tuning changed nothing that matters. Exact match: base 50.0 %, tuned 50.0 %: +0.0 points (95 % interval "
            "-1.0 points to +1.0 points, 60 rows), within the margin of 5.0 points.",
        ),
        (
            {"tuned": 0.3, "difference": -0.2, "ci_low": -0.3, "ci_high": -0.1, "verdict": "worse"},
            0.05,
            "Tuning made it worse. Exact match: base 50.0 %, tuned 30.0 %: -20.0 points (95 % interval -30.0 points "
            "to -10.0 points, 60 rows).",
        ),
        (
            {"ci_low": -0.1, "ci_high": 0.6, "verdict": "inconclusive", "rows_needed": 150},
            0.05,
            "Inconclusive. Exact match: base 50.0 %, tuned 75.0 %: +25.0 points (95 % interval -10.0 points to "
            "+60.0 points, 60 rows), which does not clear the margin of 5.0 points. About 150 test rows would "
            "settle it.",
        ),
        (
            {"ci_low": -0.1, "ci_high": 0.6, "verdict": "inconclusive"},
            0,
            "Inconclusive. Exact match: base 50.0 %, tuned 75.0 %: +25.0 points (95 % interval -10.0 points to "
            "+60.0 points, 60 rows), which does not clear the margin of 0.0 points.",
        ),
        (
            {"metric": "loss", "base": 2.0, "tuned": 1.5, "difference": -0.5, "ci_low": -0.6, "ci_high": -0.4},
            0.01,
            "Tuning helped. Held-out loss: base 2.000 nats, tuned 1.500 nats: -0.500 nats (95 % interval -0.600 nats "
            "to -0.400 nats, 60 rows), more than the margin of 0.010 nats.",
        ),
    ],
)
def test_each_verdict_is_said_in_a_sentence(changes: dict[str, Any], margin: float, text: str) -> None:
    assert describe(make_comparison(**changes), margin) == text


def test_a_loss_that_did_not_move_is_no_negative_nothing(tmp_path: Path) -> None:
    found = compare(tmp_path, FakeSession(answers={"tuned": RIGHT}), metrics="loss")
    assert "-0.000" not in found.text and "+0.000 nats to +0.000 nats" in found.text


def schema_of(path: Path | None) -> Mapping[str, Any] | None:
    return read_answer_schema(replace(make_test_plan().eval, json_schema=path))


@pytest.mark.parametrize(
    ("text", "code", "exit_code"),
    [
        (None, "eval/schema-missing", Exit.INPUT_MISSING),
        ("{", "eval/schema-invalid", Exit.MANIFEST),
        ("[" * 100_000, "eval/schema-invalid", Exit.MANIFEST),
        ('{"type": "objekt"}', "eval/schema-invalid", Exit.MANIFEST),
        ("[]", "eval/schema-invalid", Exit.MANIFEST),
    ],
)
def test_a_faulty_schema_of_answers_is_told_with_its_place(
    tmp_path: Path, text: str | None, code: str, exit_code: Exit
) -> None:
    path = tmp_path / "schema.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunnerError) as caught:
        schema_of(path)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where.path, caught.value.exit_code) == (code, str(path), exit_code)


def test_a_sound_schema_of_answers_is_read_and_none_is_none(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "object"}))
    assert schema_of(path) == {"type": "object"}
    assert schema_of(None) is None
