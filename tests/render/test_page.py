"""The whole page: sound, self-contained, with its key facts, whatever parts the run came to."""

from __future__ import annotations

import copy
import re

import pytest

from runner.render import render_html
from tests.render.pages import (
    KEPT,
    Report,
    assert_sound,
    assert_valid,
    headings,
    outline,
    read_report,
    section,
    words,
)


@pytest.mark.parametrize("name", KEPT)
def test_every_report_that_is_kept_is_valid_and_drawn_soundly(name: str) -> None:
    assert_valid(read_report(name))
    page = render_html(read_report(name))
    assert_sound(page)
    assert len(outline(page).rows) > 3


def test_the_report_of_these_tests_is_valid(report: Report) -> None:
    assert_valid(report)
    assert_sound(render_html(report))


@pytest.mark.parametrize("name", KEPT)
def test_the_page_has_no_script_and_fetches_nothing(name: str) -> None:
    page = render_html(read_report(name))
    for tag, attributes in outline(page).elements:
        assert tag not in {"script", "link", "img", "iframe", "object", "base"}
        assert not {"src", "srcset", "href", "xlink:href"} & attributes.keys()
        assert not [attribute for attribute in attributes if attribute.startswith("on")]
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page


def test_the_page_follows_the_reader_s_light_or_dark_and_prints(report: Report) -> None:
    page = render_html(report)
    assert "@media screen and (prefers-color-scheme: dark)" in page
    assert "@media print" in page


@pytest.mark.parametrize(
    ("part", "facts"),
    [
        ("picture", ["by exact match", "On 37 dev rows, before tuning", "nearest best un-tuned", "On 75 test rows"]),
        ("picture", ["58.7 % 48.0 to 69.3", "target 95.0 %", "derived: the best there can be, less eval.margin"]),
        ("evaluation", ["exact match", "58.7 %", "+49.3 points", "+38.6 to +60.0", "held-out loss", "lower is better"]),
        ("evaluation", ["38 better, 1 worse", "margin of 5.0 points", "decides", "21.3 points of exact match"]),
        ("evaluation", ["155.9", "0.65 s", "84.0 %", "Dollars for 1,000 requests $0.20 $0.20 $0.20"]),
        ("samples", ["thermos leaks from the lid.", "I'm sorry to hear about thermos.", "✗ wrong", "✓ right"]),
        ("roi", ["It pays back in 5.6 months", "$19.20", "$12.00", "$7.20", "$40.02", "$46.38", "Net over 12 months"]),
        ("roi", ["Requests a month 60,000 --set", "Today: price of a million input tokens $0.40 quickstart.yaml:34"]),
        ("roi", ["Tuned: output tokens of an answer 22.9 measured on the tuned model"]),
        ("training", ["lora", "57", "6 min 53 s", "81,332", "197.1 tokens/s", "4,884,480, 3.5 % of all"]),
        ("training", ["float32", "cpu", "Last training loss 0.244 nats", "Dev loss of the result 0.250 nats"]),
        ("training", ["Steps 57", "Weights used those of step 57, the last", "Epochs 1.5", "17,080, 21.0 %"]),
        ("training", ["Processes 1", f"SHA-256 of its weights {'9c41f0e7a2b8d365' * 4}", "dev loss fell from 2.187"]),
        ("training", ["Available 14.4 GiB", "Estimate 2.2 GiB, 3.8 % above the peak", "Memory of the machine"]),
        ("training", ["Peak 2.1 GiB, 14.4 % of available", "Left free at the peak 12.3 GiB", "at most 2,048 tokens"]),
        ("training", ["a formula, then a trial step", "Activation checkpointing off", "[train/resumed]"]),
        ("model", ["smollm2-135m-instruct", "134,515,584", "apache-2.0", "8,192 tokens"]),
        ("data", ["✓ every one of 2,100 rows accounted for", "9 rows were withheld", "✓ tokens counted exactly"]),
        ("data", ["prompt_completion 200 of 201 rows looked at", "1,423 1,357 33 14 19", "general rows columns named"]),
        ("data", ["All files 2,100 1,986 57 21 36", "11 could not be used; 25 were left out by the split"]),
        ("data", ["not JSON 8", "longer than max_length 3", "a byte-order mark 22", "110,003 bytes, SHA-256 5d5d5d5d"]),
        ("data", ["Train 1,702 rows, 310 of them general", "Groups of like questions 1,990", "near-duplicates 27"]),
        ("data", ["Withheld from every part 9 rows", "Together late 811 51 115 977", "damaged 581 67 129 777"]),
        ("data", ["In all 210,987 tokens", "With a loss 29.3 %, 61,871 tokens", "Trained on in an epoch 175,432"]),
        ("data", ["0.1 % of rows exceed 231 tokens: 3 of 2,092", "Longest answer 58 tokens", "Median row 97 tokens"]),
        ("data", ["90 % of rows have at most 155 tokens", "at most 199 tokens", "Longest row 224 tokens"]),
        ("data", ["Of 1,754 rows", "Distinct 1,749, 99.7 % 5, 0.3 %", "pairs of words, of those in a sample 64.6 %"]),
        ("data", ["where is my 41", "damaged 772", "tickets.jsonl:1207 12 of 46 characters trained on"]),
        ("data", ["Findings warning 11 of 2,100 rows could not be used.", "[data/dropped]"]),
        ("gate", ["nothing stood in its way", "enforce", "format", "Fix: Expect a gain", "[gate/few-rows]"]),
        ("cost", ["Low estimate 12 min 17 s $0.02", "High estimate 1 h 06 min $0.11", "Actual 10 min 39 s $0.02"]),
        ("cost", ["43,588 tokens for the gate's arms, 81,332 to train on and 53,417 to evaluate"]),
        ("problems", ["warning", "304 rows to train on", "Fix: Expect a gain", "data.train"]),
        ("record", ["hyperparameters.learning_rate 0.001 derived: adapters", "data.split.dev 0.1 default"]),
        ("record", ["eval.max_new_tokens – measured", "--set roi.requests_per_month=60000", "packages.torch 2.11.0"]),
        ("record", ["cuda none", "together 10 min 39 s", "wandb sync runs/quickstart"]),
    ],
)
def test_each_section_has_its_key_facts(report: Report, part: str, facts: list[str]) -> None:
    text = words(section(render_html(report), part))
    assert [fact for fact in facts if fact not in text] == []


