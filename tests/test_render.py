"""The page, drawn from a made-up report: real stages around a model that was only acted."""

from __future__ import annotations

import copy
import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from runner.backends.base import Segment
from runner.data import Shown, SplitReport
from runner.data.ledger import Ledger, SourceTotals
from runner.data.review.diversity import Diversity, Variety
from runner.data.tokens import Lengths, TokenReport, report_tokens
from runner.errors import Exit, Problem
from runner.render import (
    MOST_POINTS,
    PLOT_HEIGHT,
    Chart,
    Histogram,
    count,
    duration,
    length_chart,
    metric_change,
    metric_value,
    net_chart,
    nice_ticks,
    percent,
    plain,
    price,
    render_html,
    training_chart,
    usd,
)
from runner.report import Facts, make_report, to_json
from runner.schema import read_schema
from tests.fakes import make_dataset

Report = dict[str, Any]
FIXTURE = Path(__file__).parent / "fixtures" / "report.json"
HOSTILE = '<script>alert(\'x\')</script> "quoted" & <img src=x onerror="y">'
ESCAPED = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &#34;quoted&#34; &amp; &lt;img src=x onerror=&#34;y&#34;&gt;"
SHARES = ("exact_match", "json_valid", "field_f1", "chrf")
VOID = {"meta", "br", "hr", "img", "link", "input"}


def is_nullable(entry: Report) -> bool:
    return "null" in entry.get("type", ()) or None in entry.get("enum", ())


FROM_SHOP = SourceTotals(
    path="shop/tickets.jsonl",
    part="train",
    container="jsonl",
    format="prompt_completion",
    evidence="prompt_completion: 200 of 201 rows looked at have prompt and completion",
    sha256="5d" * 32,
    num_bytes=110003,
    num_rows=1423,
    kept=1357,
    repaired=33,
    truncated=14,
    dropped=19,
)
GENERAL = replace(
    FROM_SHOP,
    path="https://example.org/general.csv",
    part="mix",
    container="csv",
    format="columns",
    evidence="named in the manifest",
    sha256="b7" * 32,
    num_bytes=52111,
    num_rows=677,
    kept=629,
    repaired=24,
    truncated=7,
    dropped=17,
)
LEDGER = Ledger(
    num_rows=2100,
    kept=1986,
    repaired=57,
    truncated=21,
    dropped=36,
    num_faulty=11,
    reasons={"not drawn": 16, "like a row of the test part": 9, "not JSON": 8, "longer than max_length": 3},
    faults={"not JSON": 11},
    repairs={"blanks around a text": 38, "a byte-order mark": 22},
    sources=(FROM_SHOP, GENERAL),
)
TOKENS = TokenReport(
    total=210987,
    labelled=61871,
    median=97,
    p90=155,
    p99=199,
    longest=224,
    longest_answer=58,
    max_length=231,
    num_counted=2092,
    num_over=3,
    band=None,
    histogram=((101, 1204), (142, 613), (183, 201), (224, 46)),
)
SPLIT = SplitReport(
    train=1702,
    dev=118,
    test=244,
    num_own=1391,
    num_groups=1990,
    num_pairs=27,
    num_withheld=9,
    num_mixed=310,
    classes={"late": {"train": 811, "dev": 51, "test": 115}, "damaged": {"train": 581, "dev": 67, "test": 129}},
)
QUESTIONS = Variety(
    num_distinct=1749,
    num_openings=1322,
    openings=(("where is my", 41), ("i'd like to", 37)),
    distinct_ngrams=(0.2134, 0.6457, 0.9128),
    median_words=23.5,
)
ANSWERS = Variety(
    num_distinct=5,
    num_openings=4,
    openings=(("late", 977), ("damaged", 772)),
    distinct_ngrams=(0.0011, 0.0022, 0.0033),
    median_words=1.0,
)
SHOWN = Shown(
    source="tickets.jsonl:1207",
    segments=(
        Segment(text="\n<|user|>\n  Where is\tmy parcel?\n\n", trained=False),
        Segment(text="late <|end|>", trained=True),
        Segment(text="\n", trained=False),
    ),
)
DATASET = make_dataset(
    ledger=LEDGER,
    tokens=TOKENS,
    train_tokens=175432,
    split=SPLIT,
    diversity=Diversity(num_rows=1754, questions=QUESTIONS, answers=ANSWERS),
    shown=(SHOWN,),
    findings=(Problem(code="data/dropped", what="11 of 2,100 rows could not be used.", severity="warning"),),
)
NULLABLE = [key for key, entry in read_schema("report")["properties"].items() if is_nullable(entry)]


@pytest.fixture
def report() -> Report:
    found: Report = json.loads(FIXTURE.read_text(encoding="utf-8"))
    return found | {"data": make_report(Facts(data=DATASET), "done", Exit.DONE, "")["data"]}


