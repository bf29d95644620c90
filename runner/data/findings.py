"""What is worth knowing about the rows: one table of checks, and a review that reads every row once."""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import numpy as np
from numpy.typing import NDArray

from runner.conversation import Example
from runner.data.diversity import Diversity, Hit, Rows, Whole
from runner.errors import Severity

LISTED = 1_000  # rows that a finding names; its count is exact
SHOWN = 3  # places, and examples, in a sentence
NAMES = 1_000  # different things found that a check keeps
HIDDEN = "(hidden: it holds a secret)"
Judge = Callable[[float], Severity | None]  # the share of the rows -> how grave that is, None: not worth a word


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing worth knowing about the rows; `rows` are places ("file:row"), at most LISTED of them."""

    code: str
    severity: Severity
    what: str
    fix: str
    rows: tuple[str, ...]
    count: int


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


@dataclass(frozen=True)
class Check:
    """A code, how grave which share is, the sentence ({rows}: how many), the cure, and for a check of single rows
    the function that names what it found, None for nothing. What it names must be fit to print."""

    code: str
    judge: Judge
    says: str
    fix: str
    find: Callable[[Turns], str | None] | None = None


def _warning(share: float) -> Severity | None:
    return "warning"


def _note(share: float) -> Severity | None:
    return "note"


def _error(share: float) -> Severity | None:
    return "error"


def _out_of_place(share: float) -> Severity | None:
    """What most rows hold is the task."""
    return "note" if share > 0.5 else "warning"


def _habit(share: float) -> Severity | None:
    return "warning" if 0.01 <= share <= 0.5 else "note"


def _exception(share: float) -> Severity | None:
    """What many rows do is how these rows are."""
    return "note" if share < 0.2 else None


def _knowledge(share: float) -> Severity | None:
    return "warning" if share > 0.75 else "note" if share > 0.5 else None


_CONTROLS = "\x00\x01\x02\x03\x04\x07\x08\x0e\x1a\x1b\x7f"
_MAYBE_BROKEN = re.compile("[\ufffd\x80-\x9fâïðÂÃÐÑà-ï]")
_BROKEN = re.compile(
    "\ufffd|[\x80-\x9f]|â€|ï»¿|ï¿½|ðŸ|[ÂÃ][\xa1-\xba\xbc-\xbf‰€‡ˆŠšŽžŸ“”•™œ]"
    "|(?:[ÐÑ][\xa0-\xbfƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ€‚]){3}|[à-ï][\xa1-\xaa\xac-\xba\xbc-\xbf]{2}"
)
# A zero-width space divides words in Thai, Lao, Burmese and Khmer; joiners belong to emoji and to Persian.
_ZERO_WIDTH = re.compile("\ufeff|\u2060|(?<![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b")

# What a slot's text holds (looked for first, because that is fast), and the pattern.
_SLOTS = tuple(
    (needle, re.compile(pattern, re.MULTILINE))
    for needle, pattern in (
        ("{{", r"(?<![\w\\$^_{}])\{\{-?\s*[A-Za-z_][\w.]*(?: [\w|.]+)*\s*-?\}\}"),
        ("{", r"(?<![\w\\$^_{}=)\]\"'%#@])\{[a-z]{3,}(?:_[a-z]+)*\}(?![\w{}(])"),
        ("${", r"\$\{[A-Za-z_]\w*\}"),
        ("%", r"(?:(?<=[a-z,:] )|^)%[sd](?!\w)"),
        ("<", r"(?i:<(?:insert|enter|your)\s[^<>\n=\"]{2,40}>)"),
        ("TODO", r"^TODO:? |^TODO:?$"),
        ("XXX", r"(?<![\w-])X{4,}(?![\w-])|\b[a-z]+ XXX(?![\w-])"),
        ("ipsum", r"(?i:\blorem ipsum dolor\b)"),
    )
)
_BRACKET_SLOT = re.compile(
    r"(?<![\w\])])\[(?:(?:insert|enter|your)\s[^\[\]\n]{2,40}|(?:company|customer|recipient|client|employer|product|"
    r"first|last|full)(?:'s)? name|name|date|recipient|company|sender)\](?![(\[:])",
    re.IGNORECASE,
)
_ABOUT_SLOTS = re.compile(
    r"\b(?:templat\w*|placeholder\w*|jinja2?|handlebars|mustache|liquid|vue|angular|ansible|helm|f-?strings?|django|"
    r"latex|regex\w*|bash|shell|script|code|function|program\w*|sql|html|lorem ipsum|dummy text|filler text|format "
    r"string|printf|variables?|blanks?|slots?)\b",
    re.IGNORECASE,
)
_ABOUT_FORMS = re.compile(
    r"\b(?:e-?mails?|letters?|forms?|contract|invitation|cv|r[eé]sum[eé]|memo|notice|speech)\b", re.IGNORECASE
)
_CODE = re.compile(
    r"```|</\w+>|\\(?:frac|begin|text|left|math\w+)\b|=> |;[ \t]*$|\$\(|"
    r"^[ \t]*(?:def|class|function|import|from|return|const|var|let|public|if|for|while)\b[^\n]*[({:;=]",
    re.MULTILINE,
)


def broken_encoding(turns: Turns) -> str | None:
    """Text that was decoded wrongly, or whose characters were lost."""
    control = next((char for char in _CONTROLS if char in turns.all), None)
    if control is not None:
        return f"U+{ord(control):04X}"
    if turns.all.isascii() or not _MAYBE_BROKEN.search(turns.all) or not (found := _BROKEN.search(turns.all)):
        return None
    return f"'{found[0]}'" if found[0].isprintable() else f"U+{ord(found[0][0]):04X}"


def invisible(turns: Turns) -> str | None:
    """Byte-order marks and zero-width characters inside text."""
    if turns.all.isascii() or not any(char in turns.all for char in "\ufeff\u2060\u200b"):
        return None
    found = _ZERO_WIDTH.search(turns.all)
    return f"U+{ord(found[0]):04X}" if found else None


def placeholder(turns: Turns) -> str | None:
    """A slot that nobody filled; not where the prompt speaks of templates or code, nor in code."""
    found = next((slot for needle, slots in _SLOTS if needle in turns.all and (slot := slots.search(turns.all))), None)
    if not found and "[" in turns.all and not _ABOUT_FORMS.search(turns.prompt):
        found = _BRACKET_SLOT.search(turns.all)
    if not found or _ABOUT_SLOTS.search(turns.prompt) or _CODE.search(turns.all):
        return None
    return HIDDEN if secret(turns) or password(turns) else found[0].strip()


# Kind, what its text holds in lower case (looked for first, because that is fast), and the pattern.
_SECRETS = tuple(
    (kind, needle, re.compile(pattern))
    for kind, needle, pattern in (
        ("private key", "private key-----", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[^-]{0,200}?[A-Za-z0-9+/]{20}"),
        ("AWS key", "akia", r"\bAKIA[0-9A-Z]{16}\b(?<!EXAMPLE)"),
        ("GitHub token", "_", r"g(?:h[pousr]_[A-Za-z0-9]{36}|ithub_pat_\w{50})"),
        ("Slack token", "xox", r"(?<![\w-])xox[abeprs]-[0-9]{6,}[0-9A-Za-z-]{10,}"),
        ("OpenAI or Anthropic key", "sk-", r"(?<![\w-])sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}"),
        ("Stripe key", "_", r"[rs]k_live_[0-9A-Za-z]{20,}"),
        ("Hugging Face token", "_", r"hf_[A-Za-z]{34}\b"),
        ("Google key", "aiza", r"\bAIza[\w-]{35}"),
        ("JSON web token", "eyj", r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{10,}"),
        ("bearer token", "bearer ", r"\b[Bb]earer (?=[\w.~+/-]*\d)(?=[\w.~+/-]*[A-Za-z])[\w.~+/-]{20,}"),
    )
)
_ASSIGNED = re.compile(
    r"(?:password|passwd|pwd|secret_key|api[_-]?key|access_token|secret_access_key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
    r"(?=[^\s\"']{0,64}\d)(?=[^\s\"']{0,64}[a-z])(?P<value>[^\s\"',;<>{}()\[\]]{8,64})(?![\w(\[{])"
)
_IN_ADDRESS = re.compile(r"\b[a-z]+://[\w.-]+:(?=[^\s@]{0,64}\d)(?P<value>[^\s/:@<>{}\[\]$]{6,64})@\w")
_ASKS_FOR_ONE = re.compile(r"(?i)\b(?:generate|create|make|suggest|random|strong|invent)\b[^.?!]*\b(?:password|key)")
_EXAMPLE_SECRET = re.compile(
    r"(?i)your|example|change_?me|password|passw0rd|secret|123|xxx|\*\*\*|abc|test|demo|env\b|\.\w+\."
)


def secret(turns: Turns) -> str | None:
    """The kind of a key or token, never the thing itself."""
    lower = turns.lower
    found = (kind for kind, needle, pattern in _SECRETS if needle in lower and pattern.search(turns.all))
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


_PHRASES = ("as an ai", "language model", "my knowledge cut", "my training data", "as of my last")
_PHRASE = re.compile(
    r"\bas an? (?:(?:ai|artificial intelligence)[ -]?)?(?:large )?language model|"
    r"\bas an ai(?: (?:model|assistant|chatbot))?,|"
    r"\bmy (?:knowledge cut-?off|training data)\b|\bas of my last (?:knowledge )?update"
)
_REFUSAL = re.compile(
    r"(?:i'?m|i am) (?:very )?(?:sorry|afraid),? (?:but )?i (?:can'?t|cannot|can not|am unable|am not able)\b|"
    r"(?:sorry, )?(?:but )?i (?:can'?t|cannot) (?:assist|help|fulfill?|comply|provide|engage|create|generate)\b"
)
_WORD = re.compile(r"\w+")
PROBE = 24  # characters
_OPEN_ENDED = re.compile(r"(?:,|\b(?:the|a|an|of|and|or|to|in|with|for|is|are|that|which|by|as|from|but|was))$")


def refusal(turns: Turns) -> str | None:
    """An assistant's standing phrase in place of an answer."""
    beginning = turns.answer[:400].lower().replace("’", "'")
    found = _REFUSAL.match(beginning)
    if not found and any(phrase in beginning for phrase in _PHRASES):
        found = _PHRASE.search(beginning)
    return f"'{found[0]}'" if found else None


