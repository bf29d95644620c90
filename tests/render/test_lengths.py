"""The rows by their length: what is drawn stands where its values are."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.tokens import Lengths, report_tokens
from runner.render import render_html
from runner.render.charts import PLOT_HEIGHT, Chart
from runner.render.lengths import Histogram, length_chart
from runner.report import to_json
from tests.render.data import TOKENS
from tests.render.pages import Report, assert_sound, read_back, section, words


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
