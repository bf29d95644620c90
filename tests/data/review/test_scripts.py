"""The script of a text, and answers in another one than the rest."""

from __future__ import annotations

import pytest

from runner.data.review.scripts import NO_SCRIPT, SCRIPTS, script_of
from tests.data.review.rows import (
    example,
    ordinary,
    reviewed,
)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, 世", "Latin"),
        ("Café déjà vu – naïve", "Latin"),
        ("Привет, это Python", "Cyrillic"),
        ("您好，我是 {{name}}，由 {{author}} 开发", "Han or kana"),
        ("こんにちは世界", "Han or kana"),
        ("안녕하세요", "Hangul"),
        ("مرحبا بالعالم", "Arabic"),
        ("γειά σου", "Greek"),
    ],
)
def test_the_script_of_a_text(text: str, script: str) -> None:
    assert list(SCRIPTS)[script_of(text)] == script


@pytest.mark.parametrize("text", ["", "12:30 – 14:00", "…😀"])
def test_a_text_without_letters_has_no_script(text: str) -> None:
    assert script_of(text) == NO_SCRIPT


def test_an_answer_in_another_script_stands_out_unless_the_question_asks_for_it_or_is_in_it() -> None:
    other = "Чайник готов."
    rows = [
        example(other, "Is the kettle ready?", 1),
        example(other, "Say in Russian that it is ready.", 2),
        example(other, "Готов ли чайник?", 3),
        example("12.", "How many?", 4),
    ]
    found = reviewed([*ordinary(40, first=9), *rows])["data/script"]
    assert (found.rows, found.severity) == (("rows.jsonl:1",), "warning")
    half = [example(other, f"Number {i}?", 100 + i) for i in range(40)]
    assert "data/script" not in reviewed([*ordinary(40), *half])
    assert "data/script" not in reviewed([*ordinary(18, first=9), rows[0]])
