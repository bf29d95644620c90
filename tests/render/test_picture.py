"""The picture of all arms and sides: every dot, bar and line stands where its value is."""

from __future__ import annotations

import re

import pytest

from runner.render import render_html
from tests.render.pages import Report, assert_sound, section, words

KINDS = (("base", "base"), ("other", "nearest"), ("tuned", "tuned"))


def shown(report: Report) -> str:
    return words(section(render_html(report), "picture"))


def drawn(page: str) -> list[tuple[str, float]]:
    """Kind and place of each dot, in their order."""
    part = section(page, "picture")
    found = re.findall(
        r'<svg x="([\d.]+)%" y="50%" overflow="visible"><rect class="dot (arm)"'
        r'|<circle class="dot (\w+)" cx="([\d.]+)%"',
        part,
    )
    return [(kind or other, float(x or cx)) for x, kind, other, cx in found]


def test_the_scores_stand_where_their_values_are(report: Report) -> None:
    dots = drawn(render_html(report))
    sides = report["evaluation"]["sides"]
    wanted = [("arm", each["side"]["scores"]["exact_match"]) for each in report["gate"]["arms"]]
    wanted += [(kind, sides[name]["scores"]["exact_match"]) for kind, name in KINDS]
    assert [kind for kind, _ in dots] == [kind for kind, _ in wanted]
    assert [at for _, at in dots] == pytest.approx([100 * score["mean"] for _, score in wanted], abs=0.01)
    bars = re.findall(
        r'<line class="line (\w+)" x1="([\d.]+)%" x2="([\d.]+)%"', section(render_html(report), "picture")
    )
    assert [kind for kind, *_ in bars] == [kind for kind, _ in wanted]
    for at, ends in (("low", [float(low) for _, low, _ in bars]), ("high", [float(high) for *_, high in bars])):
        assert ends == pytest.approx([100 * score[at] for _, score in wanted], abs=0.01)


def test_the_target_is_a_line_through_every_row_of_the_picture(report: Report) -> None:
    part = section(render_html(report), "picture")
    assert len(re.findall(r'<line class="target" x1="95.0%" x2="95.0%"', part)) == 7
    report["gate"]["target"]["metric"] = "chrf"
    part = section(render_html(report), "picture")
    assert '<line class="target"' not in part
    assert "The gate's target is of chrF++: 95.0 %." in words(part)


def test_a_score_without_an_interval_is_a_dot_without_a_bar(report: Report) -> None:
    report["evaluation"]["sides"]["tuned"]["scores"]["exact_match"] |= {"low": None, "high": None}
    page = render_html(report)
    assert ("tuned", 58.67) in drawn(page)
    assert '<line class="line tuned"' not in section(page, "picture")
    assert "58.7 % no interval" in words(section(page, "picture"))


def test_dev_and_test_rows_are_told_apart(report: Report) -> None:
    text = shown(report)
    assert text.index("On 37 dev rows") < text.index("nearest") < text.index("On 75 test rows") < text.index("Tuned")
    assert "Dev and test rows are different rows: compare within a group." in text


def by_loss(report: Report) -> Report:
    report["manifest"]["values"]["eval"]["metrics"] = ["loss", "exact_match"]
    comparisons = report["evaluation"]["comparisons"]
    report["evaluation"]["comparison"] = next(each for each in comparisons if each["metric"] == "loss")
    report["gate"]["target"] |= {"metric": "loss", "value": 0.2}
    report["gate"]["detectable"] = None
    return report


def test_a_metric_that_is_no_share_has_an_axis_of_its_own(report: Report) -> None:
    page = render_html(by_loss(report))
    assert_sound(page)
    text = words(section(page, "picture"))
    assert "by held-out loss" in text and "lower is better" in text and "target 0.200 nats" in text
    assert all(0 <= at <= 100 for _, at in drawn(page))
    ticks = re.findall(r'<text class="tick" x="([\d.]+)%"[^>]*>([\d.]+)</text>', section(page, "picture"))
    (x0, v0), (x1, v1) = ((float(x), float(v)) for x, v in (ticks[0], ticks[-1]))
    tuned = report["evaluation"]["sides"]["tuned"]["scores"]["loss"]["mean"]
    assert v0 + (dict(drawn(page))["tuned"] - x0) / (x1 - x0) * (v1 - v0) == pytest.approx(tuned, abs=0.001)


def test_a_target_beyond_every_score_is_still_on_the_axis(report: Report) -> None:
    by_loss(report)["gate"]["target"]["value"] = 9.0
    part = section(render_html(report), "picture")
    (places,) = set(re.findall(r'<line class="target" x1="([\d.]+)%"', part))
    assert 80 < float(places) <= 100


def test_values_that_are_all_the_same_can_be_drawn(report: Report) -> None:
    by_loss(report)["gate"] |= {"target": None, "arms": []}
    for side in report["evaluation"]["sides"].values():
        side["scores"]["loss"] = {"mean": 2.0, "low": None, "high": None}
    assert_sound(render_html(report))


def test_where_the_primary_metric_has_no_score_the_picture_is_of_the_target_s(unjudged: Report) -> None:
    text = shown(unjudged)
    assert "Every way of answering, by chrF++" in text
    assert "The primary metric, judge's mark, has no score on any side." in text
