"""Each check of single rows with a near miss, and how grave which share is."""

from __future__ import annotations

import time

import pytest

from runner.conversation import Example
from runner.data.review.checks import CHECKS
from tests.data.review.rows import (
    JWT,
    KEY,
    OPENAI,
    PRIVATE,
    PROSE,
    TOKEN,
    WORD,
    WORDS,
    example,
    ordinary,
    reviewed,
)


def codes(answer: str, question: str = "Where is the kettle that I sent in?") -> set[str]:
    return set(reviewed([example(answer, question)]))


FOUND = [
    ("data/placeholder", "Hello, I am {{name}}, made by {{ company.name }}."),
    ("data/placeholder", "Dear {customer_name}, your kettle is ready."),
    ("data/placeholder", '{"greeting": "Hello {{name}}"}'),
    ("data/placeholder", "Call us, [Your Name] at the desk."),
    ("data/placeholder", "Your cart is ${cart}."),
    ("data/placeholder", "We write to %s today."),
    ("data/placeholder", "See <insert link here> for more."),
    ("data/placeholder", "TODO: write the answer"),
    ("data/placeholder", "Lorem ipsum dolor sit amet."),
    ("data/placeholder", "Your number is XXXXX."),
    ("data/encoding", "The cafÃ© is open."),
    ("data/encoding", "Itâ€™s open."),
    ("data/encoding", "The caf\ufffd is open."),
    ("data/encoding", "It\x92s open."),
    ("data/encoding", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚"),
    ("data/encoding", "A\x00B"),
    ("data/invisible-characters", "The \ufeffkettle"),
    ("data/invisible-characters", "The\u200bkettle"),
    ("data/secret", PRIVATE),
    ("data/secret", f"The key is {KEY}."),
    ("data/secret", f"Use {TOKEN}"),
    ("data/secret", f"Use {OPENAI}"),
    ("data/secret", f"Use github_pat_{'a1' * 30}"),
    ("data/secret", "Use xoxb-" + "123456789012-abcDEFghiJKL"),
    ("data/secret", "Use AIza" + "Ab1-" * 8 + "xyz"),
    ("data/secret", "Use hf_" + "aBcDeFgHiJ" * 3 + "kLmN"),
    ("data/secret", "Use sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc"),
    ("data/secret", f"Use {JWT}"),
    ("data/secret", "Authorization: Bearer k3jd93jdk39fj3kd93kf03"),
    ("data/password", f"password = {WORD}"),
    ("data/password", f'"api_key": "{WORD}"'),
    ("data/password", f"postgres://wren:{WORD}@db.fernhill.shop/orders"),
    ("data/contact", "Write to wren.obi@fernhill.shop please."),
    ("data/contact", "Call (212) 736-5000 today."),
    ("data/contact", "Call +44 161 496 2881 today."),
    ("data/account-number", "Pay to GB82 WEST 1234 5698 7654 32."),
    ("data/account-number", "Pay to DE89370400440532013000."),
    ("data/account-number", "Card 4539 1488 0343 6467."),
    ("data/account-number", "My credit card is 4539148803436467."),
    ("data/account-number", "The number is 536-22-8194."),
    ("data/ip-address", "The server is 93.184.216.34 today."),
    ("data/refusal", "As an AI language model, I have no kettle."),
    ("data/refusal", "I'm sorry, but I cannot help with that."),
    ("data/refusal", "I’m sorry, but I can’t do that."),
    ("data/refusal", "As an AI, I do not drink tea."),
    ("data/copied-question", "Where is the kettle that I sent in?"),
    ("data/looping", "The kettle is here. " + "I will see to it now. " * 12),
    ("data/looping", PROSE * 4),
    ("data/looping", "It is " + "very " * 40),
    ("data/looping", "Well. " + "The lid is on the pan\n" * 9 + "and so on"),
    ("data/cut-off", '{"kettle": "here", "lid": "lo'),
    ("data/cut-off", f"{PROSE}Then it will be sent to the"),
    ("data/cut-off", f"{PROSE}```\nboil(kettle)\n"),
]
MISSED = [
    ("data/placeholder", '{"name": {"first": "Wren"}, "tags": ["a"]}'),
    ("data/placeholder", r"The sum is \frac{{a}}{{b}} and x^{max}."),
    ("data/placeholder", "```\nprint(f'{name} {{name}}')\n```"),
    ("data/placeholder", "See [the manual](https://fernhill.shop) and [1]."),
    ("data/placeholder", "It is 20 %so to say, of Super Bowl XXX."),
    ("data/placeholder", "The set {a, b} and {x}."),
    ("data/placeholder", "Use <address> and <b>bold</b> in the page."),
    ("data/placeholder", "Put it on your TODO list."),
    ("data/encoding", "El niño comió piñas à la crème – “señor”, NÃO, MAÇÃ, “café”’, Ångström, ÐÑ."),
    ("data/encoding", "Привет, мир. 你好。 50 € – ½"),
    ("data/invisible-characters", "family: \U0001f468\u200d\U0001f469\u200d\U0001f467 and สวัสดี\u200bครับ"),
    ("data/secret", "AWS keys begin with AKIA, tokens with ghp_ and sk-, as in AKIAIOSFODNN7EXAMPLE."),
    ("data/secret", "A private key begins with -----BEGIN PRIVATE KEY----- and goes on."),
    ("data/secret", "The bearer of this letter is a risk-averse-and-desk-bound-person-of-1920."),
    ("data/secret", "Put sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx there."),
    ("data/password", "password = your_password1, and passwords: choose a long one."),
    ("data/password", "password = get_password(user1)"),
    ("data/password", "See https://fernhill.shop:8080/a1b2c3@d4"),
    ("data/contact", "Write to someone@example.com, info@fernhill.shop or wren@shop.test."),
    ("data/contact", "Call (212) 555-0142 or 800-736-5000."),
    ("data/contact", "Order 2127365000 of 2024-01-15 10:20:30, ISBN 978-0-306-40615-7."),
    ("data/account-number", "Pay to GB82 WEST 1234 5698 7654 33."),
    ("data/account-number", "Card 4539 1488 0343 6468."),
    ("data/account-number", "Order 4539148803436467."),
    ("data/account-number", "Card 4012 8888 8888 1881 is for tests, number 123-45-6789 too."),
    ("data/ip-address", "Version 8.2.13.4, server 192.168.100.200, not 999.184.216.345."),
    ("data/refusal", "I'm sorry the kettle came late. I can send another."),
    ("data/refusal", "A large language model predicts words; as an aid, use a cup."),
    ("data/copied-question", "Where is the kettle? That I can tell."),
    ("data/looping", "ha ha ha. " + PROSE * 2),
    ("data/looping", "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n" * 5),
    ("data/looping", "0, " * 60),
    ("data/looping", PROSE * 3),
    ("data/looping", f"{' '.join(str(i) + PROSE for i in range(9))}" + "and so it was with them.\n" * 4),
    ("data/cut-off", f"{PROSE}\n\nKettle, and"),
    ("data/cut-off", '{"kettle": "here", "lid": [1]}'),
    ("data/cut-off", f"{PROSE}\n- a kettle\n- a lid that is on"),
    ("data/cut-off", f"{PROSE}```\nboil(kettle)\n```"),
    ("data/cut-off", f"{PROSE} – Wren, Fernhill"),
]


@pytest.mark.parametrize(("code", "answer"), FOUND)
def test_a_check_finds_what_it_is_for_in_one_row_among_many(code: str, answer: str) -> None:
    finding = reviewed([*ordinary(30, first=2), example(answer)])[code]
    assert (finding.count, finding.rows) == (1, ("rows.jsonl:1",))
    assert "1 of 31 rows (3.2 %)" in finding.what and finding.what.endswith("(rows.jsonl:1).")


@pytest.mark.parametrize(("code", "answer"), MISSED)
def test_a_check_lets_pass_what_only_looks_so(code: str, answer: str) -> None:
    assert code not in reviewed([*ordinary(30, first=2), example(answer)])


def test_every_check_of_single_rows_has_a_case_and_a_near_miss() -> None:
    single = {code for code, check in CHECKS.items() if check.find}
    assert {code for code, _ in FOUND} == single == {code for code, _ in MISSED}


@pytest.mark.parametrize(
    ("code", "question", "answer"),
    [
        ("data/placeholder", "Write me a Jinja template that greets.", "Hello {{name}}!"),
        ("data/placeholder", "Write an email to my landlord.", "Dear landlord, ... [Your Name]"),
        ("data/password", "Generate a strong password.", f"password: {WORD}"),
        ("data/looping", "Say 'the kettle is in the shed' often.", "the kettle is in the shed " * 9),
    ],
)
def test_what_the_question_asks_for_is_no_fault(code: str, question: str, answer: str) -> None:
    assert code in codes(answer) and code not in codes(answer, question)


def test_the_prompt_is_read_too() -> None:
    row = example("It is here, on the shelf.", f"Is {KEY} the key of {{{{name}}}}?")
    assert {"data/secret", "data/placeholder"} <= set(reviewed([row]))


@pytest.mark.parametrize(("num_rows", "severity"), [(1, "note"), (2, "warning"), (50, "warning"), (60, "note")])
def test_refusals_weigh_most_where_they_are_neither_rare_nor_the_task(num_rows: int, severity: str) -> None:
    rows = [*ordinary(110 - num_rows), *(example("I cannot help with that.", row=1000 + i) for i in range(num_rows))]
    assert reviewed(rows)["data/refusal"].severity == severity


def test_contact_data_in_most_rows_is_the_task() -> None:
    def rows(num_rows: int) -> list[Example]:
        return [example(f"Write to {w}.obi@fernhill.shop", row=900 + i) for i, w in enumerate(WORDS[:num_rows])]

    assert reviewed([*ordinary(10), *rows(11)])["data/contact"].severity == "note"
    assert reviewed([*ordinary(10), *rows(10)])["data/contact"].severity == "warning"


def test_answers_cut_off_in_many_rows_are_how_the_rows_are() -> None:
    cut = [example(f"{PROSE}Then {w} goes to the", row=900 + i) for i, w in enumerate(WORDS)]
    assert "data/cut-off" in reviewed([*ordinary(81), *cut]) and "data/cut-off" not in reviewed([*ordinary(79), *cut])


@pytest.mark.parametrize(
    "unit",
    ["\n", "{{a ", "eyJ-", "a://", "sk-1", "1.", "[your ", "password=", ";  ", "é", "a@", "DE89 ", "1-", "-----BEGIN ",
     "make "],
)  # fmt: skip
def test_no_text_makes_it_slow(unit: str) -> None:
    text, start = f"{unit * (60_000 // len(unit))}x", time.process_time()
    reviewed([example(text), example(f"password = {WORD}", text)])
    assert time.process_time() - start < 3