class Outline(HTMLParser):
    """Notes every element and attribute, what was closed wrongly, and how many rows each table body has."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.rows: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tbody":
            self.rows.append(0)
        if tag == "tr" and "tbody" in self.open:
            self.rows[-1] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


def words(markup: str) -> str:
    """What a reader sees of it: no style, no tags, single spaces."""
    without_style = re.sub(r"<style>.*?</style>", " ", markup, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", without_style)).split())


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', page, flags=re.DOTALL)
    assert found, f"the page has no section '{name}'"
    return found.group()


def assert_sound(page: str) -> None:
    seen = outline(page)
    assert seen.faults == [] and seen.open == []
    assert all(rows > 0 for rows in seen.rows)
    assert not re.search(r"\b(None|nan|undefined|Undefined)\b", words(page))


def without_later_stages(report: Report, status: str) -> Report:
    return {**report, "status": status, "verdict": None, "training": None, "evaluation": None, "roi": None}


# --- the whole page ---------------------------------------------------------------------------------------------------


def test_the_fixture_is_a_valid_report(report: Report) -> None:
    assert [error.message for error in Draft202012Validator(read_schema("report")).iter_errors(report)] == []


def test_the_page_is_sound_html_without_empty_tables(report: Report) -> None:
    page = render_html(report)
    assert_sound(page)
    assert len(outline(page).rows) > 8


def test_the_page_has_no_script_and_fetches_nothing(report: Report) -> None:
    page = render_html(report)
    for tag, attributes in outline(page).elements:
        assert tag not in {"script", "link", "img", "iframe", "object", "base"}
        assert not {"src", "srcset", "href", "xlink:href"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page


def test_the_page_follows_the_reader_s_light_or_dark_and_prints(report: Report) -> None:
    page = render_html(report)
    assert "@media screen and (prefers-color-scheme: dark)" in page
    assert "@media print" in page


@pytest.mark.parametrize(
    ("part", "facts"),
    [
        ("evaluation", ["exact match", "58.7 %", "+58.7 points", "+48.0 to +69.3", "held-out loss", "lower is better"]),
        ("evaluation", ["75", "Improved", "margin of 5.0 points (0.050 nats", "primary: decides the verdict"]),
        ("evaluation", ["thermos leaks from the lid.", "I'm sorry to hear about thermos.", "✗ wrong", "✓ right"]),
        ("roi", ["It pays back in 5.6 months", "$19.20", "$12.00", "$7.20", "$40.02", "$46.38", "Net over 12 months"]),
        ("roi", ["Requests a month 60,000 --set", "Today: price of a million input tokens $0.40 quickstart.yaml:34"]),
        ("roi", ["Tuned: output tokens of an answer 22.9 measured on the tuned model"]),
        ("training", ["lora", "57", "6 min 53 s", "81,332", "197.1 tokens/s", "4,884,480, 3.5 % of all"]),
        ("training", ["float32", "cpu", "0.244 nats", "0.250 nats"]),
        ("model", ["smollm2-135m-instruct", "134,515,584", "apache-2.0", "8,192 tokens"]),
        ("data", ["✓ every one of 2,100 rows accounted for", "9 rows were withheld", "✓ tokens counted exactly"]),
        ("data", ["prompt_completion 200 of 201 rows looked at", "1,423 1,357 33 14 19", "general rows columns named"]),
        ("data", ["All files 2,100 1,986 57 21 36", "11 could not be used; 25 were left out by the split"]),
        ("data", ["not JSON 8", "longer than max_length 3", "a byte-order mark 22", "110,003 bytes, SHA-256 5d5d5d5d"]),
        ("data", ["Train 1,702 rows, 310 of them general", "Groups of like questions 1,990", "near-duplicates 27"]),
        ("data", ["Withheld from every part 9 rows", "Together late 811 51 115 977", "damaged 581 67 129 777"]),
        ("data", ["In all 210,987 tokens", "With a loss 29.3 %, 61,871 tokens", "Trained on in an epoch 175,432"]),
        ("data", ["0.1 % of rows exceed 231 tokens: 3 of 2,092", "Longest answer 58 tokens", "Median row 97 tokens"]),
        (
            "data",
            ["90 % of rows have at most 155 tokens", "99 % of rows have at most 199 tokens", "Longest row 224 tokens"],
        ),
        (
            "data",
            ["Of 1,754 rows", "Distinct 1,749, 99.7 % 5, 0.3 %", "pairs of words, of those in a sample 64.6 % 0.2"],
        ),
        ("data", ["where is my 41", "damaged 772", "tickets.jsonl:1207 12 of 46 characters trained on"]),
        ("data", ["Findings warning 11 of 2,100 rows could not be used.", "[data/dropped]"]),
        ("gate", ["nothing stood in its way", "enforce", "format", "Fix: Expect a gain", "[gate/few-rows]"]),
        ("cost", ["Low estimate 12 min 17 s $0.02", "High estimate 1 h 06 min $0.11", "Actual 10 min 39 s $0.02"]),
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


@pytest.mark.parametrize(
    ("changes", "tone", "headline"),
    [
        ({"verdict": "improved"}, "good", "Improved"),
        ({"verdict": "equivalent"}, "calm", "No difference that matters"),
        ({"verdict": "worse"}, "bad", "Worse"),
        ({"verdict": "inconclusive"}, "warn", "Inconclusive"),
        ({"verdict": None}, "calm", "Done"),
        ({"verdict": "need_data", "status": "refused"}, "warn", "Refused: too little data"),
        ({"verdict": None, "status": "refused"}, "warn", "Refused"),
        ({"verdict": "improved", "status": "failed"}, "bad", "Failed"),
        ({"verdict": None, "status": "interrupted"}, "calm", "Interrupted"),
    ],
)
def test_the_banner_has_the_colour_of_the_outcome(report: Report, changes: Report, tone: str, headline: str) -> None:
    page = render_html(report | changes)
    found = re.search(r'<div class="banner (\w+)" role="status">\s*<strong>(.*?)</strong>', page)
    assert found and found.groups() == (tone, headline)


# --- hostile text -----------------------------------------------------------------------------------------------------


def in_sample(report: Report) -> None:
    report["evaluation"]["samples"][0] |= dict.fromkeys(("question", "expected", "base", "tuned"), HOSTILE)


def in_problem(report: Report) -> None:
    report["problems"][0] |= {"what": HOSTILE, "fix": HOSTILE}
    report["problems"][0]["where"] |= {"path": HOSTILE, "key": HOSTILE}


def in_head(report: Report) -> None:
    report |= {"name": HOSTILE, "description": HOSTILE, "verdict_text": HOSTILE}


def in_record(report: Report) -> None:
    report["manifest"]["values"]["data"]["system"] = HOSTILE
    report["manifest"]["origins"]["data.system"] = HOSTILE
    report["manifest"]["overrides"] = [HOSTILE]
    report["environment"][HOSTILE] = HOSTILE


def in_files(report: Report) -> None:
    ledger = report["data"]["ledger"]
    ledger |= {"reasons": {HOSTILE: 36}, "repairs": {HOSTILE: 57}}
    ledger["sources"][0] |= {"path": HOSTILE, "container": HOSTILE, "format": HOSTILE, "evidence": HOSTILE}


def in_rows(report: Report) -> None:
    data = report["data"]
    data["split"]["classes"] = {HOSTILE: {"train": 1}}
    for side in ("questions", "answers"):
        data["diversity"][side]["openings"] = [[HOSTILE, 1]]
    segments = [{"text": HOSTILE, "trained": trained} for trained in (False, True)]
    data["shown"] = [{"source": HOSTILE, "segments": segments}]
    data["findings"][0]["what"] = HOSTILE


@pytest.mark.parametrize(
    ("spoil", "times"),
    [(in_sample, 4), (in_problem, 4), (in_head, 4), (in_record, 5), (in_files, 6), (in_rows, 8)],
)
def test_hostile_text_stays_text(report: Report, spoil: Callable[[Report], None], times: int) -> None:
    spoil(report)
    page = render_html(report)
    assert page.count(ESCAPED) == times
    assert "<script" not in page and "<img" not in page
    assert_sound(page)


def test_only_an_https_address_of_the_tracker_becomes_a_link(report: Report) -> None:
    report["tracking"] = {"url": "https://wandb.ai/a/b", "other": "javascript:alert(1)"}
    links = [attributes["href"] for tag, attributes in outline(render_html(report)).elements if tag == "a"]
    assert links == ["https://wandb.ai/a/b"]


def test_a_very_long_answer_is_shortened_and_says_so(report: Report) -> None:
    report["evaluation"]["samples"][0]["base"] = "x" * 3000
    page = render_html(report)
    assert "x" * 1500 in page and "x" * 1501 not in page
    assert "and 1,500 more characters" in page


def test_an_empty_answer_is_named_as_empty(report: Report) -> None:
    report["evaluation"]["samples"][0]["base"] = "\n"
    assert "<i>empty</i>" in render_html(report)


# --- parts that are not there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", NULLABLE)
def test_any_part_may_be_null(report: Report, part: str) -> None:
    report[part] = None
    assert_sound(render_html(report))


@pytest.mark.parametrize("status", ["failed", "interrupted", "refused", "done"])
def test_all_parts_may_be_null_at_once(report: Report, status: str) -> None:
    report |= dict.fromkeys(NULLABLE) | {"status": status, "environment": {}, "timings": {}, "tracking": {}}
    report["manifest"] = {"path": None, "overrides": [], "values": None, "origins": None}
    report["problems"] = []
    report["verdict_text"] = "Nothing came of it."
    page = render_html(report)
    assert_sound(page)
    assert "Nothing came of it." in page
    assert "The run did not come to: model, data, cost, gate, training, evaluation." in page


def test_every_null_deep_inside_is_left_out_or_named(report: Report) -> None:
    report["model"] |= dict.fromkeys(("revision", "family", "num_parameters", "context_tokens", "license"))
    report["training"]["dev_loss"] = None
    report["cost"]["estimate"] |= dict.fromkeys(("hours", "usd", "matmul_tflops"))
    report["cost"]["actual"]["usd"] = None
    for comparison in (report["evaluation"]["comparison"], *report["evaluation"]["comparisons"]):
        comparison |= {"ci_low": None, "ci_high": None, "rows_needed": None}
    report["evaluation"]["samples"][0] |= {"base_score": None, "tuned_score": None}
    report["evaluation"]["base"]["scores"] = dict.fromkeys(report["evaluation"]["base"]["scores"])
    assert [error.message for error in Draft202012Validator(read_schema("report")).iter_errors(report)] == []
    page = render_html(report)
    assert_sound(page)
    assert "too few rows for an interval" in page and "no score" in page
    assert "Estimate unknown unknown" in words(section(page, "cost"))
    assert "The manifest gives no price of the machine." in page


def test_a_refused_run_shows_its_reason_and_its_cure_before_all_else(report: Report) -> None:
    refused = without_later_stages(report, "refused") | {"verdict": "try_retrieval", "exit_code": 3}
    where = {"path": "quickstart.yaml", "line": 22, "column": 3, "key": "gate.task"}
    reason, fix = "The task is 'knowledge': tuning teaches behaviour.", "Put the facts into the prompt by retrieval."
    finding = {"code": "gate/wrong-tool", "what": reason, "where": where, "fix": fix, "severity": "error"}
    refused |= {"problems": [finding], "verdict_text": f"Not trained: the run was refused. {reason}"}
    refused["gate"] |= {"verdict": "try_retrieval", "says_no": True, "task": "knowledge", "findings": [finding]}
    page = render_html(refused)
    assert_sound(page)
    assert "Refused: try retrieval first" in page
    assert f"Not trained: the run was refused. {reason}" in words(page.partition("<section")[0])
    assert re.findall(r'<section id="(\w+)">', page) == ["problems", "model", "data", "gate", "cost", "record"]
    problem = words(section(page, "problems"))
    assert f"error {reason} Fix: {fix} quickstart.yaml:22:3 gate.task [gate/wrong-tool]" in problem
    assert "No: retrieval is the better tool for this." in section(page, "gate")


def test_a_lenient_gate_that_found_nothing_has_nothing_to_excuse(report: Report) -> None:
    report["gate"] |= {"policy": "warn", "reason": "See ticket 812."}
    assert "The run went on all the same." not in render_html(report)


def test_what_is_empty_has_no_heading(report: Report) -> None:
    page = render_html(report)
    report["data"] |= {"shown": [], "findings": []}
    report["data"]["ledger"] |= {"dropped": 0, "reasons": {}, "repairs": {}}
    report["data"]["split"]["classes"] = {}
    for side in ("questions", "answers"):
        report["data"]["diversity"][side]["openings"] = []
    report["gate"]["findings"] = report["problems"] = report["evaluation"]["samples"] = []
    bare = render_html(report | {"timings": {}, "environment": {}, "tracking": {}})
    headings = ["Problems and notes", "Why rows were dropped", "What was repaired", "Classes", "Answers to look at"]
    headings += [f"Most frequent openings of {side}" for side in ("questions", "answers")]
    headings += ["Rows as the model sees them", "Findings", "Environment", "Tracking", "Time by stage"]
    for heading in headings:
        assert f">{heading}<" in page
        assert f">{heading}<" not in bare
    assert_sound(bare)


def test_a_gate_that_says_no_under_a_lenient_policy_shows_why_the_run_went_on(report: Report) -> None:
    report["gate"] |= {"verdict": "need_data", "says_no": True, "policy": "warn", "reason": "See ticket 812."}
    text = words(section(render_html(report), "gate"))
    assert "No: there is too little data. The run went on all the same." in text
    assert "See ticket 812." in text


def test_a_run_that_failed_after_its_evaluation_shows_both(report: Report) -> None:
    where = dict.fromkeys(("path", "line", "column", "key"))
    fault = {"code": "run/io", "what": "The disk is full.", "where": where, "fix": "", "severity": "error"}
    page = render_html(report | {"status": "failed", "exit_code": 74, "problems": [fault]})
    head = words(page.partition("<section")[0])
    assert "The run failed after its evaluation. The disk is full. The evaluation says:" in head
    assert report["verdict_text"] in head


def test_a_missing_return_says_whether_the_manifest_asked_for_one(report: Report) -> None:
    report["roi"] = None
    assert "The run did not come to computing the return." in render_html(report)
    report["manifest"]["values"]["roi"] = None
    assert "The manifest gives no roi , so no return was computed." in words(section(render_html(report), "roi"))


def test_a_return_that_never_comes_is_called_never(report: Report) -> None:
    report["roi"] |= {"payback_months": None, "pays_back": False, "saving_usd_per_month": -5.5}
    text = words(section(render_html(report), "roi"))
    assert "Payback never" in text and "Saving a month -$5.50" in text
    assert "The circle" not in text


def test_a_payback_beyond_the_horizon_is_marked_as_such(report: Report) -> None:
    report["roi"] |= {"payback_months": 50.02, "pays_back": False}
    page = render_html(report)
    assert "50 months of $40.02 invested, beyond the 12 months counted" in words(page)
    assert "<circle" not in section(page, "roi")


def test_an_inconclusive_metric_says_how_many_rows_would_settle_it(report: Report) -> None:
    report["evaluation"]["comparisons"][3] |= {"verdict": "inconclusive", "rows_needed": 1412, "unscored": 3}
    text = words(section(render_html(report), "evaluation"))
    assert "75 3 without a score inconclusive about 1,412 rows would settle it" in text


def test_each_sample_is_marked_by_its_own_scores(report: Report) -> None:
    part = section(render_html(report), "evaluation")
    marks = re.findall(r"(Base|Tuned) answer\s*<span[^>]*>. (right|wrong)", part)
    expected = []
    for sample in report["evaluation"]["samples"]:
        for side in ("base", "tuned"):
            expected.append((side.title(), "right" if sample[f"{side}_score"] == 1 else "wrong"))
    assert marks == expected and len(set(marks)) == 3


def test_a_metric_that_is_not_right_or_wrong_shows_its_value_in_samples(report: Report) -> None:
    report["evaluation"]["comparison"]["metric"] = "chrf"
    report["evaluation"]["samples"][0]["base_score"] = 0.634
    text = words(section(render_html(report), "evaluation"))
    assert "chrF++ 63.4 %" in text and "✓ right" not in text


def test_a_metric_that_this_version_does_not_know_is_still_shown(report: Report) -> None:
    report["evaluation"]["comparisons"].append(report["evaluation"]["comparisons"][0] | {"metric": "tone_of_voice"})
    assert "tone of voice 0.000 0.587" in words(section(render_html(report), "evaluation"))


# --- the data ---------------------------------------------------------------------------------------------------------


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every text and number, keys of counts among them, with the name it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            if key in ("reasons", "repairs", "classes"):
                yield key, name
            yield from leaves(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, key)
    elif value is not None and not isinstance(value, bool):
        yield key, value


def test_every_number_and_every_text_of_the_data_is_on_the_page(report: Report) -> None:
    shown = words(section(render_html(report), "data"))
    as_shown: dict[str, Callable[[Any], str]] = {
        "distinct_ngrams": percent,
        "sha256": lambda digest: digest[:12],
        "part": lambda part: {"mix": "general rows"}.get(part, part),
        "evidence": lambda evidence: evidence.removeprefix("prompt_completion: "),
    }
    missing = []
    for key, value in leaves(report["data"]):
        text = as_shown.get(key, count if isinstance(value, int | float) else str)(value)
        if not re.search(rf"(?<![\d,.]){re.escape(' '.join(text.split()))}(?![\d,]*\d)", shown):
            missing.append((key, text))
    assert missing == []


def test_the_whole_digest_of_a_file_is_there_to_be_copied(report: Report) -> None:
    assert f'<code title="{FROM_SHOP.sha256}">' in render_html(report)


def test_a_single_file_needs_no_sum(report: Report) -> None:
    ledger = report["data"]["ledger"]
    assert "All files" in render_html(report)
    ledger["sources"] = ledger["sources"][:1]
    assert "All files" not in render_html(report)


def test_without_a_list_of_files_the_sum_stands_alone(report: Report) -> None:
    report["data"]["ledger"]["sources"] = []
    page = render_html(report)
    assert_sound(page)
    assert "All files 2,100 1,986 57 21 36" in words(page)


def test_rows_that_went_missing_are_told_first(report: Report) -> None:
    report["data"]["ledger"]["kept"] -= 1200
    text = words(section(render_html(report), "data"))
    assert text.startswith("Data ✗ 1,200 of 2,100 rows not accounted for")
    assert "every one of" not in text


def test_only_rows_that_count_more_than_once_are_explained(report: Report) -> None:
    words_of_weight = "Train counts a row as often as the weight of its source says; the rows in use are 2,064."
    assert words_of_weight not in words(render_html(report))
    report["data"]["split"]["train"] += 500
    assert words_of_weight in words(render_html(report))


def test_a_split_without_general_rows_or_withheld_ones_does_not_speak_of_them(report: Report) -> None:
    report["data"]["split"] |= {"num_mixed": 0, "num_withheld": 0, "num_own": 1702}
    text = words(section(render_html(report), "data"))
    assert "Train 1,702 rows Dev" in text and "✓ no like questions found in two parts ✓" in text


def test_twenty_classes_are_shown_and_the_others_counted(report: Report) -> None:
    classes = {f"class-{i:02}": {"train": 900 - i, "test": 3} for i in range(20)}
    report["data"]["split"]["classes"] = classes
    assert "more class" not in render_html(report)
    report["data"]["split"]["classes"] = classes | {f"late-{i}": {"train": 1} for i in range(1007)}
    page = render_html(report)
    assert re.findall(r"<td>(class-\d+)</td>", page) == list(classes)
    assert "late-0" not in page and "and 1,007 more classes" in page


def test_a_class_without_rows_in_a_part_has_none_there(report: Report) -> None:
    report["data"]["split"]["classes"] = {"rare": {"train": 12}}
    assert "rare 12 0 0 12" in words(render_html(report))


def test_exact_counts_are_called_exact_and_an_estimate_an_estimate(report: Report) -> None:
    exact = words(section(render_html(report), "data"))
    assert "tokens counted exactly" in exact and "estimate" not in exact.lower() and "about" not in exact
    report["data"]["tokens"]["band"] = 1.6
    estimate = words(section(render_html(report), "data"))
    assert "tokens counted exactly" not in estimate
    for words_of_caution in (
        "≈ tokens estimated within a factor of 1.6",
        "expected within a factor of 1.6 either way",
        "An estimate: the model's tokenizer was not at hand",
        "in all between 131,867 and 337,579 tokens",
        "In all about 210,987 tokens",
        "Longest answer about 58 tokens",
        "Rows by estimated length",
    ):
        assert words_of_caution in estimate


def seen_row(page: str) -> str:
    found = re.search(r'<div class="seen"[^>]*>(.*?)</div>', page, flags=re.DOTALL)
    assert found
    return found.group(1)


def as_text(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


def test_a_row_is_shown_to_the_letter_with_its_white_space(report: Report) -> None:
    page = render_html(report)
    row = seen_row(page)
    assert as_text(row) == "".join(segment.text for segment in SHOWN.segments)
    assert row.startswith("<span>")  # a leading newline would be dropped otherwise
    assert re.search(r"\.seen \{[^}]*white-space: pre-wrap", page)


def test_what_is_trained_on_is_marked_by_colour_and_by_a_line_and_nothing_else_is(report: Report) -> None:
    page = render_html(report)
    assert re.findall(r'<mark class="trained">(.*?)</mark>', seen_row(page), flags=re.DOTALL) == ["late &lt;|end|&gt;"]
    (rule,) = re.findall(r"^\.trained \{(.*)\}$", page, flags=re.MULTILINE)
    assert "background:" in rule and "underline" in rule
    assert '<mark class="trained">trained on</mark>: coloured and underlined' in page


def test_a_row_of_which_nothing_is_trained_on_stands_out(report: Report) -> None:
    assert "nothing of it is trained on" not in render_html(report)
    report["data"]["shown"][0]["segments"][1]["trained"] = False
    assert '<span class="chip bad">✗ nothing of it is trained on</span>' in render_html(report)


def test_a_very_long_row_keeps_both_ends_and_says_what_is_left_out(report: Report) -> None:
    segment = report["data"]["shown"][0]["segments"][0]
    segment["text"] = "a" * 4000 + "b" * 2000
    assert "more characters" not in seen_row(render_html(report))
    segment["text"] = "a" * 4000 + "-" * 1500 + "b" * 2000
    row = as_text(seen_row(render_html(report)))
    assert row.startswith("a" * 4000 + " … 1,500 more characters … " + "b" * 2000 + "late")


# --- charts -----------------------------------------------------------------------------------------------------------


def test_the_scores_stand_where_their_values_are(report: Report) -> None:
    part = section(render_html(report), "evaluation")
    dots = re.findall(r'<circle class="dot (base|tuned)" cx="([\d.]+)%"', part)
    bars = re.findall(r'<line class="line (base|tuned)" x1="([\d.]+)%" x2="([\d.]+)%"', part)
    sides = [side for side, _ in dots]
    scores = [report["evaluation"][side]["scores"][m] for m in SHARES for side in ("base", "tuned")]
    assert sides == [side for side, _, _ in bars] == ["base", "tuned"] * len(SHARES)
    for at, ends in (("mean", [x for _, x in dots]), ("low", [a for _, a, _ in bars]), ("high", [b for *_, b in bars])):
        assert [float(end) for end in ends] == pytest.approx([100 * score[at] for score in scores], abs=0.01)


def test_a_score_without_an_interval_is_a_dot_without_a_bar(report: Report) -> None:
    report["evaluation"]["tuned"]["scores"]["exact_match"] |= {"low": None, "high": None}
    part = section(render_html(report), "evaluation")
    assert len(re.findall(r'<circle class="dot tuned" cx="[\d.]+%"', part)) == 4
    assert len(re.findall(r'<line class="line tuned" x1="[\d.]+%"', part)) == 3


def test_without_metrics_in_percent_there_is_a_table_and_no_chart(report: Report) -> None:
    report["evaluation"]["comparisons"] = report["evaluation"]["comparisons"][4:]
    page = render_html(report)
    assert "<svg" not in section(page, "evaluation")
    assert_sound(page)


def read_back(chart: Chart, y: float) -> float:
    """The value at a height, by the chart's own labelled ticks."""
    (y0, v0), (y1, v1) = (
        (t.at, float(t.label.replace("$", "").replace(",", ""))) for t in (chart.y_ticks[0], chart.y_ticks[-1])
    )
    return v0 + (y - y0) / (y1 - y0) * (v1 - v0)


