"""What is wrong with the text of a row: its encoding, its slots, its end."""

from __future__ import annotations

import json
import re

from runner.data.review.private import HIDDEN, Turns, password, secret

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
