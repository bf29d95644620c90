"""Answers that are right or wrong by their characters."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from runner.metrics.base import Answer, Score, share, unscored
from runner.metrics.words import normalise

SEARCH_SECONDS = 1.0  # ample, but for a pattern that is exponential, or quadratic on a very long answer
_NO_COUNT = re.compile(r"\\N\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(\{)(?!\d+(?:,\d*)?\}|,\d*\})", re.DOTALL)


def exact_match(answer: Answer) -> Score:
    """1 when the answer equals the expected one, apart from white space at both ends."""
    return share(answer.output.strip() == answer.expected.strip())


def normalised_match(answer: Answer) -> Score:
    """1 when both say the same, blind to case, Unicode spelling, white space, and punctuation and quotes around."""
    return share(normalise(answer.output) == normalise(answer.expected))


def matches(answer: Answer) -> Score:
    """1 when the pattern is found in the answer (white space at both ends apart); the pattern must be a valid one."""
    if answer.pattern is None:
        return unscored("no eval.pattern given")
    try:
        found = _search(answer.pattern).search(answer.output.strip(), timeout=SEARCH_SECONDS)
    except TimeoutError:
        return unscored(f"the search for eval.pattern took longer than {SEARCH_SECONDS:.0f} s")
    return share(found is not None)


def contains(answer: Answer) -> Score:
    """1 when the normalised expected answer stands somewhere in the normalised answer."""
    expected = normalise(answer.expected)
    return share(expected in normalise(answer.output)) if expected else unscored("the expected answer is empty")


def length(answer: Answer) -> Score:
    """The shorter of both over the longer, in characters without white space at both ends; 1 when both are empty."""
    shorter, longer = sorted((len(answer.output.strip()), len(answer.expected.strip())))
    return share(shorter / longer if longer else 1)


@cache
def _search(pattern: str) -> Any:
    """Python's pattern for the package regex, whose searches can be given a time limit.

    A brace that counts nothing is a brace to Python, and there the start of a fuzzy match.
    """
    import regex

    return regex.compile(_NO_COUNT.sub(lambda token: "\\{" if token[1] else token[0], pattern))
