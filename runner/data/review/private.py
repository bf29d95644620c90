"""What should not be taught to a model: keys, passwords, and data of people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from runner.masking import SHAPES

HIDDEN = "(hidden: it holds a secret)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """A row as the checks read it: what stands before the answer, the last question, the answer; then all of it, the
    same in lower case, and whether a number long enough for a telephone stands in it."""

    prompt: str
    question: str
    answer: str
    all: str
    lower: str
    has_long_number: bool

    @classmethod
    def of(cls, *, prompt: str = "", question: str = "", answer: str) -> Turns:
        """The turns, with what several checks need."""
        text = f"{prompt}\n{answer}"
        many_digits = sum(map(text.count, "0123456789")) > 7  # counting is ten times as fast as the pattern
        number = many_digits and _LONG_NUMBER.search(text) is not None
        return cls(
            prompt=prompt, question=question, answer=answer, all=text, lower=text.lower(), has_long_number=number
        )


def hide(text: str) -> str:
    """The text as it may be printed: without one that holds a secret."""
    turns = Turns.of(answer=text)
    return HIDDEN if secret(turns) or password(turns) else text


_ASSIGNED = re.compile(
    r"(?:password|passwd|pwd|secret_key|api[_-]?key|access_token|secret_access_key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
    r"(?=[^\s\"']{0,64}\d)(?=[^\s\"']{0,64}[a-z])(?P<value>[^\s\"',;<>{}()\[\]]{8,64})(?![\w(\[{])"
)
_IN_ADDRESS = re.compile(r"\b[a-z]+://[\w.-]+:(?=[^\s@]{0,64}\d)(?P<value>[^\s/:@<>{}\[\]$]{6,64})@\w")
_ASKS_FOR_ONE = re.compile(
    r"(?i)\b(?:generate|create|make|suggest|random|strong|invent)\b[^.?!]{0,200}\b(?:password|key)"
)
_EXAMPLE_SECRET = re.compile(
    r"your|example|change_?me|password|passw0rd|secret|123|xxx|\*\*\*|abc|test|demo|env\b|\.\w+\."
)


def secret(turns: Turns) -> str | None:
    """The kind of a key or token, never the thing itself."""
    lower = turns.lower
    found = (kind for kind, needle, pattern in SHAPES if needle in lower and pattern.search(turns.all))
    return next(found, None)


def password(turns: Turns) -> str | None:
    """A password or key given by name, or in an address; one such as 'your_password1' is an example."""
    lower = turns.lower
    found: list[re.Match[str]] = []
    if any(word in lower for word in ("_", "passw", "pwd", "apikey", "api-key")):
        found.extend(_ASSIGNED.finditer(lower))
    if "://" in lower and "@" in lower:
        found.extend(_IN_ADDRESS.finditer(lower))
    real = any(not _EXAMPLE_SECRET.search(match["value"]) for match in found)
    return "a password" if real and not _ASKS_FOR_ONE.search(turns.question) else None


_EMAIL = re.compile(r"(?<![\w.+-])([\w.+-]{1,64})@((?:[\w-]{1,63}\.)+[A-Za-z]{2,24})\b")
# Addresses of no person, or of nobody at all.
_NO_PERSON = re.compile(
    r"(?i)^(?:info|support|contact|sales|admin|help|helpdesk|hello|office|press|media|hr|jobs|careers|team|editor|mail|"
    r"no-?reply|feedback|enquir\w+|inquir\w+|service|customer\w*|webmaster|git|you|your.*|me|name|user\w*|e?mail|"
    r"someone|john\.?doe|jane\.?doe|test|abc|xyz)@|[@.](?:example[\w-]*|e?mail|domain|test|company|your[\w-]*|acme|abc|xyz|website)"
    r"\.\w+$|\.(?:example|test|invalid|local)$"
)
_LONG_NUMBER = re.compile(r"\d[\d ().A-Z-]{5,}\d")  # letters: IBAN
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+(?!1\b)\d{1,3}[ .-]\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}|(?:\+?1[ .-])?"
    r"(?:\((?P<a>[2-9]\d\d)\) ?|(?P<b>[2-9]\d\d)(?P<sep>[.-]))"
    r"(?!555)[2-9]\d\d(?(sep)(?P=sep)|[ .-])\d{4})(?![\w-]|\.\d)"
)
_FREE_CALL = ("800", "888", "877", "866", "855", "844", "833", "900")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\w.-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3\d{3}([ -])\d{6}\2\d{5})(?![\w-]|\.\d)")
_CARD_PREFIX = re.compile(r"4(?:.{12}|.{15}|.{18})$|(?:5[1-5]|2[2-7]).{14}$|3[47].{13}$|(?:6011|65..|35..).{12}$")
_TEST_CARDS = {"4111111111111111", "4242424242424242", "5555555555554444", "378282246310005", "4012888888881881"}
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_IP = re.compile(r"(?<![\w./-])(?:\d{1,3}\.){3}\d{1,3}(?![\w/-]|\.\d)")


def contact(turns: Turns) -> str | None:
    """An e-mail address or a telephone number of a person; 555 numbers and example domains are nobody's."""
    if "@" in turns.all and any(not _NO_PERSON.search(found[0]) for found in _EMAIL.finditer(turns.all)):
        return "e-mail address"
    if not turns.has_long_number:
        return None
    phones = _PHONE.finditer(turns.all)
    return "telephone number" if any((found["a"] or found["b"]) not in _FREE_CALL for found in phones) else None


def account(turns: Turns) -> str | None:
    """A bank account, payment card or social security number, by its check digits where it has them."""
    if not turns.has_long_number:
        return None
    if any(_is_iban(found[0].replace(" ", "")) for found in _IBAN.finditer(turns.all)):
        return "IBAN"
    spoken = re.search(r"\b(?:card|visa|mastercard|amex|credit|debit)\b", turns.lower)
    for found in _CARD.finditer(turns.all):
        if _is_card(re.sub(r"\D", "", found[0])) and (spoken or not found[0].isdigit()):
            return "payment card"
    numbers = {found[0] for found in _SSN.finditer(turns.all)} - {"123-45-6789", "078-05-1120", "111-11-1111"}
    return "social security number" if numbers else None


def ip_number(turns: Turns) -> str | None:
    """A public IPv4 address; four small numbers are a version."""
    found = (match[0] for match in _IP.finditer(turns.all)) if turns.has_long_number else ()
    return "IP address" if any(_is_public(number) for number in found) else None


def _is_public(number: str) -> bool:
    try:
        return ip_address(number).is_global and max(map(int, number.split("."))) > 30
    except ValueError:
        return False


def _is_iban(number: str) -> bool:
    moved = number[4:] + number[:4]
    return 15 <= len(number) <= 34 and int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


def _is_card(digits: str) -> bool:
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    luhn = sum(n - 9 * (n > 9) for n in doubled) % 10 == 0
    return luhn and bool(_CARD_PREFIX.match(digits)) and digits not in _TEST_CARDS and len(set(digits)) > 3