def test_the_head_says_what_was_asked_and_what_came_out(report: Report) -> None:
    head = words(render_html(report).partition("<section")[0])
    for fact in ("quickstart", report["description"], "done", "2025-11-22 13:02 UTC", "3f9c1d27ab", "Improved"):
        assert fact in head
    assert report["verdict_text"] in head
    assert "exact match 58.7 % nearest 9.3 %, on 75 test rows" in head


def test_the_parts_stand_in_the_order_in_which_they_are_asked_for(classes: Report, report: Report) -> None:
    wanted = ["picture", "evaluation", "judge", "forgetting", "roi", "samples", "gate", "training", "model"]
    assert headings(render_html(classes)) == [*wanted, "cost", "problems", "record"]
    wanted = [part for part in wanted if part not in ("judge", "forgetting")]
    assert headings(render_html(report)) == [*wanted, "data", "cost", "problems", "record"]


@pytest.mark.parametrize(
    ("changes", "tone", "headline"),
    [
        ({"verdict": "improved"}, "good", "Improved"),
        ({"verdict": "equivalent"}, "calm", "No difference that matters"),
        ({"verdict": "worse"}, "bad", "Worse"),
        ({"verdict": "inconclusive"}, "warn", "Inconclusive"),
        ({"verdict": None}, "calm", "Done"),
        ({"verdict": "need_data", "status": "refused", "evaluation": None}, "warn", "Refused: too little data"),
        ({"verdict": "try_retrieval", "status": "refused", "evaluation": None}, "warn", "Refused: try retrieval first"),
        ({"verdict": "try_prompting", "status": "refused", "evaluation": None}, "warn", "Refused: try prompting first"),
        (
            {"verdict": "inconclusive", "status": "refused", "evaluation": None},
            "warn",
            "Not decided: the gate cannot tell",
        ),
        ({"verdict": None, "status": "refused"}, "warn", "Refused"),
        ({"verdict": "inconclusive", "status": "refused"}, "warn", "Refused"),
        ({"verdict": "improved", "status": "failed"}, "bad", "Failed"),
        ({"verdict": None, "status": "interrupted"}, "calm", "Interrupted"),
    ],
)
def test_the_banner_has_the_colour_of_the_outcome(report: Report, changes: Report, tone: str, headline: str) -> None:
    page = render_html(report | changes)
    found = re.search(r'<div class="banner (\w+)" role="status">\s*<strong>(.*?)</strong>', page)
    assert found and found.groups() == (tone, headline)
    assert f"<title>quickstart: {headline}</title>" in page


@pytest.mark.parametrize("name", KEPT)
def test_drawing_changes_nothing_in_the_report(name: str) -> None:
    report = read_report(name)
    before = copy.deepcopy(report)
    render_html(report)
    assert report == before
