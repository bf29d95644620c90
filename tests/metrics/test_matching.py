"""Answers compared by their characters."""

from __future__ import annotations

import re
import time
import unicodedata
import warnings

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.metrics import Score
from runner.metrics.words import normalise
from tests.metrics.scores import score


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("yes", "yes", 1),
        (" yes\n", "yes", 1),
        ("yes", "\tyes ", 1),
        ("Yes", "yes", 0),
        ("y es", "yes", 0),
        ("", "yes", 0),
        ("", "", 1),
        ("はい。", "はい。", 1),
        ("はい", "はい。", 0),
        ("é", "e\u0301", 0),
    ],
)
def test_exact_match_forgives_only_white_space_at_the_ends(output: str, expected: str, value: float) -> None:
    assert score("exact_match", output, expected) == Score(value=value)


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("Yes.", "yes", 1),
        ('"Yes!"', "yes", 1),
        ("“Straße”", "STRASSE", 1),
        ("« oui »", "Oui", 1),
        ("¿Qué?", "qué", 1),
        ("「はい。」", "はい", 1),
        ("ＡＢＣ１２", "abc12", 1),
        ("é", "e\u0301", 1),
        ("two\n  words", "two words", 1),
        ("(a)", "a", 1),
        ("", "", 1),
        ("two words", "twowords", 0),
        ("don't", "dont", 0),
        ("A+", "A-", 0),
        ("C#", "C", 0),
        ("5%", "5", 0),
        ("-5", "5", 0),
        (".5", "5", 0),
        ("<1", ">1", 0),
        ("!", "?", 0),
        ("[]", "{}", 0),
        ("...", "", 0),
        ("yes, it is", "yes", 0),
    ],
)
def test_normalised_match_forgives_spelling_and_what_stands_around(output: str, expected: str, value: float) -> None:
    assert score("normalised_match", output, expected) == Score(value=value)
    assert score("normalised_match", expected, output) == Score(value=value)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=12), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), st.sampled_from(["", " ", "\n\t"]))
def test_one_text_has_one_normal_form(text: str, form: str, space: str) -> None:
    spelled = unicodedata.normalize(form, text)  # type: ignore[arg-type]
    assert normalise(space + spelled + space) == normalise(text)


@pytest.mark.parametrize(
    ("pattern", "output", "value"),
    [
        (r"^[A-Z]{2}-\d{5}$", "AB-12345", 1),
        (r"^[A-Z]{2}-\d{5}$", " AB-12345\n", 1),
        (r"^[A-Z]{2}-\d{5}$", "ab-12345", 0),
        (r"\d{5}", "number 12345, as you said", 1),
        (r"(?i)thanks", "THANKS a lot", 1),
        ("", "", 1),
        (r"x{e}", "x{e}", 1),
        (r"x{e}", "y", 0),
        (r"(?:refund){e<=2}", "refunt", 0),
        (r'{"a": \d{,3}}', '{"a": 12}', 1),
        (r"[{}e]+\{\N{LATIN SMALL LETTER A}", "{e}{a", 1),
    ],
)
def test_the_pattern_is_found_as_python_finds_it(pattern: str, output: str, value: float) -> None:
    assert bool(re.search(pattern, output.strip())) == bool(value)
    assert score("regex", output, pattern=pattern) == Score(value=value)


@settings(deadline=None, max_examples=300)
@given(st.text("ab{}e,12[]()|*+?^$.\\<=d", max_size=10), st.text("ab{e},1 d", max_size=8))
def test_any_pattern_of_pythons_means_the_same(pattern: str, output: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compiled = re.compile(pattern)
        except (re.error, OverflowError):
            assume(False)
        assert score("regex", output, pattern=pattern) == Score(value=bool(compiled.search(output.strip())))


def test_a_pattern_that_would_never_end_leaves_the_row_unscored() -> None:
    started = time.perf_counter()
    found = score("regex", "a" * 60 + "b", pattern="(a|aa)+$")
    assert found == Score(value=None, reason="the search for eval.pattern took longer than 1 s")
    assert time.perf_counter() - started < 5


def test_without_a_pattern_nothing_is_searched_for() -> None:
    assert score("regex", "a").reason == "no eval.pattern given"


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("The answer is Paris.", "paris", 1),
        ("The answer is\n New  York, of course", "“New York”", 1),
        ("答えは東京です。", "東京", 1),
        ("The answer is London.", "Paris", 0),
        ("", "Paris", 0),
        ("par is", "Paris", 0),
    ],
)
def test_contains_looks_for_the_expected_answer(output: str, expected: str, value: float) -> None:
    assert score("contains", output, expected) == Score(value=value)


@pytest.mark.parametrize("expected", ["", " \n"])
def test_nothing_is_contained_in_everything_and_so_unscored(expected: str) -> None:
    assert score("contains", "text", expected) == Score(value=None, reason="the expected answer is empty")


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [("", "", 1), ("ab", "abcd", 0.5), ("abcd", "ab", 0.5), ("", "ab", 0), (" ab\n", "cd", 1), ("荷物", "abcd", 0.5)],
)
def test_length_compares_characters(output: str, expected: str, value: float) -> None:
    assert score("length", output, expected) == Score(value=value)
