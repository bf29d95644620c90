"""The script that a text is written in, and answers in another one than the rest."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from runner.data.review.tally import Rows

SCRIPTS = {
    "Latin": r"A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Cyrillic": r"\u0400-\u052f",
    "Greek": r"\u0370-\u03ff",
    "Arabic": r"\u0600-\u06ff\u0750-\u077f",
    "Hebrew": r"\u0590-\u05ff",
    "Indic": r"\u0900-\u0dff",
    "Thai": r"\u0e00-\u0e7f",
    "Hangul": r"\u1100-\u11ff\uac00-\ud7af",
    "Han or kana": r"\u3040-\u30ff\u3400-\u9fff",  # one, for Japanese mixes them
}
NO_SCRIPT = len(SCRIPTS)
_LETTERS = [re.compile(f"[{letters}]") for letters in SCRIPTS.values()]
_LATIN_SHARE = 0.7
_LANGUAGE = re.compile(
    r"translat|переве|翻译|译|übersetz|tradu|languages?\b|script|alphabet|"
    r"\b(?:english|french|german|spanish|russian|ukrainian|bulgarian|serbian|greek|chinese|mandarin|cantonese|japanese|"
    r"korean|arabic|persian|farsi|urdu|hebrew|hindi|bengali|tamil|telugu|thai|英|日语|中文)",
    re.IGNORECASE,
)


def script_of(text: str) -> int:
    """The script that most letters of the text's beginning are in, by its place in SCRIPTS; NO_SCRIPT without any.

    Latin only where it is nearly alone: names and code stand in Latin letters in every language.
    """
    beginning = text[:400]
    if beginning.isascii():
        return 0 if _LETTERS[0].search(beginning) else NO_SCRIPT
    if len(beginning.encode("ascii", "ignore")) > 0.95 * len(beginning):
        return 0
    counts = [len(letters.findall(beginning)) for letters in _LETTERS]
    if not any(counts):
        return NO_SCRIPT
    return 0 if counts[0] >= _LATIN_SHARE * sum(counts) else 1 + int(np.argmax(counts[1:]))


def script_pair(question: str, answer: str) -> int:
    """Both scripts in a byte; the answer's is unknown where the question asks for another language."""
    asked, given = script_of(question), script_of(answer)
    explained = asked != given and _LANGUAGE.search(question[:2000])
    return 16 * asked + (NO_SCRIPT if explained else given)


def unexpected_scripts(pairs: NDArray[np.uint8]) -> Rows:
    """Rows whose answer is in another script than nine in ten answers to questions in the same script."""
    found = np.zeros(len(pairs), bool)
    questions, answers = pairs // 16, pairs % 16
    for script in np.unique(questions):
        counts = np.bincount(answers[questions == script], minlength=NO_SCRIPT + 1)[:NO_SCRIPT]
        if counts.sum() >= 20 and counts.max() >= 0.9 * counts.sum():
            found |= (questions == script) & (answers != counts.argmax()) & (answers != NO_SCRIPT)
    return np.flatnonzero(found)
