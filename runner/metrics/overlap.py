"""How much text an answer shares with the expected one."""

from __future__ import annotations

from functools import cache
from typing import Any

from runner.metrics.base import Answer, Score, share, unscored
from runner.metrics.words import has_unspaced, space_out, split_words

MAX_WORDS = 10_000  # the longest common subsequence takes their product
_EMPTY = "the expected answer is empty"
_WORDLESS = "the expected answer has no word"


def chrf(answer: Answer) -> Score:
    """chrF++ of one sentence (sacrebleu), as a share of 1; blind to the language's word boundaries."""
    if not answer.expected.strip():
        return unscored(_EMPTY)
    return share(_chrf().sentence_score(answer.output, [answer.expected]).score / 100)


def bleu(answer: Answer) -> Score:
    """BLEU of one sentence with effective order (sacrebleu), as a share of 1.

    Words are those of mteval-v13a, as the field reports it. Where the expected answer has characters of a script
    without spaces, each of these is a word, and the rest is divided by Unicode's punctuation (mteval-v14).
    """
    if not answer.expected.strip():
        return unscored(_EMPTY)
    unspaced = has_unspaced(answer.expected)
    output, expected = (space_out(text) if unspaced else text for text in (answer.output, answer.expected))
    found = _bleu("intl" if unspaced else "13a").sentence_score(output, [expected])
    return share(found.score / 100) if found.ref_len else unscored(_WORDLESS)


def rouge_l(answer: Answer) -> Score:
    """F1 of the longest common subsequence of words (Lin, 2004), over the first 10,000 words of each; words of every
    script count, and each character where words have no spaces."""
    output, expected = (split_words(text)[:MAX_WORDS] for text in (answer.output, answer.expected))
    if not expected:
        return unscored(_WORDLESS)
    return share(2 * _common()(output, expected) / (len(output) + len(expected)))


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2)


@cache
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True, tokenize=tokenizer)


@cache
def _common() -> Any:
    from rapidfuzz.distance import LCSseq

    return LCSseq.similarity