def test_the_net_runs_from_minus_the_investment_to_the_net_and_crosses_zero_at_payback(report: Report) -> None:
    roi = report["roi"]
    chart = net_chart(roi)
    (x0, y0), (x1, y1) = chart.lines["net"]
    assert (x0, x1) == (0, 100)
    assert read_back(chart, y0) == pytest.approx(-roi["investment_usd"], abs=0.1)
    assert read_back(chart, y1) == pytest.approx(roi["net_usd_over_horizon"], abs=0.1)
    ((x, y),) = chart.lines["payback"]
    assert x == pytest.approx(100 * roi["payback_months"] / roi["horizon_months"], abs=0.01)
    assert y == chart.zero == pytest.approx(y0 + (y1 - y0) * x / 100, abs=0.1)


@pytest.mark.parametrize(("investment", "saving"), [(0.0, 0.0), (0.002, 0.0), (5e6, -1e5), (0.0, 3.0)])
def test_any_investment_and_saving_can_be_drawn(report: Report, investment: float, saving: float) -> None:
    report["roi"] |= {"investment_usd": investment, "saving_usd_per_month": saving, "pays_back": False}
    chart = net_chart(report["roi"])
    assert all(0 <= x <= 100 and 0 <= y <= chart.height for x, y in chart.lines["net"])
    assert_sound(render_html(report))


