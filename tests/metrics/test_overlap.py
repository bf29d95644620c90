"""Shared text, in every script."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu import sentence_bleu

from runner.metrics import Score
from runner.metrics.overlap import MAX_WORDS
from runner.metrics.words import split_words
from tests.metrics.scores import score

OVERLAPS = ("chrf", "bleu", "rouge_l")
SENTENCES = {
    "English": "Your parcel is late, it will be here by Friday.",
    "German": "Ihr Paket kommt später – spätestens am Freitag.",
    "Russian": "Ваша посылка опаздывает, она придёт в пятницу.",
    "Arabic": "طردك متأخر وسيصل يوم الجمعة",
    "Hindi": "आपका पार्सल शुक्रवार तक पहुँच जाएगा।",
    "Korean": "소포는 금요일까지 도착합니다.",
    "Japanese": "お荷物は金曜日までにスーパーへ届きます。",
    "Chinese": "您的包裹将于星期五之前送达。",
    "Thai": "พัสดุของคุณจะมาถึงภายในวันศุกร์",
}


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_equal_answers_share_everything_in_every_script(name: str, text: str) -> None:
    assert score(name, text, text).value == pytest.approx(1)


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_half_an_answer_shares_something_in_every_script(name: str, text: str) -> None:
    value = score(name, text[: len(text) // 2] + " xyz", text).value
    assert value is not None and 0.05 < value < 0.95


@pytest.mark.parametrize("name", OVERLAPS)
def test_another_language_shares_almost_nothing(name: str) -> None:
    value = score(name, SENTENCES["Japanese"], SENTENCES["English"]).value
    assert value is not None and value < 0.05


@pytest.mark.parametrize(
    ("output", "expected", "low", "high"),
    [
        ("", "The parcel is late.", 0, 0),
        ("xyz", "abc", 0, 0),
        ("The parcel is late.", "The parcel is late.", 1, 1),
        ("The parcel is later.", "The parcel is late.", 0.7, 0.99),
        ("The parcel was late.", "The parcel is late.", 0.5, 0.9),
        ("荷物は明日届きます。", "荷物は明日届きます。", 1, 1),
        ("荷物は今日届きます。", "荷物は明日届きます。", 0.1, 0.9),
        ("الطرد متأخر", "الطرد متأخر", 1, 1),
    ],
)
def test_chrf_measures_how_much_text_is_shared(output: str, expected: str, low: float, high: float) -> None:
    value = score("chrf", output, expected).value
    assert value is not None and low <= value <= high


@pytest.mark.parametrize("name", ["chrf", "bleu"])
@pytest.mark.parametrize("expected", ["", " \n"])
def test_overlap_is_unscored_where_nothing_is_expected(name: str, expected: str) -> None:
    assert score(name, "text", expected) == Score(value=None, reason="the expected answer is empty")


@pytest.mark.parametrize(("name", "expected"), [("rouge_l", ""), ("rouge_l", "?! …"), ("bleu", "<skipped>")])
def test_overlap_is_unscored_where_no_word_is_expected(name: str, expected: str) -> None:
    assert score(name, "text", expected) == Score(value=None, reason="the expected answer has no word")


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=30).filter(str.strip))
def test_a_text_has_the_full_chrf_against_itself(text: str) -> None:
    assert score("chrf", text, text).value == pytest.approx(1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["the", "parcel,", "is", "late.", "«Ёж»"]), min_size=1, max_size=12))
def test_bleu_is_the_fields_own_where_words_have_spaces(words: list[str]) -> None:
    output = " ".join([*words[::2], "The"])
    found = score("bleu", output, " ".join(words)).value
    assert found == pytest.approx(min(1, sentence_bleu(output, [" ".join(words)]).score / 100))


def test_bleu_counts_each_character_where_words_have_no_spaces() -> None:
    assert score("bleu", "荷物は今日届きます。", "荷物は明日届きます。").value == pytest.approx(
        sentence_bleu("荷 物 は 今 日 届 き ま す 。", ["荷 物 は 明 日 届 き ま す 。"], tokenize="none").score / 100
    )
    assert score("bleu", "ABC社の荷物", "ABC社の荷物は").value == pytest.approx(
        sentence_bleu("ABC 社 の 荷 物", ["ABC 社 の 荷 物 は"], tokenize="none").score / 100
    )


@settings(deadline=None, max_examples=50)
@given(*[st.lists(st.sampled_from(["the", "Parcel,", "is", "late", "42"]), min_size=1, max_size=12)] * 2)
def test_rouge_is_the_share_of_the_longest_common_words_in_order(one: list[str], other: list[str]) -> None:
    said, wanted = ([word.lower().strip(",") for word in words] for words in (one, other))
    f1 = 2 * longest_common(tuple(said), tuple(wanted)) / (len(said) + len(wanted))
    assert score("rouge_l", " ".join(one), " ".join(other)).value == pytest.approx(f1)


def longest_common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Words of the longest common subsequence, by its textbook recurrence."""
    row = [0] * (len(other) + 1)
    for word in one:
        row = [0, *accumulate_row(row, word, other)]
    return row[-1]


def accumulate_row(above: list[int], word: str, other: tuple[str, ...]) -> list[int]:
    found: list[int] = []
    for i, candidate in enumerate(other):
        left = found[-1] if found else 0
        found.append(above[i] + 1 if word == candidate else max(above[i + 1], left))
    return found


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("荷物は今日届く", "荷物は明日届く", 6 / 7),
        ("नमस्ते दुनिया", "नमस्ते भारत", 1 / 2),
        ("CAFÉ bar", "cafe\u0301", 2 / 3),
        ("ＡＢＣ社", "abc社", 1),
        ("", "late", 0),
        ("!", "late", 0),
    ],
)
def test_rouge_takes_words_of_every_script(output: str, expected: str, value: float) -> None:
    assert score("rouge_l", output, expected).value == pytest.approx(value)


def test_words_are_runs_of_letters_and_digits_or_characters_without_spaces() -> None:
    assert split_words("Don't send x_y 12.50 ABC社へスーパー、สวัสดี 안녕 नमस्ते!") == [
        *("don", "t", "send", "x", "y", "12", "50", "abc", "社", "へ", "ス", "ー", "パ", "ー"),
        *("ส", "วั", "ส", "ดี", "안녕", "नमस्ते"),
    ]


def test_rouge_looks_at_the_first_words_alone_of_very_long_answers() -> None:
    words = [f"w{i}" for i in range(MAX_WORDS + 200)]
    assert score("rouge_l", " ".join([*words[:MAX_WORDS], *["x"] * 200]), " ".join(words)).value == 1
    assert score("rouge_l", " ".join(["x"] * MAX_WORDS + words), " ".join(words)).value == 0
