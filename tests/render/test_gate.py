"""The gate as the page tells it: the arms, what they reach, and what to do instead of tuning."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runner.render import render_html
from runner.render.advice import reach, recommended
from runner.render.units import read_units
from tests.render.pages import Report, assert_sound, problem, section, words

LONG = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8-Original-v2"


def shown(report: Report, part: str = "gate") -> str:
    return words(section(render_html(report), part))


def head(report: Report) -> str:
    return words(render_html(report).partition("<section")[0])


def arm(report: Report, name: str) -> Any:
    return next(each for each in report["gate"]["arms"] if each["name"] == name)


# --- good news --------------------------------------------------------------------------------------------------------


def test_a_prompt_that_is_enough_is_good_news_in_the_first_line(enough: Report) -> None:
    page = render_html(enough)
    assert '<div class="banner good" role="status">' in page
    found = head(enough)
    assert "No tuning needed: few_shot reaches the target" in found
    assert "accuracy without tuning 100.0 % by few_shot; 85.0 % is good enough" in found
    assert "dollars for 1,000 requests $0.060 tuned about $0.060" in found
    assert "the whole run was estimated at 24 min 09 s about $0.04" in found
    assert "Not needed: training, evaluation." in found
    assert page.index('id="picture"') < page.index('id="gate"') < page.index('id="problems"')


def test_good_news_is_not_called_an_error(enough: Report) -> None:
    page = render_html(enough)
    for part in ("gate", "problems"):
        text = words(section(page, part))
        assert "result few_shot reaches the target" in text and "error" not in text


def test_what_to_use_instead_is_told_with_its_prompt_and_its_money(enough: Report) -> None:
    text = shown(enough)
    for fact in (
        "Use few_shot instead of tuning",
        "What it is the same 3 training examples in every prompt",
        "100.0 % of accuracy; 85.0 % is good enough",
        "1,000 requests cost $0.060, by the prices in roi.tuned",
        "A month of 200,000 requests $12.00; tuned $12.00",
        "The prompt to use Sort the message into one class.",
        "gate/few_shot.jsonl",
    ):
        assert fact in text


def test_the_file_of_a_model_s_requests_is_named_as_it_is_on_the_disk(enough: Report) -> None:
    arm(enough, "few_shot")["name"] = enough["gate"]["enough"] = "org/model:v1"
    assert "gate/org-model-v1.jsonl" in shown(enough)


def test_a_written_instruction_is_the_prompt_to_use(enough: Report) -> None:
    enough["manifest"]["values"]["gate"]["instruction"] = "Answer with one class and nothing else."
    assert "Answer with one class" not in shown(enough)
    enough["gate"]["enough"] = "instruction"
    text = shown(enough)
    assert "Use instruction instead of tuning" in text
    assert "The prompt to use Answer with one class and nothing else. It stands whole" in text


def test_without_prices_the_money_is_called_unknown(enough: Report) -> None:
    enough["gate"]["tuned_usd_per_1000"] = None
    for each in enough["gate"]["arms"]:
        each["usd_per_1000"] = None
    enough["cost"]["estimate"]["usd"] = None
    page = render_html(enough)
    assert_sound(page)
    text = words(section(page, "gate"))
    assert "1,000 requests cost unknown" in text and "unknown: the manifest gives no roi" in text
    assert "The whole run was estimated at unknown: no price of the machine is given" in text
    assert "A month of" not in text


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("prompting_enough", "No tuning needed: a prompt is enough."),
        ("prompting_cheaper", "No tuning needed: a prompt is good enough, and tuning would not pay back."),
        ("retrieval_enough", "No tuning needed: retrieved examples are enough."),
    ],
)
def test_each_good_verdict_is_said_in_a_sentence(enough: Report, verdict: str, sentence: str) -> None:
    enough["verdict"] = enough["gate"]["verdict"] = verdict
    assert f"{verdict} {sentence}" in shown(enough)
    assert re.search(r'<p><span class="chip good">\w+</span> <b>No tuning needed', render_html(enough))


@pytest.mark.parametrize(
    ("verdict", "tone", "sentence"),
    [
        ("need_data", "warn", "No: there is too little data."),
        ("inconclusive", "warn", "Not decided: what was measured does not tell."),
        ("try_retrieval", "warn", "No: retrieval is the better tool for this."),
        ("try_prompting", "warn", "No: try better prompts first."),
        ("fine_tune", "calm", "Yes: nothing stood in its way."),
        ("skipped", "warn", "The gate was skipped."),
    ],
)
def test_every_other_verdict_is_no_good_news(enough: Report, verdict: str, tone: str, sentence: str) -> None:
    enough["verdict"] = enough["gate"]["verdict"] = verdict
    enough["gate"]["enough"] = None
    page = render_html(enough)
    assert f'<span class="chip {tone}">{verdict}</span> <b>{sentence}</b>' in page
    assert "Use few_shot" not in page and "No tuning needed" not in page


# --- which arm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "low", "high", "found"),
    [
        ("accuracy", 0.85, 0.95, "reached"),
        ("accuracy", 0.84, 0.95, "open"),
        ("accuracy", 0.5, 0.85, "open"),
        ("accuracy", 0.5, 0.84, "missed"),
        ("accuracy", None, None, "open"),
        ("loss", 0.5, 0.85, "reached"),
        ("loss", 0.5, 0.86, "open"),
        ("loss", 0.86, 0.9, "missed"),
    ],
)
def test_an_arm_reaches_the_target_with_its_whole_interval(
    enough: Report, metric: str, low: float | None, high: float | None, found: str
) -> None:
    measured = arm(enough, "few_shot")
    measured["side"]["scores"][metric] = {"mean": 0.7, "low": low, "high": high}
    target = {"metric": metric, "value": 0.85, "origin": "default"}
    assert reach(measured, target, read_units(enough)) == found
    assert reach(measured | {"side": None}, target, read_units(enough)) is None


def test_the_arm_to_use_is_the_one_that_the_gate_names(enough: Report) -> None:
    assert (recommended(enough["gate"]) or {})["name"] == "few_shot"
    enough["gate"]["enough"] = "nearest"
    assert (recommended(enough["gate"]) or {})["name"] == "nearest"
    text = shown(enough)
    assert "nearest use this the 3 training examples nearest" in text and text.count("use this") == 1


def test_where_the_gate_does_not_advise_against_tuning_no_arm_is_recommended(enough: Report) -> None:
    assert recommended(enough["gate"] | {"verdict": "fine_tune", "enough": None}) is None


# --- the arms ---------------------------------------------------------------------------------------------------------


def test_each_arm_is_shown_with_its_score_its_tokens_its_time_and_its_money(report: Report) -> None:
    text = shown(report)
    assert "nearest best the 3 training examples nearest to each question (BM25) retrieval 10.8 % 3.1 to 24.6" in text
    assert "below the target 358.9 38.1 1.37 $0.20" in text
    assert "Prices: the prices in roi.tuned: it is served like the tuned model." in text
    assert "Target exact match 95.0 %, derived: the best there can be, less eval.margin" in text
    assert "Smallest gain that the test rows show 21.3 points of exact match, in four runs out of five" in text
    assert "valid JSON" in text and "2.301 nats 2.214 to 2.391" in text


def test_an_arm_that_was_left_out_says_why(report: Report) -> None:
    arm(report, "nearest").update(side=None, left_out="it would cost about $0.02, and $0.01 are left")
    page = render_html(report)
    assert_sound(page)
    assert "retrieval left out it would cost about $0.02, and $0.01 are left" in words(section(page, "gate"))
    assert "nearest best un-tuned left out" in words(section(page, "picture"))


def test_what_is_not_known_of_an_arm_is_called_unknown(report: Report) -> None:
    measured = arm(report, "nearest")
    measured["usd_per_1000"] = None
    measured["side"] |= dict.fromkeys(("prompt_tokens", "output_tokens", "seconds_per_answer"))
    measured["side"] |= {"num_unanswered": 5, "unscored": {"exact_match": 6}}
    text = shown(report)
    assert "below the target 5 of 37 unanswered 6 without a score unknown unknown unknown unknown" in text


def test_a_free_check_s_gate_has_no_arms_and_no_picture(report: Report) -> None:
    report["gate"] |= {"arms": [], "best": None, "target": None, "detectable": None}
    report |= {"evaluation": None, "roi": None}
    page = render_html(report)
    assert_sound(page)
    assert 'id="picture"' not in page
    assert "Target none: no metric has a best value" in words(section(page, "gate"))
    assert "cannot be said beforehand" in words(section(page, "gate"))


def test_ten_arms_with_long_names_are_all_there(report: Report) -> None:
    names = [f"{LONG[:58]}-{i}" for i in range(6)]
    report["gate"]["arms"] += [arm(report, "nearest") | {"name": name, "kind": "model"} for name in names]
    page = render_html(report)
    assert_sound(page)
    for part in ("picture", "gate"):
        text = words(section(page, part))
        assert [name for name in names if name not in text] == []
    assert "other model" in words(section(page, "gate"))


def test_a_lenient_gate_that_found_nothing_has_nothing_to_excuse(report: Report) -> None:
    report["gate"] |= {"policy": "warn", "reason": "See ticket 812."}
    assert "The run went on all the same." not in render_html(report)


def test_a_gate_that_says_no_under_a_lenient_policy_shows_why_the_run_went_on(report: Report) -> None:
    report["gate"] |= {"verdict": "need_data", "says_no": True, "policy": "warn", "reason": "See ticket 812."}
    report["gate"]["text"] = "10 rows are too few."
    text = shown(report)
    assert "No: there is too little data. 10 rows are too few. The run went on all the same." in text
    assert "See ticket 812." in text


def test_what_the_judge_s_test_found_is_not_told_twice(unjudged: Report) -> None:
    finding = problem("The judge is not reliable: it gave up.", code="judge/not-reliable")
    unjudged["gate"]["judge"]["findings"] = [finding]
    unjudged["gate"]["findings"] = [finding, problem("Something else.")]
    assert "it gave up" not in shown(unjudged) and "Something else." in shown(unjudged)