def test_the_loss_curve_has_a_point_for_each_logged_loss(report: Report) -> None:
    curve = report["training"]["curve"]
    chart = training_chart(curve)
    assert chart is not None
    for key in ("loss", "dev_loss"):
        logged = [point for point in curve if point[key] is not None]
        assert [read_back(chart, y) for _, y in chart.lines[key]] == pytest.approx([p[key] for p in logged], abs=0.01)
        assert [x for x, _ in chart.lines[key]] == pytest.approx([100 * p["step"] / 57 for p in logged], abs=0.01)


@pytest.mark.parametrize("points", [0, 1])
def test_a_run_of_no_or_one_logged_step_is_still_sound(report: Report, points: int) -> None:
    report["training"]["curve"] = report["training"]["curve"][:points]
    page = render_html(report)
    assert_sound(page)
    assert section(page, "training").count('<circle class="dot loss"') == points


def test_a_long_curve_is_thinned_but_keeps_its_ends() -> None:
    curve = [{"step": step, "loss": 1 / step, "dev_loss": None} for step in range(1, 10_001)]
    chart = training_chart(curve)
    assert chart is not None
    points = chart.lines["loss"]
    assert len(points) <= MOST_POINTS + 1
    assert points[0] == (0.01, 0.0)
    assert points[-1] == pytest.approx((100, chart.zero), abs=0.1)


