"""The evaluation as the page tells it: comparisons, sides, slices, classes and samples."""

from __future__ import annotations

import re

import pytest

from runner.render import render_html
from runner.render.classes import MOST_CONFUSIONS, cells, confused
from tests.render.pages import Report, assert_sound, problem, section, words


def shown(report: Report, part: str = "evaluation") -> str:
    return words(section(render_html(report), part))


# --- comparisons ------------------------------------------------------------------------------------------------------


def test_every_comparison_is_a_row_and_one_of_them_decides(report: Report) -> None:
    part = section(render_html(report), "evaluation")
    rows = re.findall(r"<tr(?: class=\"chosen\")?><th scope=\"row\">.*?</tr>", part, flags=re.DOTALL)
    assert len(rows) == len(report["evaluation"]["comparisons"]) == 10
    (decides,) = [row for row in rows if 'class="chosen"' in row]
    assert "decides" in words(decides)
    assert words(decides).startswith("exact match primary nearest 9.3 % 58.7 % +49.3 points +38.6 to +60.0 under 0.001")
    assert words(part).count("decides") == 2  # and once in the words below the table


def test_comparisons_of_one_metric_stand_together(report: Report) -> None:
    text = shown(report)
    found = [text.index(f"{metric} {against}") for metric in ("valid JSON", "field F1") for against in SIDES]
    assert found == sorted(found)


SIDES = ("base", "nearest")


def test_p_is_corrected_where_the_metric_is_not_the_primary_one(report: Report) -> None:
    report["evaluation"]["comparisons"][1] |= {"p_value": 0.0123, "p_holm": 0.0456}
    report["evaluation"]["comparisons"][0] |= {"p_value": 0.0789, "p_holm": None}
    text = shown(report)
    assert "0.046 73 better" in text and "0.012" not in text and "0.079 44 better" in text


def test_an_inconclusive_metric_says_how_many_rows_would_settle_it(report: Report) -> None:
    report["evaluation"]["comparisons"][3] |= {"verdict": "inconclusive", "rows_needed": 1412, "unscored": 3}
    assert "75 3 without a score inconclusive about 1,412 rows would settle it" in shown(report)


def test_what_the_rows_can_show_stands_beside_what_was_found(report: Report) -> None:
    assert "21.3 points of exact match, in four runs out of five Found +49.3 points against nearest" in shown(report)
    report["gate"]["detectable"] = None
    assert "show cannot be said beforehand Found +49.3 points" in shown(report)
    report["evaluation"]["comparison"] = None
    assert "Found nothing: the primary metric has no score" in shown(report)


def test_a_metric_that_this_version_does_not_know_is_still_shown(report: Report) -> None:
    report["evaluation"]["comparisons"].append(report["evaluation"]["comparisons"][0] | {"metric": "tone_of_voice"})
    assert "tone of voice base 0.000 0.587 +0.587" in shown(report)


def test_a_person_s_own_unit_stands_behind_every_value(report: Report) -> None:
    report["manifest"]["values"]["eval"]["metrics"].append({"python": "scores:tone_of_voice", "unit": "points"})
    report["evaluation"]["comparisons"].append(report["evaluation"]["comparisons"][0] | {"metric": "tone_of_voice"})
    assert "tone of voice base 0.000 points 0.587 points +0.587 points" in shown(report)


def test_without_any_comparison_there_is_no_table(report: Report) -> None:
    report["evaluation"] |= {"comparisons": [], "comparison": None, "text": "No verdict: no row has a score."}
    page = render_html(report)
    assert_sound(page)
    text = words(section(page, "evaluation"))
    assert "No verdict: no row has a score." in text
    assert "No metric has a score on both sides, so nothing could be compared." in text


def test_a_verdict_that_could_not_be_given_says_why_before_any_figure(unjudged: Report) -> None:
    page = render_html(unjudged)
    assert '<div class="banner warn" role="status">' in page
    text = words(section(page, "evaluation"))
    why = "No verdict: the judge is not reliable, and 'judge' is the primary metric."
    assert text.startswith(f"Did it help? {why}") and "decides" not in text.partition("Improved:")[0]
    assert "Judge's mark no score no score no score" in text


def test_identical_answers_raise_an_alarm_at_the_top(report: Report) -> None:
    assert "Alarm:" not in render_html(report)
    report["evaluation"]["identical_share"] = 1.0
    head = words(render_html(report).partition("<section")[0])
    assert "Alarm: base and tuned gave the same answer to every one of the 75 test rows." in head


