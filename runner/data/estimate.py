"""Tokens judged by characters, where no tokenizer is at hand."""

from __future__ import annotations

from runner.conversation import Example

# Tokens a character, for letters and spaces, digits, other ASCII, and everything else; and those that a template puts
# around a turn. Against the embedded model's tokenizer, on thirteen kinds of text (English, code, JSON, numbers,
# Russian, Chinese, Korean, emoji), the true number was 0.82 to 2.17 times the estimate.
LETTER, DIGIT, SIGN, OTHER = 0.22, 0.7, 0.5, 1.2
TURN_TOKENS = 6
BAND = 2.2
_DIGITS = b"0123456789"
_SIGNS = bytes(set(range(33, 127)) - set(_DIGITS) - set(range(65, 91)) - set(range(97, 123)))


def estimate_example(example: Example) -> tuple[int, int]:
    """Tokens of an example, and those of them that are trained on; the truth lies within a factor of BAND."""
    turns = [_estimate(message.text) for message in example.messages]
    trained = [m.role == "assistant" and m.trained for m in example.messages]
    labelled = sum(size + 1 for size, counts in zip(turns, trained, strict=True) if counts)
    return round(sum(turns) + TURN_TOKENS * (len(turns) + 1)), round(labelled)


def _estimate(text: str) -> float:
    plain = text.encode("ascii", "ignore")
    no_digits = plain.translate(None, _DIGITS)
    letters = no_digits.translate(None, _SIGNS)
    digits, signs = len(plain) - len(no_digits), len(no_digits) - len(letters)
    return LETTER * len(letters) + DIGIT * digits + SIGN * signs + OTHER * (len(text) - len(plain))
