"""The judge and what was forgotten, as the page tells them."""

from __future__ import annotations

import re

import pytest

from runner.render import render_html
from tests.render.pages import Report, assert_sound, problem, section, words


def shown(report: Report, part: str = "judge") -> str:
    return words(section(render_html(report), part))


def test_a_reliable_judge_is_shown_with_its_test_and_its_preferences(classes: Report) -> None:
    text = shown(classes)
    for fact in (
        "✓ reliable The judge passed its test on dev rows, before anything was trained.",
        "base 84 12 40 9 5 87.5 % 84.0 % 87.1 % under 0.001",
        "The expected answer beats that of another row 95.0 % 75.1 to 99.9 19 of 20 at least 90.0 %",
        "Its preference turns with the order 5.0 % 0.1 to 24.9 1 of 20 at most 20.0 %",
        "An answer ties with itself 100.0 % 69.2 to 100.0 10 of 10 all",
        "It agrees with people 77.3 % kappa 0.54",
        "Its preference turned with the order in 6.0 % of the rows.",
        "Models that answered gpt-4.1-2025-04-14",
        "Requests 660, 120 of them kept from earlier",
        "Input tokens 403,260",
        "Dollars $0.71",
        "SHA-256 of its prompt 9a0f9a0f9a0f9a0f",
        "not JSON: Expecting value 10",
        "Warm, concrete, in plain British English",
    ):
        assert fact in text
    assert "The judge, beside that $0.71" in shown(classes, "cost")


def test_a_judge_that_failed_its_test_says_why_and_gives_no_preference(unjudged: Report) -> None:
    text = shown(unjudged)
    assert "✗ not reliable The judge failed its own test, so it gives no figure at all." in text
    assert "error The judge is not reliable: the expected answer beat another row's in only 60 %" in text
    assert "Which answer it prefers" not in text and "reliable The judge passed" not in text
    assert "It agrees with people not asked no human file was given" in text


def test_a_judge_that_could_not_be_asked_says_so(classes: Report) -> None:
    classes["gate"]["judge"] = None
    classes["evaluation"]["judge"] |= {"reliable": False, "check": None, "pairs": [], "usd": None}
    page = render_html(classes)
    assert_sound(page)
    text = words(section(page, "judge"))
    assert "could not be asked" in text and "Dollars unknown" in text and "Its test" not in text


def test_a_judge_that_failed_only_on_the_test_rows_is_not_called_unreliable(classes: Report) -> None:
    classes["evaluation"]["judge"] |= {"reliable": False, "pairs": []}
    text = shown(classes)
    assert "no figures The judge passed its test, but gave too few marks" in text and "✗ not reliable" not in text


def test_a_run_that_ended_at_the_gate_shows_the_judge_s_test(unjudged: Report) -> None:
    page = render_html(unjudged | {"evaluation": None, "roi": None, "training": None})
    assert_sound(page)
    assert "✗ not reliable" in words(section(page, "judge"))


def test_a_rate_that_is_not_known_is_not_shown_as_none(classes: Report) -> None:
    pair = classes["evaluation"]["judge"]["pairs"][0]
    pair["effects"]["length"] |= {"win_rate": None, "adjusted_win_rate": None}
    pair["effects"]["style"]["adjusted_win_rate"] = None
    pair["judged"]["flip_rate"] = None
    text = shown(classes)
    assert "base 84 12 40 9 5 unknown unknown unknown under 0.001" in text
    assert "turned with the order in an unknown share of the rows" in text


def test_tokens_that_were_estimated_are_called_so(classes: Report) -> None:
    assert "Input tokens 403,260" in shown(classes)
    classes["evaluation"]["judge"]["pairs"][0]["judged"]["num_uncounted"] = 3
    assert "Input tokens about 403,260" in shown(classes)


def test_every_model_that_answered_for_the_judge_is_named_once(classes: Report) -> None:
    classes["evaluation"]["judge"]["pairs"][1]["judged"]["snapshots"] = ["gpt-4.1-2025-04-14", "gpt-4.1-2026-01-01"]
    assert "Models that answered gpt-4.1-2025-04-14, gpt-4.1-2026-01-01 Requests" in shown(classes)


def test_without_a_judge_there_is_no_section_of_it(report: Report) -> None:
    page = render_html(report)
    assert 'id="judge"' not in page and 'id="forgetting"' not in page
    assert "The judge" not in words(section(page, "cost"))


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_what_was_forgotten_is_shown_by_kind_with_loss_and_budgets(classes: Report) -> None:
    text = shown(classes, "forgetting")
    assert classes["evaluation"]["forgetting"]["text"] in text
    for fact in (
        "no budget broken for sure",
        "Probes passed of 60 66.7 % 55.0 to 78.0 60.0 % 48.0 to 72.0 -6.7 points -15.0 to +0.0 a drop of 10.0 points",
        "3.102 3.189 +0.087 +0.051 to +0.124 a rise of 0.200 nats",
        "Instructions 15 probes base 60.0 % tuned 47.0 %",
        "Facts 15 probes base 87.0 % tuned 87.0 %",
    ):
        assert fact in text


def test_bars_are_as_wide_as_the_shares_they_show(classes: Report) -> None:
    part = section(render_html(classes), "forgetting")
    kinds = classes["evaluation"]["forgetting"]["kinds"].values()
    for side in ("base", "tuned"):
        widths = re.findall(rf'<rect class="bar-{side}" x="0" y="\d+" width="([\d.]+)%"', part)
        assert [float(width) for width in widths] == pytest.approx([100 * kind[side] for kind in kinds], abs=0.01)


def test_a_broken_budget_stands_out_and_no_budget_is_no_pass(classes: Report) -> None:
    found = classes["evaluation"]["forgetting"]
    found |= {"exceeded": True, "findings": [problem("The share fell by 22.0 points.", code="eval/forgot")]}
    text = shown(classes, "forgetting")
    assert "✗ over budget" in text and "The share fell by 22.0 points." in text
    found |= {"exceeded": False, "max_drop": None, "max_loss_rise": None}
    text = shown(classes, "forgetting")
    assert "no budget was set" in text and "no budget broken" not in text


def test_a_loss_that_could_not_be_taken_is_unknown(classes: Report) -> None:
    classes["evaluation"]["forgetting"] |= {"base_loss": None, "tuned_loss": None, "loss_difference": None}
    page = render_html(classes)
    assert_sound(page)
    assert "lower is better unknown unknown unknown a rise of" in words(section(page, "forgetting"))