def lengths_drawn(**changes: Any) -> Histogram:
    chart = length_chart(to_json(replace(TOKENS, **changes)))
    assert chart is not None
    return chart


def length_at(chart: Chart, x: float) -> float:
    """The length at a place, by the chart's own labelled ticks."""
    (x0, v0), (x1, v1) = ((t.at, float(t.label.replace(",", ""))) for t in (chart.x_ticks[0], chart.x_ticks[-1]))
    return v0 + (x - x0) / (x1 - x0) * (v1 - v0)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=24).filter(any))
def test_bars_stand_on_zero_and_are_as_high_as_their_rows_are_many(rows: list[int]) -> None:
    chart = lengths_drawn(histogram=tuple((40 * (i + 1), n) for i, n in enumerate(rows)))
    unit = max(bar.height for bar in chart.bars) / max(rows)
    assert [bar.height for bar in chart.bars] == pytest.approx([unit * n for n in rows], abs=0.011)
    assert [bar.top + bar.height for bar in chart.bars] == pytest.approx([PLOT_HEIGHT] * len(rows), abs=0.011)
    assert [read_back(chart, bar.top) for bar in chart.bars] == pytest.approx(rows, abs=max(rows) / 1000)


def test_the_page_draws_the_bars_that_were_computed(report: Report) -> None:
    pattern = r'<rect class="bar" x="([\d.]+)%" width="([\d.]+)%" y="([\d.]+)" height="([\d.]+)"'
    bars = re.findall(pattern, render_html(report))
    heights = [float(height) for *_, height in bars]
    assert heights == pytest.approx([heights[0] * n / 1204 for n in (1204, 613, 201, 46)], abs=0.01)
    for (x, width, *_), (following, *_) in pairwise(bars):
        assert float(x) + float(width) == pytest.approx(float(following), abs=0.011)


