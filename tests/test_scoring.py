"""Answers -> scores, figures and evidence, the same for every side and arm."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.conversation import Example, Message
from runner.errors import Exit, RunnerError
from runner.files import file_name
from runner.metrics import Metric, Score
from runner.plan import CustomMetric
from runner.scoring import (
    Scored,
    check_metrics,
    interval_of,
    keep,
    mean_of,
    read_answer_schema,
    read_scoring,
    score,
    summarise,
    unscored_problem,
    with_classes,
)
from tests.evaluate.sides import reply, rows_of, scoring_of, side
from tests.fakes import make_dataset, make_test_plan, question, questions, read_lines

COLOURS = ("red", "green", "blue")
EXPECTED = [COLOURS[i % 3] for i in range(30)]
GIVEN = [COLOURS[(i // 2) % 3] for i in range(30)]
LOSSES = [0.1 * (1 + i % 7) for i in range(30)]
ALL = scoring_of("exact_match", "macro_f1", "loss", "perplexity")


def permuted(scored: Scored) -> Scored:
    """The same rows in another order."""
    order = sorted(range(len(scored.rows)), key=lambda i: (i * 7) % 31)
    return Scored(
        rows=[scored.rows[i] for i in order],
        prompts=[scored.prompts[i] for i in order],
        replies=[scored.replies[i] for i in order],
        items=[scored.items[i] for i in order],
        scores={name: [found[i] for i in order] for name, found in scored.scores.items()},
    )


def test_a_row_without_an_answer_is_unscored_with_the_reason_and_never_wrong() -> None:
    scored = side(ALL, rows_of(["red"] * 6), ["red", None, "red", "red", "blue", "red"], [1.0] * 6)
    for found in scored.scores.values():
        assert found[1] == Score(value=None, reason="no answer: the server said 400")
    assert scored.texts[1] is None
    assert mean_of(ALL, scored, "exact_match") == pytest.approx(4 / 5)
    result = summarise(ALL, scored)
    assert (result.num_rows, result.num_unanswered, result.unscored["exact_match"]) == (6, 1, 1)


def test_what_is_unknown_of_all_answers_is_none_and_what_is_known_of_some_their_mean() -> None:
    replies = [reply("red", prompt_tokens=None), reply("red", prompt_tokens=None, output_tokens=None), reply(None)]
    found = summarise(scoring_of("exact_match"), score(scoring_of("exact_match"), rows_of(["red"] * 3), replies))
    assert (found.prompt_tokens, found.output_tokens, found.seconds_per_answer) == (None, 2, 0.5)
    nobody = side(scoring_of("exact_match"), rows_of(["red"] * 3), [None] * 3)
    silent = summarise(scoring_of("exact_match"), nobody)
    assert (silent.scores, silent.stopped_share, silent.output_tokens) == ({"exact_match": None}, None, None)


def test_answers_that_were_cut_are_counted() -> None:
    replies = [reply("red"), reply("red", finish="length"), reply("red", finish="length"), reply(None)]
    found = summarise(scoring_of("exact_match"), score(scoring_of("exact_match"), rows_of(["red"] * 4), replies))
    assert found.stopped_share == pytest.approx(1 / 3)


def test_a_pooled_metric_is_no_mean_of_rows() -> None:
    scored = side(ALL, rows_of(EXPECTED), GIVEN, LOSSES)
    assert mean_of(ALL, scored, "perplexity") == pytest.approx(math.exp(sum(LOSSES) / 30))
    lopsided = side(ALL, rows_of(["a"] * 27 + ["b"] * 3), ["a"] * 30)
    assert mean_of(ALL, lopsided, "macro_f1") == pytest.approx((2 * 27 / (2 * 27 + 3) + 0) / 2)
    for name in ("macro_f1", "perplexity"):
        interval = interval_of(ALL, scored, name)
        assert interval is not None and interval.low is not None and interval.high is not None
        assert interval.mean == pytest.approx(mean_of(ALL, scored, name))
        assert interval.low < interval.mean < interval.high


def test_some_rows_alone_can_be_read() -> None:
    scored = side(ALL, rows_of(EXPECTED), GIVEN, LOSSES)
    assert mean_of(ALL, scored, "perplexity", [0, 1]) == pytest.approx(math.exp(0.15))
    assert mean_of(ALL, side(ALL, rows_of(EXPECTED), [None] * 30), "macro_f1") is None


@pytest.mark.parametrize("name", ALL.metrics)
def test_the_order_of_rows_changes_no_figure_by_a_bit(name: str) -> None:
    scored = side(ALL, rows_of(EXPECTED, [f"g{i // 3}" for i in range(30)]), GIVEN, LOSSES)
    assert interval_of(ALL, scored, name) == interval_of(ALL, permuted(scored), name)
    assert mean_of(ALL, scored, name) == mean_of(ALL, permuted(scored), name)


@pytest.mark.parametrize("name", ALL.metrics)
def test_rows_that_stand_twice_in_their_group_tell_no_more_than_once(name: str) -> None:
    groups = [f"g{i}" for i in range(30)]
    once = interval_of(ALL, side(ALL, rows_of(EXPECTED, groups), GIVEN, LOSSES), name)
    twice = interval_of(ALL, side(ALL, rows_of(EXPECTED * 2, groups * 2), GIVEN * 2, LOSSES * 2), name)
    alone = interval_of(ALL, side(ALL, rows_of(EXPECTED * 2), GIVEN * 2, LOSSES * 2), name)
    assert once and twice and alone and once.low and twice.low and alone.low and once.high and twice.high
    width = once.high - once.low
    assert (twice.mean, twice.low, twice.high) == pytest.approx((once.mean, once.low, once.high), abs=0.02 * width)
    assert alone.low > once.low + 0.05 * width, "as independent rows they would tell more"


def test_a_metric_that_raises_leaves_the_other_scores_alone(tmp_path: Path) -> None:
    (tmp_path / "scores.py").write_text("def strict(output):\n    return 1 / len(output)\n")
    custom = CustomMetric(name="strict", python="scores:strict", folder=tmp_path, higher_is_better=True, unit="share")
    plan = make_test_plan()
    scoring = read_scoring(
        replace(plan, eval=replace(plan.eval, metrics=("strict", "exact_match"), custom={"strict": custom}))
    )
    assert (scoring.primary, scoring.seed, scoring.resamples) == ("strict", plan.seed, plan.eval.resamples)
    scored = side(scoring, rows_of(["red", "red"]), ["x", ""])
    assert [one.value for one in scored.scores["strict"]] == [1, None]
    assert scored.scores["strict"][1].reason == "raised ZeroDivisionError: division by zero"
    assert [one.value for one in scored.scores["exact_match"]] == [0, 0]


def asked_with_tools() -> Example:
    call = Message(role="assistant", content="", tool_calls='[{"id": "1"}]', trained=False)
    told = Message(role="tool", content="12 °C", tool_call_id="1")
    asked, answer = question("weather?", "cold", source="rows.jsonl:1").messages
    return Example(
        messages=(asked, call, told, answer), source="rows.jsonl:1", tools='[{"name": "f"}]', group="g", label="short"
    )


def test_the_evidence_is_all_that_is_known_of_a_row(tmp_path: Path) -> None:
    scoring = scoring_of("exact_match", "loss")
    row = asked_with_tools()
    keep(tmp_path / "deep" / "arm.jsonl", side(scoring, [row, row], ["はい", None], [math.nan, 1.0]))
    first, second = read_lines(tmp_path / "deep" / "arm.jsonl")
    assert first == {
        "id": row.id,
        "source": "rows.jsonl:1",
        "group": "g",
        "label": "short",
        "input": [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "", "tool_calls": '[{"id": "1"}]', "trained": False},
            {"role": "tool", "content": "12 °C", "tool_call_id": "1"},
        ],
        "tools": '[{"name": "f"}]',
        "expected": "cold",
        "output": "はい",
        "no_answer": None,
        "scores": {
            "exact_match": {"value": 0.0, "reason": None},
            "loss": {"value": None, "reason": "the loss is not a finite number"},
        },
        "prompt_tokens": 4,
        "output_tokens": 2,
        "seconds": 0.5,
        "finish": "stop",
    }
    assert (second["output"], second["no_answer"], second["seconds"]) == (None, "the server said 400", None)


def test_the_evidence_has_what_was_asked_and_not_what_the_row_says(tmp_path: Path) -> None:
    scoring, rows = scoring_of("exact_match"), rows_of(["red"])
    asked = [(Message(role="system", content="One word."), *rows[0].prompt)]
    keep(tmp_path / "arm.jsonl", score(scoring, rows, [reply("red")], prompts=asked))
    (record,) = read_lines(tmp_path / "arm.jsonl")
    assert [turn["content"] for turn in record["input"]] == ["One word.", "question 0"]


@pytest.mark.parametrize(
    ("arm", "name"), [("few_shot", "few_shot"), ("acme/large:8b", "acme-large-8b"), ("../up", "..-up")]
)
def test_an_arm_is_named_on_disk_without_leaving_its_folder(arm: str, name: str) -> None:
    assert file_name(arm) == name


@pytest.mark.parametrize("metrics", ["exact_match, chrf, loss, perplexity, accuracy, macro_f1, judge, stopped"])
def test_metrics_that_fit_the_expected_answers_raise_nothing(metrics: str) -> None:
    judge = "eval.judge={endpoint: {base_url: 'http://x/v1', model: m}, rubric: r}"
    scoring = read_scoring(make_test_plan(f"eval.metrics=[{metrics}]", judge))
    assert check_metrics(scoring, make_dataset(test=questions(30))) == []


def test_a_primary_metric_that_fits_no_expected_answer_is_refused_before_training() -> None:
    with pytest.raises(RunnerError) as caught:
        check_metrics(scoring_of("field_f1", "exact_match"), make_dataset())
    (problem,) = caught.value.problems
    assert (problem.code, problem.where.key, caught.value.exit_code) == ("eval/unscored", "eval.metrics", Exit.MANIFEST)
    assert problem.what == "No row has a score of 'field_f1': the expected answer is not JSON."


def test_a_secondary_metric_that_fits_no_expected_answer_is_a_warning() -> None:
    (problem,) = check_metrics(scoring_of("exact_match", "field_f1"), make_dataset())
    assert (problem.code, problem.severity) == ("eval/unscored", "warning")
    some = (*questions(3, '{"a": 1}'), *questions(20))
    assert check_metrics(scoring_of("field_f1"), make_dataset(test=some)) == []


def test_the_first_reason_tells_why_no_row_has_a_score() -> None:
    scores = [Score(value=None, reason="too odd"), Score(value=None, reason="too even")]
    assert unscored_problem("even", scores).what == "No row has a score of 'even': too odd."


def test_what_metrics_need_from_outside_is_known() -> None:
    own = Metric(score=lambda answer: Score(value=1.0), title="own")
    scoring = scoring_of("perplexity", own=own)
    assert scoring.needs("loss") and not scoring.needs("similarity")


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


def test_a_part_too_small_to_show_its_classes_is_scored_by_those_of_the_whole_data() -> None:
    words = [f"class {i}" for i in range(12)]
    scoring = scoring_of("accuracy")
    dev = rows_of(words * 2)
    assert summarise(scoring, side(scoring, dev, words * 2)).scores["accuracy"] is None
    data = make_dataset(own=tuple(rows_of(words * 10)), dev=tuple(dev), test=tuple(rows_of(words)))
    found = summarise(scoring, side(with_classes(scoring, data), dev, words * 2)).scores["accuracy"]
    assert found is not None and found.mean == 1
