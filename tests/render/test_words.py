"""Numbers as people write them, and scores in their own units."""

from __future__ import annotations

import pytest

from runner.render.units import read_units
from runner.render.words import chance, count, duration, per_1000, percent, plain, price, size, usd
from tests.render.pages import Report


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
        (plain([{"python": "scores:warmth", "unit": "points"}]), "python: scores:warmth unit: points"),
        (per_1000(0.0), "$0.00"),
        (per_1000(0.00002), "less than $0.0001"),
        (per_1000(0.0012), "$0.0012"),
        (per_1000(0.0604), "$0.060"),
        (per_1000(0.42), "$0.42"),
        (per_1000(1234.5), "$1,234.50"),
        (size(0), "0 bytes"),
        (size(1), "1 byte"),
        (size(1023), "1,023 bytes"),
        (size(1024), "1.0 KiB"),
        (size(1024**2 - 1), "1.0 MiB"),
        (size(1_600_000), "1.5 MiB"),
        (size(84_301_971_456), "78.5 GiB"),
        (size(3 * 1024**5), "3,072.0 TiB"),
        (chance(0.0004), "under 0.001"),
        (chance(0.0625), "0.062"),
        (chance(1.0), "1.000"),
    ],
)
def test_numbers_read_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected


def asking_for(report: Report, *metrics: str | Report) -> Report:
    report["manifest"]["values"]["eval"]["metrics"] = list(metrics)
    return report


@pytest.mark.parametrize(
    ("metric", "value", "change"),
    [
        ("chrf", "95.0 %", "-5.0 points"),
        ("loss", "0.950 nats", "-0.050 nats"),
        ("perplexity", "0.950 ppl", "-0.050 ppl"),
        ("warmth", "0.950 marks", "-0.050 marks"),
        ("politeness", "95.0 %", "-5.0 points"),
        ("never_heard_of", "0.950", "-0.050"),
    ],
)
def test_a_score_and_a_difference_have_the_metric_s_unit(report: Report, metric: str, value: str, change: str) -> None:
    own = ({"python": "scores:warm", "name": "warmth", "unit": "marks"}, {"python": "scores:politeness"})
    units = read_units(asking_for(report, "chrf", *own))
    assert units.value(metric, 0.95) == value
    assert f"{units.change(metric, -0.05)} {units.change_unit(metric)}".rstrip() == change
    assert units.amount(metric, -0.05) == change.lstrip("-")


def test_a_person_s_own_metric_may_have_the_name_of_ours_and_reads_as_theirs(report: Report) -> None:
    own = {"python": "scores:chrf", "unit": "words", "higher_is_better": False}
    units = read_units(asking_for(report, own))
    assert units.value("chrf", 3.0) == "3.000 words" and not units.of("chrf").higher_is_better


def test_large_values_have_no_more_decimals_than_they_need(report: Report) -> None:
    units = read_units(report)
    assert units.value("perplexity", 12345.678) == "12,345.7 ppl"
    assert units.change("perplexity", -12345.678) == "-12,345.7"


def test_no_difference_has_no_minus(report: Report) -> None:
    units = read_units(report)
    assert (units.change("chrf", -0.00001), units.change("loss", -0.00001)) == ("+0.0", "+0.000")


def test_which_end_of_an_unknown_metric_is_better_is_learnt_from_its_comparison(report: Report) -> None:
    report["manifest"]["values"] = None
    report["evaluation"]["comparisons"][0] |= {"metric": "slips", "higher_is_better": False}
    assert not read_units(report).of("slips").higher_is_better
    assert read_units(report).value("slips", 2.0) == "2.000"


def test_the_primary_metric_is_the_one_that_decides_else_the_first_asked_for_else_the_target_s(report: Report) -> None:
    asking_for(report, "chrf", "loss")
    report["evaluation"]["comparison"]["metric"] = "json_valid"
    assert read_units(report).primary == "json_valid"
    report["evaluation"]["comparison"] = None
    assert read_units(report).primary == "chrf"
    report["manifest"]["values"] = None
    assert read_units(report).primary == "exact_match"
    assert read_units(report | {"gate": None}).primary is None