def test_the_page_draws_each_mark_under_its_label(report: Report) -> None:
    page = render_html(report)
    lines = re.findall(r'<line class="mark (\w+)" x1="([\d.]+)%" x2="([\d.]+)%" y1="(-\d+)" y2="200.0"/>', page)
    labels = re.findall(
        r'<text class="mark (\w+)" x="([\d.]+)%" dx="(-?\d)" y="(-\d+)".* text-anchor="(\w+)">(.*)<', page
    )
    marks = sorted(lengths_drawn().marks, key=lambda mark: mark.shelf)
    assert lines == [(m.kind, f"{m.at}", f"{m.at}", top) for m, (_, _, _, top) in zip(marks, lines, strict=True)]
    for mark, (*_, top), (kind, x, dx, y, anchor, label) in zip(marks, lines, labels, strict=True):
        assert (kind, x, y, anchor, label) == (mark.kind, f"{mark.at}", top, mark.leans, mark.label)
        assert (int(dx) > 0) == (anchor == "start") == (mark.at < 60)


def test_bars_and_marks_stand_where_their_lengths_are() -> None:
    chart = lengths_drawn()
    assert [length_at(chart, bar.at) for bar in chart.bars] == pytest.approx([60, 101, 142, 183], abs=0.1)
    assert length_at(chart, chart.bars[-1].at + chart.bars[-1].width) == pytest.approx(224, abs=0.1)
    at = {mark.label: length_at(chart, mark.at) for mark in chart.marks}
    wanted = {"median: 97": 97, "90 %: 155": 155, "99 %: 199": 199, "max_length: 231": 231}
    assert at == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize(("max_length", "is_near"), [(225, True), (2048, False)])
