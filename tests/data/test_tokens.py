"""Lengths: percentiles, the histogram, and an estimate that keeps its band."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runner.data.tokens import Lengths, estimate_tokens, report_tokens
from tests.fakes import question


def lengths_of(totals: list[int]) -> Lengths:
    return Lengths(
        total=np.array(totals),
        labelled=np.array([max(1, total // 3) for total in totals]),
        unfit={},
        cut={},
        max_length=512,
        num_over=0,
        refused=False,
        band=None,
    )


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200))
def test_the_histogram_holds_every_row_once_and_ends_at_the_longest(totals: list[int]) -> None:
    report = report_tokens(lengths_of(totals), np.arange(len(totals)))
    ends = [end for end, _ in report.histogram]
    assert sum(rows for _, rows in report.histogram) == len(totals)
    assert ends == sorted(set(ends)) and ends[-1] == report.longest == max(totals)
    for number, (end, rows) in enumerate(report.histogram):
        begin = ends[number - 1] if number else 0
        assert rows == sum(begin < total <= end for total in totals)


def test_only_the_rows_that_are_used_are_reported() -> None:
    report = report_tokens(lengths_of([10, 1000, 20, 30]), np.array([0, 2, 3]))
    assert (report.total, report.median, report.longest, report.num_counted) == (60, 20, 30, 4)


def test_other_scripts_are_estimated_at_more_tokens_a_character() -> None:
    latin, chinese = (int(estimate_tokens([question("q", text)]).total[0]) for text in ("a" * 120, "你" * 120))
    assert chinese > 3 * latin