# --- the other metrics, and what the answers took ---------------------------------------------------------------------


def test_the_other_metrics_are_drawn_but_those_that_are_no_shares(report: Report) -> None:
    part = section(render_html(report), "evaluation")
    assert re.findall(r'<p class="group">(.*?)</p>', part) == ["valid JSON", "field F1", "chrF++"]
    assert len(re.findall(r'<circle class="dot tuned" cx="97.33%"', part)) == 1


def test_without_metrics_in_percent_there_is_a_table_and_no_chart(report: Report) -> None:
    comparisons = report["evaluation"]["comparisons"]
    report["evaluation"]["comparisons"] = [each for each in comparisons if each["metric"] == "loss"]
    page = render_html(report)
    assert "<svg" not in section(page, "evaluation")
    assert_sound(page)


def test_latency_tokens_and_money_of_each_side_stand_beside_its_quality(report: Report) -> None:
    text = shown(report)
    for fact in (
        "On average Base nearest Tuned Exact match 0.0 % 9.3 % 58.7 %",
        "Input tokens of a request 155.9 359.3 155.9",
        "Time of an answer 0.89 s 1.36 s 0.65 s",
        "Answers that end by themselves 84.0 % 85.3 % 100.0 %",
    ):
        assert fact in text
    report["evaluation"]["sides"]["nearest"] |= {"num_unanswered": 4, "output_tokens": None, "stopped_share": None}
    report["gate"]["tuned_usd_per_1000"] = None
    text = shown(report)
    assert "Rows without an answer 0 of 75 4 of 75 0 of 75" in text
    assert "39.5 unknown 22.9" in text and "Dollars for 1,000 requests $0.20 $0.20 unknown" in text


# --- slices -----------------------------------------------------------------------------------------------------------


def test_every_slice_is_there_with_each_side_and_the_difference(classes: Report) -> None:
    text = shown(classes)
    found = [text.index(f"By {by}") for by in ("class", "length", "source")]
    assert found == sorted(found)
    for part in classes["evaluation"]["slices"]:
        means = " ".join(f"{100 * mean:.1f} %" for mean in part["scores"].values())
        ends = f"{100 * part['ci_low']:+.1f} to {100 * part['ci_high']:+.1f}"
        row = f"{part['num_rows']} {100 * part['difference']:+.1f} {ends} {means}"
        assert f"{part['name'].rpartition(': ')[2]} {row}" in text


@pytest.mark.parametrize(("metric", "ends", "is_worse"), [("accuracy", (-0.3, -0.1), True), ("loss", (0.1, 0.3), True)])
def test_a_slice_that_got_worse_stands_out(
    classes: Report, metric: str, ends: tuple[float, float], is_worse: bool
) -> None:
    before = shown(classes).partition("Parts of the test rows")[2].partition("What was taken")[0]
    assert "worse" not in before
    classes["evaluation"]["comparison"]["metric"] = metric
    classes["evaluation"]["slices"][1] |= {"ci_low": ends[0], "ci_high": ends[1]}
    after = shown(classes).partition("Parts of the test rows")[2].partition("What was taken")[0]
    assert ("worse" in after) == is_worse


def test_a_slice_without_scores_says_so(classes: Report) -> None:
    part = classes["evaluation"]["slices"][0]
    part |= {"scores": dict.fromkeys(part["scores"]), "difference": None, "ci_low": None, "ci_high": None}
    assert "billing 7 unknown no score no score no score" in shown(classes)


def test_slices_that_have_no_score_at_all_are_not_shown(unjudged: Report) -> None:
    assert unjudged["evaluation"]["slices"] and "Parts of the test rows" not in shown(unjudged)


# --- classes ----------------------------------------------------------------------------------------------------------


def test_a_matrix_has_every_number_and_a_colour_by_its_share_of_the_class(classes: Report) -> None:
    part = section(render_html(classes), "evaluation")
    for side in ("Base", "Tuned"):
        confusion = classes["evaluation"]["confusion"][side.lower()]
        table = part.partition(f"<h4>{side}</h4>")[2].partition("</table>")[0]
        found = re.findall(r'<td class="(right|wrong)(?: none)?" style="--heat: (\d+)%">([\d,]+)</td>', table)
        numbers = [number for row in confusion["counts"] for number in row]
        assert [int(number) for *_, number in found] == numbers
        heats = [round(60 * number / sum(row)) for row in confusion["counts"] for number in row]
        assert [int(heat) for _, heat, _ in found] == pytest.approx(heats, abs=1)
        size = len(confusion["labels"])
        assert [i for i, (kind, *_) in enumerate(found) if kind == "right"] == [(size + 1) * i + i for i in range(size)]
    assert "The same of nearest" in words(part)