def copied(turns: Turns) -> str | None:
    """The answer is the question, or begins with all of it."""
    question, answer = turns.question.strip(), turns.answer.strip()
    if len(question) < 15 or not answer.startswith(question):
        return None
    return "the same text" if len(answer) == len(question) else "the question first" if len(question) > 40 else None


def looping(turns: Turns) -> str | None:
    """The same words four times in a row or more, over a third of the answer. Looks at four places only: a loop so
    long has one of them in it."""
    answer = turns.answer.rstrip()
    if len(answer) < 80:
        return None
    for start in (len(answer) - PROBE, len(answer) // 4, len(answer) // 2, 3 * len(answer) // 4):
        probe = answer[start : start + PROBE]
        if answer.count(probe) > 2 and _is_loop(answer, probe, turns.prompt):
            return "the same words"
    return None


def _is_loop(answer: str, probe: str, prompt: str) -> bool:
    """Whether what lies between two places of `probe` makes up the answer, in words that the prompt does not say.

    Between four places lie three units."""
    last = answer.rfind(probe)
    unit = answer[answer.rfind(probe, 0, last + PROBE - 1) : last]
    times = answer.count(unit)
    words = _WORD.findall(3 * unit)[1:-1]  # thrice, because the unit may begin inside a word
    asked = set(words) <= set(_WORD.findall(prompt))
    return times > 2 and times * len(unit) > len(answer) / 3 and sum(map(str.isalpha, unit)) > 2 and not asked


def cut_off(turns: Turns) -> str | None:
    """An answer that ends inside a sentence, a JSON value or a block of code."""
    answer = turns.answer.rstrip()
    if answer[:1] in ("{", "["):
        return "JSON" if answer[-1] not in "}]" and not _is_json(answer) and '"' in answer[:20] else None
    if len(answer) < 80:
        return None
    if answer.count("```") % 2:
        return "code"
    last = answer[answer.rfind("\n") + 1 :]
    return "a sentence" if len(last) >= 60 and _OPEN_ENDED.search(last[-12:]) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


CHECKS = (
    Check(
        "data/secret",
        _error,
        "A key or token stands in {rows}",
        "Revoke it, and remove the row or put a made-up value in its place: a model may repeat what it was taught.",
        secret,
    ),
    Check(
        "data/password",
        _warning,
        "A password or key is given in {rows}",
        "Change it if it is real, and put a made-up value in its place.",
        password,
    ),
    Check(
        "data/account-number",
        _out_of_place,
        "A valid account, card or social security number stands in {rows}",
        "Remove it or put a made-up value in its place, unless the task needs it.",
        account,
    ),
    Check(
        "data/contact",
        _out_of_place,
        "A person's contact data may stand in {rows}",
        "Remove it or put a made-up value in its place, unless the task needs it.",
        contact,
    ),
    Check(
        "data/ip-address",
        _note,
        "A public IP address stands in {rows}",
        "Remove it, unless the task needs it.",
        ip_number,
    ),
    Check(
        "data/placeholder",
        _warning,
        "A placeholder that nobody filled stands in {rows}",
        "Put the values in, or remove the rows; the model would learn to write the placeholder.",
        placeholder,
    ),
    Check(
        "data/encoding",
        _warning,
        "Characters that were decoded wrongly stand in {rows}",
        "Read the source again in its own encoding, mostly UTF-8, and export it anew.",
        broken_encoding,
    ),
    Check(
        "data/invisible-characters",
        _note,
        "Zero-width characters or byte-order marks stand in {rows}",
        "Remove them; they make other tokens of the same words.",
        invisible,
    ),
    Check(
        "data/refusal",
        _habit,
        "The answer is an assistant's refusal or standing phrase in {rows}",
        "Remove these rows, unless refusing is what you want to teach.",
        refusal,
    ),
    Check(
        "data/copied-question",
        _habit,
        "The answer begins by repeating the question in {rows}",
        "Give the answer alone, unless a copy is the right answer.",
        copied,
    ),
    Check(
        "data/looping",
        _warning,
        "The answer says the same over and over in {rows}",
        "Cut the answer where it begins to loop.",
        looping,
    ),
    Check(
        "data/cut-off",
        _exception,
        "The answer seems to be cut off in {rows}",
        "Complete the answer: the model would learn to stop there.",
        cut_off,
    ),
    Check(
        "data/short-answer",
        _warning,
        "The answer says nothing in {rows}",
        "Complete the answers or remove the rows.",
    ),
    Check(
        "data/short-prompt",
        _note,
        "The question has fewer than 3 characters in {rows}",
        "See whether the question was lost on the way.",
    ),
    Check(
        "data/length",
        _note,
        "The answer is far shorter or longer than the others in {rows}",
        "Look at these rows: such lengths are often an error of the export.",
    ),
    Check(
        "data/script",
        _out_of_place,
        "The answer is in another script than the rest in {rows}",
        "See whether these answers are in the language that you want.",
    ),
    Check(
        "data/small-class",
        _warning,
        "A class with fewer than 10 rows is the answer in {rows}",
        "Add rows of these classes, or join them with others.",
    ),
    Check(
        "data/imbalance",
        _warning,
        "One class is the answer in {rows}",
        "Add rows of the other classes, and compare with always answering this one.",
    ),
    Check(
        "data/same-answer",
        _warning,
        "The same answer is given in {rows}",
        "Keep fewer of these rows; the model would learn to answer so whatever is asked.",
    ),
    Check(
        "data/same-opening",
        _warning,
        "The answer begins with the same words in {rows}",
        "Vary the beginnings, unless every answer should begin so.",
    ),
    Check(
        "data/few-openings",
        _note,
        "The question has the most frequent beginning in {rows}",
        "Vary the questions as your users will, unless a program writes them.",
    ),
    Check(
        "data/few-words",
        _note,
        "Nearly the same phrases make up the answers in {rows}",
        "Vary the wording, unless the answers must follow a form.",
    ),
    Check(
        "data/knowledge",
        _knowledge,
        "The answer states facts, such as numbers or names, that the prompt does not contain, in {rows}",
        "Tuning teaches behaviour better than facts: consider retrieval, or put the facts into the prompt.",
    ),
    Check(
        "data/duplicates",
        _warning,
        "An earlier question is repeated with the same answer in {rows}",
        "Remove the repeats; they count double in training.",
    ),
    Check(
        "data/contradictions",
        _warning,
        "A question has another answer elsewhere in {rows}",
        "Decide for one answer each, unless several are right.",
    ),
)
BY_CODE = {check.code: check for check in CHECKS}
FINDERS = tuple((check.code, check.find) for check in CHECKS if check.find)
SECRETS = {"data/secret", "data/password"}
RANK: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


class Places:
    """Where the rows stand, in 8 bytes each: the file's number and the row."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._packed = array("Q")

    def add(self, source: str) -> int:
        """Takes "file:row" in and gives its number; a source without a row is a file by itself."""
        file, _, row = source.rpartition(":")
        if not (row.isdecimal() and row.isascii() and len(row) < 12):
            file, row = source, "0"
        self._packed.append(self._files.setdefault(file, len(self._files)) << 40 | int(row))
        return len(self._packed) - 1

    def num_rows(self) -> int:
        return len(self._packed)

    def first(self, rows: Rows) -> tuple[str, ...]:
        """The first LISTED of these rows, by file name and row."""
        names = sorted(self._files)
        ranks = np.zeros(len(names), np.uint64)
        ranks[[self._files[name] for name in names]] = np.arange(len(names), dtype=np.uint64)
        packed = np.array(self._packed)[rows]
        ordered = np.sort(ranks[packed >> np.uint64(40)] << np.uint64(40) | packed & np.uint64(2**40 - 1))
        found = (divmod(place, 2**40) for place in ordered[:LISTED].tolist())
        return tuple(f"{names[file]}:{row}" if row else names[file] for file, row in found)


class Review:
    """Reads rows one by one, in any order, and keeps numbers instead of rows."""

    def __init__(self) -> None:
        self._whole, self._places = Whole(), Places()
        self._rows = {code: array("I") for code, _ in FINDERS}
        self._names = {code: Counter[str]() for code, _ in FINDERS}

    def add(self, example: Example) -> None:
        """Takes one row in."""
        number = self._places.add(example.source)
        prompt = "\n".join(message.text for message in example.prompt)
        question = example.messages[-2].text if len(example.messages) > 1 else ""
        turns = Turns.of(prompt=prompt, question=question, answer=example.expected)
        found = {code: name for code, find in FINDERS if (name := find(turns))}
        for code, name in found.items():
            self._rows[code].append(number)
            if name in self._names[code] or len(self._names[code]) < NAMES:
                self._names[code][name] += 1
        self._whole.add(example, prompt, hide if SECRETS & found.keys() else str)

    def findings(self) -> tuple[Finding, ...]:
        """What was found: most severe first, then most frequent."""
        hits = [Hit(code=code, rows=np.array(rows), such=_such(self._names[code])) for code, rows in self._rows.items()]
        total = self._places.num_rows()
        found = [_finding(hit, total, self._places.first) for hit in [*hits, *self._whole.hits()] if len(hit.rows)]
        kept = [finding for finding in found if finding is not None]
        return tuple(sorted(kept, key=lambda f: (RANK[f.severity], -f.count, f.code)))

    def diversity(self) -> Diversity:
        """How varied the rows are."""
        return self._whole.diversity()

    def classes(self) -> Mapping[str, int]:
        """Rows of each class, the largest first; empty when the answers are no classes."""
        return self._whole.classes()


def repeats(
    question_keys: NDArray[np.uint64], answer_keys: NDArray[np.uint64], place: Callable[[int], str]
) -> tuple[Finding, ...]:
    """Rows that repeat an earlier row, and rows whose question has another answer elsewhere."""
    if not len(question_keys):
        return ()
    order = np.lexsort((answer_keys, question_keys))  # stable: of the same rows the earliest stands first
    questions, answers = question_keys[order], answer_keys[order]
    asked = np.r_[True, questions[1:] != questions[:-1]]
    new = asked | np.r_[True, answers[1:] != answers[:-1]]
    torn = np.add.reduceat(new, np.flatnonzero(asked), dtype=np.int64) > 1
    hits = (
        Hit(code="data/duplicates", rows=np.sort(order[~new])),
        Hit(
            code="data/contradictions",
            rows=np.sort(order[torn[np.cumsum(asked) - 1]]),
            such=f"; questions: {torn.sum():,}",
        ),
    )

    def first(rows: Rows) -> tuple[str, ...]:
        return tuple(place(row) for row in rows[:LISTED].tolist())

    found = (_finding(hit, len(order), first) for hit in hits if len(hit.rows))
    return tuple(finding for finding in found if finding is not None)


def hide(text: str) -> str:
    """The text as it may be printed: without one that holds a secret."""
    turns = Turns.of(answer=text)
    return HIDDEN if secret(turns) or password(turns) else text


def _finding(hit: Hit, total: int, first: Callable[[Rows], tuple[str, ...]]) -> Finding | None:
    """The finding that a hit makes; None where its share of the rows is nothing to speak of."""
    check, count, whole = BY_CODE[hit.code], len(hit.rows), hit.total or total
    severity = check.judge(count / whole)
    if severity is None:
        return None
    places = first(hit.rows)
    rows = f"{count:,} of {'a sample of ' if whole < total else ''}{whole:,} rows ({_percent(count, whole)})"
    what = f"{check.says.format(rows=rows)}{hide(hit.such)} ({_abridged(places)})."
    return Finding(code=hit.code, severity=severity, what=what, fix=check.fix, rows=places, count=count)


def _percent(count: int, total: int) -> str:
    """A share that never rounds to nothing or to everything."""
    if count == total:
        return "100 %"
    percent = 100 * count / total
    return "<0.1 %" if percent < 0.05 else ">99.9 %" if percent >= 99.95 else f"{percent:.1f} %"


def _such(names: Counter[str]) -> str:
    """The most frequent names, then by alphabet."""
    top = sorted(names, key=lambda name: (-names[name], name))[:SHOWN]
    return f", such as {' and '.join(filter(None, (', '.join(top[:-1]), top[-1])))}" if top else ""


def _abridged(places: tuple[str, ...]) -> str:
    """The first places, a file's name once: "a.jsonl:1, :2, :3 ..."."""
    shown, last = [], None
    for place in places[:SHOWN]:
        file, colon, row = place.rpartition(":")
        shown.append(f":{row}" if colon and file == last else place)
        last = file
    return ", ".join(shown) + (" ..." if len(places) > SHOWN else "")
