"""What the tests of the page look at: reports, and the page as a reader or a parser sees it."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from runner.render.charts import Chart
from runner.schema import read_schema

Report = dict[str, Any]
FIXTURES = Path(__file__).parents[1] / "fixtures"
HOSTILE = '<script>alert(\'x\')</script> "quoted" & <img src=x onerror="y">'
ESCAPED = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &#34;quoted&#34; &amp; &lt;img src=x onerror=&#34;y&#34;&gt;"
KEPT = sorted(path.stem for path in FIXTURES.glob("report*.json"))
VOID = {"meta", "br", "hr", "img", "link", "input"}


def read_report(name: str) -> Report:
    """A report kept beside the tests; each call gives a new one."""
    found: Report = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def assert_valid(report: Report) -> None:
    """The report keeps the published schema."""
    assert [error.message for error in Draft202012Validator(read_schema("report")).iter_errors(report)] == []


def problem(what: str, **changes: Any) -> Report:
    """A problem as it stands in a report."""
    where = dict.fromkeys(("path", "line", "column", "key"))
    return {"code": "a/code", "what": what, "where": where, "fix": "", "severity": "error"} | changes


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


def read_back(chart: Chart, y: float) -> float:
    """The value at a height, by the chart's own labelled ticks."""
    (y0, v0), (y1, v1) = (
        (t.at, float(t.label.replace("$", "").replace(",", ""))) for t in (chart.y_ticks[0], chart.y_ticks[-1])
    )
    return v0 + (y - y0) / (y1 - y0) * (v1 - v0)


def headings(page: str) -> list[str]:
    """The ids of the page's sections, in their order."""
    return re.findall(r'<section id="(\w+)">', page)