def test_max_length_is_drawn_where_it_is_near_and_named_where_it_is_far(
    report: Report, max_length: int, is_near: bool
) -> None:
    report["data"]["tokens"]["max_length"] = max_length
    part = section(render_html(report), "data")
    assert ('<line class="mark max_length"' in part) == is_near
    assert (f"max_length, {max_length:,}, is beyond the right edge" in part) != is_near


def test_marks_of_the_same_length_are_one_and_no_two_labels_share_a_height() -> None:
    chart = lengths_drawn(median=224, p90=224)
    assert {mark.label for mark in chart.marks} == {"median, 90 %: 224", "99 %: 199", "max_length: 231"}
    for marks in (chart.marks, lengths_drawn().marks):
        assert sorted(mark.shelf for mark in marks) == list(range(len(marks)))


def test_the_lengths_are_there_for_who_does_not_see_them(report: Report) -> None:
    part = section(render_html(report), "data")
    assert re.search(r'<svg class="plot" role="img" aria-label="Rows by length in tokens"', part)
    (about,) = re.findall(r"<title>Rows by length in tokens</title><desc>(.*?)</desc>", part)
    for fact in ("Half of the rows have at most 97 tokens", "90 % at most 155", "99 % at most 199", "the longest 224"):
        assert fact in about
    text = words(part)
    assert "up to 101 tokens 1,204 rows 102 to 142 tokens 613 rows 143 to 183 tokens 201 rows" in text
    report["data"]["tokens"]["histogram"] = [[7, 3], [8, 4]]
    assert "up to 7 tokens 3 rows 8 tokens 4 rows" in words(render_html(report))


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.integers(1, 6000))
def test_any_lengths_can_be_drawn(lengths: list[int], max_length: int) -> None:
    total = np.array(lengths)
    measured = Lengths(
        total=total, labelled=total, unfit={}, cut={}, max_length=max_length, num_over=0, refused=False, band=None
    )
    chart = length_chart(to_json(report_tokens(measured, np.arange(len(total)))))
    assert chart is not None
    for bar in chart.bars:
        assert 0 <= bar.at <= bar.at + bar.width <= 100.02 and 0 <= bar.top <= PLOT_HEIGHT
    assert all(0 <= mark.at <= 100 for mark in chart.marks)
    assert {"median", "90 %", "99 %"} <= {name for mark in chart.marks for name in re.split(", |:", mark.label)}
    assert 1 <= len(chart.x_ticks) <= 8


