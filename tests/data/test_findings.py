"""What is found in the rows: each check with a near miss, exact counts and places, no secret in any sentence."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.conversation import Example, Message
from runner.data import findings as module
from runner.data.findings import CHECKS, Finding, Review, repeats

PROSE = "The kettle is back in the workshop and will leave again on the next cart, dry and with a new lid. "
WORDS = ("oak", "barrel", "cart", "lid", "rope", "lamp", "chair", "spoon", "kettle", "hinge", "felt", "clay", "reed",
         "wool", "bell", "gate", "fern", "moss", "pond", "slate")  # fmt: skip
KEY = "AKIA" + "Q7ZP4M2XW9LR5TVB"
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"
PRIVATE = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJuYW1lIjoiV3JlbiIsImlhdCI6MTV9.Kx9vTq3bD_w-Zr4"
OPENAI = "sk-proj-Zt4nQ8vLw2XyB6cMd0RfHk3J"
WORD = "Gr4nite-Swift7"


def example(answer: str, question: str = "Where is the kettle that I sent in?", row: int = 1, **more: str) -> Example:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Example(messages=messages, source=f"rows.jsonl:{row}", **more)


def ordinary(num_rows: int, first: int = 1, seed: int = 0) -> list[Example]:
    """Rows with nothing to find."""
    draw = random.Random(seed)

    def words(least: int) -> str:
        return " ".join(draw.choices(WORDS, k=least + draw.randrange(10)))

    return [example(f"{words(15).capitalize()}.", f"{words(8)}?", first + i) for i in range(num_rows)]


def reviewed(examples: Sequence[Example]) -> dict[str, Finding]:
    review = Review()
    for each in examples:
        review.add(each)
    return {finding.code: finding for finding in review.findings()}


def codes(answer: str, question: str = "Where is the kettle that I sent in?") -> set[str]:
    return set(reviewed([example(answer, question)]))


def test_ordinary_rows_give_no_findings() -> None:
    assert reviewed(ordinary(300)) == {}


def test_no_rows_give_no_findings_and_no_classes() -> None:
    review = Review()
    assert review.findings() == () and dict(review.classes()) == {} and review.diversity().num_rows == 0


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
    single = {check.code for check in CHECKS if check.find}
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


@pytest.mark.parametrize(
    "text", [PRIVATE, f"{KEY} is it", f"{TOKEN} is it", f"password = {WORD} is it", f"{{{{{TOKEN}}}}} {OPENAI}", JWT]
)
def test_no_secret_stands_in_any_sentence_or_opening(text: str) -> None:
    review = Review()
    for row in range(60):
        review.add(example(text, f"{text}?", row, label=text))
    review.add(example("no", "no?", 61, label="no"))
    shown = repr((review.findings(), review.diversity())).lower()
    assert "data/imbalance" in shown
    for secret in (KEY, TOKEN, WORD, BODY, OPENAI, JWT):
        assert secret[:14].lower() not in shown


def test_a_secret_in_a_label_alone_is_hidden_too() -> None:
    rows = [*(example(PROSE, row=i, label=KEY) for i in range(1, 100)), example(PROSE, row=100, label="other")]
    assert KEY not in repr(reviewed(rows)) and "data/imbalance" in reviewed(rows)


def test_a_secret_in_a_placeholder_is_hidden() -> None:
    finding = reviewed([example(f"Hello {{{{{TOKEN}}}}}, I am here.")])["data/placeholder"]
    assert "such as (hidden: it holds a secret)" in finding.what


def test_the_same_answer_is_not_shown_where_it_holds_a_secret() -> None:
    rows = [example(f"Here is what you asked of me: {TOKEN}", f"Question {i}?", i) for i in range(1, 60)]
    assert TOKEN[:20] not in repr(reviewed(rows)) and "data/same-answer" in reviewed(rows)


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


def test_the_sentence_has_count_share_examples_and_the_first_three_places() -> None:
    rows = [example(f"I am {{{{{'name' if i < 4 else 'author'}}}}}.", row=i + 1) for i in range(5)]
    finding = reviewed([*rows, *ordinary(995, first=6)])["data/placeholder"]
    assert finding.what == (
        "A placeholder that nobody filled stands in 5 of 1,000 rows (0.5 %), such as {{name}} and {{author}} "
        "(rows.jsonl:1, :2, :3 ...)."
    )
    assert finding.rows == tuple(f"rows.jsonl:{i}" for i in range(1, 6))


def test_places_are_in_order_of_file_and_row_and_a_source_without_a_row_is_a_place() -> None:
    text = "Hello, I am {{name}}."
    sources = ("b.jsonl:2", "a.jsonl:10", "b.jsonl:1", "a.jsonl:9", "inline")
    rows = [Example(messages=(Message(role="assistant", content=text),), source=source) for source in sources]
    finding = reviewed(rows)["data/placeholder"]
    assert finding.rows == ("a.jsonl:9", "a.jsonl:10", "b.jsonl:1", "b.jsonl:2", "inline")
    assert "(a.jsonl:9, :10, b.jsonl:1 ...)" in finding.what


def test_the_places_are_capped_and_the_count_is_exact() -> None:
    finding = reviewed([example("Hi {{name}}.", f"{i}", row=i) for i in range(1005)])["data/placeholder"]
    assert (finding.count, len(finding.rows), finding.rows[-1]) == (1005, 1000, "rows.jsonl:999")


@pytest.mark.parametrize(
    ("count", "total", "shown"),
    [(1, 1, "100 %"), (3, 420, "0.7 %"), (1, 100_000, "<0.1 %"), (99_999, 100_000, ">99.9 %"), (1, 2, "50.0 %")],
)
def test_a_share_never_rounds_to_nothing_or_to_everything(count: int, total: int, shown: str) -> None:
    assert module._percent(count, total) == shown


def test_findings_come_most_severe_first_then_most_frequent() -> None:
    text = "The kettle will be there on time, as promised by"
    rows = [example(f"{text} {{{{name}}}}.", row=i) for i in range(3)] + [example(f"{text} caf\ufffd {KEY}.", row=9)]
    found = list(reviewed([*rows, *ordinary(200, first=20)]).values())
    assert [f.code for f in found] == ["data/secret", "data/placeholder", "data/encoding"]


def test_the_order_of_the_rows_changes_nothing() -> None:
    faulty = [example(answer, f"What of number {i}?", 500 + i) for i, (_, answer) in enumerate(FOUND)]
    rows = [*ordinary(400), *faulty]
    known = reviewed(rows)
    assert len(known) > 10
    for seed in range(3):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert reviewed(shuffled) == known and list(reviewed(shuffled)) == list(known)


def test_findings_can_be_asked_for_at_any_time_and_reading_goes_on() -> None:
    rows, review = [*ordinary(60), example("Hi {{name}}.", row=99)], Review()
    for row in rows:
        review.add(row)
        review.findings(), review.diversity(), review.classes()
    assert {f.code: f for f in review.findings()} == reviewed(rows)


TEXT = st.text(st.characters(exclude_categories=()), max_size=60) | st.lists(
    st.sampled_from(
        [*string.punctuation, "{{", "}}", " ", "\n", "a", "1", "-----BEGIN ", "://", "@", "sk-", "password="]
    ),
    max_size=80,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=6))
def test_no_text_makes_it_fail(texts: list[tuple[str, str, str]]) -> None:
    review = Review()
    for question, answer, source in texts:
        review.add(Example(messages=(*example(answer, question).messages,), source=source))
    for finding in review.findings():
        assert 0 < finding.count <= len(texts) and len(finding.rows) == finding.count and finding.fix
    assert review.diversity().num_rows == len(texts)


@pytest.mark.parametrize(
    "unit",
    ["\n", "{{a ", "eyJ-", "a://", "sk-1", "1.", "[your ", "password=", ";  ", "é", "a@", "DE89 ", "1-", "-----BEGIN "],
)
def test_no_text_makes_it_slow(unit: str) -> None:
    review, start = Review(), time.process_time()
    review.add(example(f"{unit * (60_000 // len(unit))}x"))
    assert review.findings() is not None and time.process_time() - start < 2


def keys(text: str) -> np.ndarray:
    return np.array([ord(char) for char in text], dtype=np.uint64)


def found_repeats(questions: str, answers: str) -> dict[str, Finding]:
    return {f.code: f for f in repeats(keys(questions), keys(answers), lambda i: f"rows.jsonl:{i + 1}")}


def test_repeats_and_contradictions_name_the_rows() -> None:
    found = found_repeats("abacbacd", "xyxzqxzw")
    assert found["data/duplicates"].rows == ("rows.jsonl:3", "rows.jsonl:6", "rows.jsonl:7")
    assert found["data/contradictions"].rows == ("rows.jsonl:2", "rows.jsonl:5")
    assert "2 of 8 rows (25.0 %); questions: 1 (rows.jsonl:2, :5)." in found["data/contradictions"].what
    assert found["data/duplicates"].count == 3 and set(found) == {"data/duplicates", "data/contradictions"}


@pytest.mark.parametrize(("questions", "answers"), [("", ""), ("a", "x"), ("abc", "xxx")])
def test_different_questions_repeat_nothing(questions: str, answers: str) -> None:
    assert found_repeats(questions, answers) == {}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=12))
def test_repeats_agree_with_a_plain_count(pairs: list[tuple[str, str]]) -> None:
    found = found_repeats("".join(q for q, _ in pairs), "".join(a for _, a in pairs))
    torn = [i for i, (q, a) in enumerate(pairs, 1) if any(other != a for same, other in pairs if same == q)]
    extra = [i + 1 for i, pair in enumerate(pairs) if pair in pairs[:i]]
    rows = {code: [int(place.split(":")[1]) for place in finding.rows] for code, finding in found.items()}
    assert rows == {c: r for c, r in (("data/contradictions", torn), ("data/duplicates", extra)) if r}