def test_a_class_without_rows_has_no_share_to_colour() -> None:
    assert [cell.share for cell in cells([0, 0, 0], 1)] == [0, 0, 0]
    assert [cell.is_right for cell in cells([0, 4, 1], 1)] == [False, True, False]


def many_classes(num: int) -> Report:
    labels = [f"class {i:02}" for i in range(num)]
    base = [[0] * (num + 1) for _ in labels]
    tuned = [list(row) for row in base]
    for i in range(num):
        base[i][i], tuned[i][i] = 5, 9
        base[i][(i + 1) % num] = i
    base[3][num] = 99
    tuned[7][2] = 400
    return {"base": {"labels": labels, "counts": base}, "tuned": {"labels": labels, "counts": tuned}}


def test_of_many_classes_the_largest_confusions_are_shown_and_no_matrix(classes: Report) -> None:
    classes["evaluation"]["confusion"] = many_classes(50)
    page = render_html(classes)
    assert_sound(page)
    text = words(section(page, "evaluation"))
    assert "Expected Answered Base Tuned class 07 class 02 0 400 class 03 no class 99 0 class 49 class 00 49 0" in text
    assert "of 50 classes: the 12 largest of 51 confusions" in text and "class 40 class 41 40 0" in text
    assert "class 39 class 40" not in text and '<table class="heat">' not in page


def test_twelve_classes_still_fit_into_a_matrix(classes: Report) -> None:
    classes["evaluation"]["confusion"] = many_classes(12)
    assert '<table class="heat">' in render_html(classes)
    classes["evaluation"]["confusion"] = many_classes(13)
    assert '<table class="heat">' not in render_html(classes)


def test_answers_that_are_all_right_confuse_nothing(classes: Report) -> None:
    right = [[int(i == j) for j in range(14)] for i in range(13)]
    confusions = {"base": {"labels": [f"{i}" for i in range(13)], "counts": right}}
    assert confused(confusions) == ((), 0)
    classes["evaluation"]["confusion"] = confusions
    assert "Nothing: every answer on every side names the expected class." in shown(classes)
    assert len(confused(many_classes(50))[0]) == MOST_CONFUSIONS


# --- samples ----------------------------------------------------------------------------------------------------------


def test_each_sample_is_marked_by_its_own_scores(report: Report) -> None:
    marks = re.findall(
        r"<h4>(Base|nearest|Tuned)\s*<span[^>]*>. (right|wrong)", section(render_html(report), "samples")
    )
    expected = []
    for sample in report["evaluation"]["samples"]:
        for side, title in (("base", "Base"), ("nearest", "nearest"), ("tuned", "Tuned")):
            expected.append((title, "right" if sample["scores"][side] == 1 else "wrong"))
    assert marks == expected and len(set(marks)) == 5


def test_a_metric_that_is_not_right_or_wrong_shows_its_value_in_samples(report: Report) -> None:
    report["evaluation"]["comparison"]["metric"] = "chrf"
    report["evaluation"]["samples"][0]["scores"]["base"] = 0.634
    text = shown(report, "samples")
    assert "chrF++ 63.4 %" in text and "✓ right" not in text


def test_a_very_long_answer_is_shortened_and_says_so(report: Report) -> None:
    report["evaluation"]["samples"][0]["answers"]["base"] = "x" * 3000
    page = render_html(report)
    assert "x" * 1500 in page and "x" * 1501 not in page
    assert "and 1,500 more characters" in page


def test_an_empty_answer_is_named_as_empty_and_a_missing_one_as_missing(report: Report) -> None:
    sample = report["evaluation"]["samples"][0]
    sample["answers"] |= {"base": "\n", "nearest": None}
    sample["scores"]["nearest"] = None
    text = shown(report, "samples")
    assert "Base ✗ wrong empty nearest no score no answer Tuned ✓ right" in text


def test_findings_that_have_a_section_of_their_own_are_not_told_twice(classes: Report) -> None:
    own, other = problem("The share fell.", code="eval/forgot"), problem("A row has no score.", severity="warning")
    classes["evaluation"]["forgetting"]["findings"] = [own]
    classes["evaluation"]["findings"] = [other, own, *classes["evaluation"]["judge"]["findings"]]
    text = shown(classes)
    assert "A row has no score." in text and "The share fell." not in text
    assert "The share fell." in shown(classes, "forgetting")
