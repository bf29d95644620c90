"""The net by month and the loss by step: what is drawn stands where its values are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.render import render_html
from runner.render.charts import MOST_POINTS, net_chart, nice_ticks, training_chart
from tests.render.pages import Report, assert_sound, read_back, section, words


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
    chart = training_chart(report["training"])
    assert chart is not None
    for key in ("loss", "dev_loss"):
        logged = [point for point in curve if point[key] is not None]
        assert [read_back(chart, y) for _, y in chart.lines[key]] == pytest.approx([p[key] for p in logged], abs=0.01)
        assert [x for x, _ in chart.lines[key]] == pytest.approx([100 * p["step"] / 57 for p in logged], abs=0.01)


@pytest.mark.parametrize("points", [0, 1])
def test_a_run_of_no_or_one_logged_step_is_still_sound(report: Report, points: int) -> None:
    logged = [point for point in report["training"]["curve"] if point["loss"] is not None]
    report["training"]["curve"] = logged[:points]
    page = render_html(report)
    assert_sound(page)
    assert section(page, "training").count('<circle class="dot loss"') == points


def test_the_step_whose_weights_are_used_is_marked_on_the_dev_loss(classes: Report) -> None:
    chart = training_chart(classes["training"])
    assert chart is not None
    ((x, y),) = chart.lines["best"]
    assert (x, read_back(chart, y)) == (50, pytest.approx(0.4102, abs=0.01))
    found = re.findall(r'<circle class="dot best" cx="([\d.]+)%" cy="([\d.]+)" r="7"', render_html(classes))
    assert [(float(cx), float(cy)) for cx, cy in found] == [(x, y)]


def test_a_line_stands_where_an_interrupted_training_went_on(classes: Report) -> None:
    classes["training"]["resumed_from"] = [48, 120, 120]
    found = re.findall(r'<line class="line resumed" x1="([\d.]+)%" x2="([\d.]+)%"', render_html(classes))
    assert found == [("30.0", "30.0"), ("75.0", "75.0")]
    assert "went on after an interruption" in words(section(render_html(classes), "training"))
    classes["training"]["resumed_from"] = []
    assert "went on after an interruption" not in words(section(render_html(classes), "training"))


@pytest.mark.parametrize(("losses", "whole"), [((3.0, 1.49), True), ((3.0, 1.51), False), ((0.0, 0.0), True)])
def test_a_plot_of_losses_that_are_much_alike_does_not_begin_at_zero_and_says_so(
    report: Report, losses: tuple[float, float], whole: bool
) -> None:
    curve = [{"step": i, "loss": loss, "dev_loss": loss, "learning_rate": 0.1} for i, loss in enumerate(losses)]
    report["training"] |= {"curve": curve, "best_step": 1, "resumed_from": []}
    chart = training_chart(report["training"])
    assert chart is not None
    assert [read_back(chart, y) for _, y in chart.lines["loss"]] == pytest.approx(losses, abs=0.02)
    assert all(0 <= y <= chart.height for _, y in chart.lines["loss"])
    assert (float(chart.y_ticks[0].label) == 0) is whole and chart.zero == chart.height
    page = render_html(report)
    assert_sound(page)
    assert ("The plot does not begin at zero." in page) is not whole


def test_a_long_curve_is_thinned_but_keeps_its_ends() -> None:
    curve = [{"step": step, "loss": 1 / step, "dev_loss": None} for step in range(1, 10_001)]
    chart = training_chart({"curve": curve, "best_step": 10_000, "resumed_from": []})
    assert chart is not None
    points = chart.lines["loss"]
    assert len(points) <= MOST_POINTS + 1
    assert points[0] == (0.01, 0.0)
    assert points[-1] == pytest.approx((100, chart.zero), abs=0.1)


@given(st.floats(-1e7, 0), st.floats(0, 1e7), st.integers(2, 8))
def test_ticks_cover_the_values_and_stay_few(low: float, high: float, wanted: int) -> None:
    ticks = nice_ticks(low, high, wanted=wanted)
    assert ticks[0] <= low + 1e-9 and ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= wanted + 3
