"""The report as a page, drawn from its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from runner.files import file_name
from runner.render.advice import reach, recommended
from runner.render.charts import net_chart, training_chart
from runner.render.classes import cells, confused, fits_matrix
from runner.render.headline import make_headline
from runner.render.lengths import length_chart
from runner.render.scores import make_picture, other_metrics, side_title
from runner.render.sweep import sweep_picture, sweep_units
from runner.render.training import glance, known, memory_bar, processes
from runner.render.units import read_units
from runner.render.words import chance, count, duration, flatten, per_1000, percent, plain, price, size, usd

__all__ = ["render_html", "render_sweep"]

FILTERS = (chance, count, duration, file_name, per_1000, percent, plain, price, side_title, size, usd)
FUNCTIONS = (
    cells,
    confused,
    fits_matrix,
    flatten,
    glance,
    known,
    length_chart,
    make_picture,
    memory_bar,
    net_chart,
    other_metrics,
    processes,
    reach,
    recommended,
    training_chart,
)


def render_html(report: Mapping[str, Any]) -> str:
    """One self-contained HTML page: no script, no outside file."""
    units = read_units(report)
    template = _environment().get_template("report.html.j2")
    return template.render(report=report, units=units, headline=make_headline(report))


def render_sweep(report: Mapping[str, Any]) -> str:
    """The page of a sweep, drawn from its JSON (`ranking.report_sweep`) alone."""
    units = sweep_units(report)
    template = _environment().get_template("sweep.html.j2")
    return template.render(report=report, units=units, picture=sweep_picture(report, units))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {shown.__name__: shown for shown in FILTERS}
    environment.globals |= {function.__name__: function for function in FUNCTIONS}
    return environment
