"""Texts made comparable, in every script: one spelling of what says the same, and words."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ーｰ"  # written without spaces
_QUOTES = "\"'`"
_OPENING = {"Ps", "Pi", "Pf"}
_CLOSING = {"Pe", "Pi", "Pf"}
_ENDS = ".,;:!?。、؟،؛।॥…·"  # no signs: A+ and A-, 5 % and 5, C# and C are not the same


def normalise(text: str) -> str:
    """The text blind to case, Unicode spelling (NFKC), runs of white space, and to quotes, brackets and stops around
    it; a text of nothing else keeps them."""
    plain = " ".join(_fold(text).split())
    start, stop = 0, len(plain)
    while start < stop and _opens(plain[start]):
        start += 1
    while start < stop and _closes(plain[stop - 1]):
        stop -= 1
    return plain[start:stop] or plain


def split_words(text: str) -> list[str]:
    """Its words in lower case: runs of letters, marks and digits; each character where words have no spaces."""
    found: list[str] = _words().findall(_fold(text))
    return found


def has_unspaced(text: str) -> bool:
    """Whether it has a character of a script that is written without spaces."""
    return _unspaced().search(text) is not None


def space_out(text: str) -> str:
    """The text with a space on both sides of each character of a script that is written without them."""
    spaced: str = _unspaced().sub(r" \g<0> ", text)
    return spaced


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _opens(character: str) -> bool:
    return character in _QUOTES or character.isspace() or character in "¿¡" or _category(character) in _OPENING


def _closes(character: str) -> bool:
    known = character in _QUOTES or character in _ENDS
    return known or character.isspace() or _category(character) in _CLOSING


def _category(character: str) -> str:
    return unicodedata.category(character)


@cache
def _words() -> Any:
    import regex

    return regex.compile(rf"(?V1)[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+")


@cache
def _unspaced() -> Any:
    import regex

    return regex.compile(rf"[{UNSPACED}]\p{{M}}*")