def test_without_rows_there_is_no_chart_of_lengths(report: Report) -> None:
    report["data"]["tokens"]["histogram"] = []
    page = render_html(report)
    assert_sound(page)
    assert "<svg" not in section(page, "data") and "The lengths as text" not in page


@given(st.floats(-1e7, 0), st.floats(0, 1e7), st.integers(2, 8))
def test_ticks_cover_the_values_and_stay_few(low: float, high: float, wanted: int) -> None:
    ticks = nice_ticks(low, high, wanted=wanted)
    assert ticks[0] <= low + 1e-9 and ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= wanted + 3


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (percent(0.58666), "58.7 %"),
        (count(1234567), "1,234,567"),
        (count(22.9333), "22.9"),
        (usd(1234.5), "$1,234.50"),
        (usd(-3), "-$3.00"),
        (usd(0), "$0.00"),
        (usd(0.0018), "less than $0.01"),
        (price(0.4), "$0.40"),
        (price(0.075), "$0.075"),
        (duration(0.0006), "under 0.1 s"),
        (duration(3.87), "3.9 s"),
        (duration(9.96), "10 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(412.6), "6 min 53 s"),
        (duration(3599.7), "1 h 00 min"),
        (duration(3939.2), "1 h 06 min"),
        (plain(None), "none"),
        (plain([]), "none"),
        (plain(False), "no"),
        (plain(0), "0"),
        (plain(0.0002), "0.0002"),
        (plain(["a", None, 1.5]), "a, none, 1.5"),
        (metric_value("loss", 0.2634), "0.263 nats"),
        (metric_value("chrf", 0.95), "95.0 %"),
        (metric_change("loss", -2.154), "-2.154"),
        (metric_change("chrf", 0.627), "+62.7"),
    ],
)
def test_numbers_read_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_drawing_changes_nothing_in_the_report(report: Report) -> None:
    before = copy.deepcopy(report)
    render_html(report)
    assert report == before
