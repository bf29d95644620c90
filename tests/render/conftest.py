"""Reports to draw, as the stages left them."""

from __future__ import annotations

import pytest

from runner.errors import Exit
from runner.report import Facts, make_report
from tests.render.data import DATASET
from tests.render.pages import Report, read_report


@pytest.fixture
def report() -> Report:
    """A whole run that improved on a base that could do nothing, with data of many kinds."""
    return read_report("report") | {"data": make_report(Facts(data=DATASET), "done", Exit.DONE, "")["data"]}


@pytest.fixture
def classes() -> Report:
    """A whole run over six classes, with slices, a judge that is reliable, and general probes."""
    return read_report("report-classes")


@pytest.fixture
def enough() -> Report:
    """A run that the gate ended: a prompt with examples reaches the target."""
    return read_report("report-enough")


@pytest.fixture
def unjudged() -> Report:
    """A run whose primary metric is a judge that failed its test."""
    return read_report("report-unjudged")
