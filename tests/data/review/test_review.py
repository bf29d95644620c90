"""A whole review: nothing in good rows, the same in every order, no secret in any sentence."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.conversation import Example, Message
from runner.data.review import Review
from tests.data.review.rows import (
    BODY,
    JWT,
    KEY,
    OPENAI,
    PRIVATE,
    PROSE,
    TOKEN,
    WORD,
    example,
    ordinary,
    review_of,
    reviewed,
)
from tests.data.review.test_checks import FOUND


def test_ordinary_rows_give_no_findings() -> None:
    assert reviewed(ordinary(300)) == {}


def test_no_rows_give_no_findings_and_no_classes() -> None:
    review = Review()
    assert review.findings() == () and dict(review.classes()) == {} and review.diversity().num_rows == 0


SHIPPED = Path(__file__).parents[3] / "manifests" / "data"


def shipped(name: str) -> list[Example]:
    rows = [json.loads(line) for line in (SHIPPED / name).read_text("utf-8").splitlines()]
    turns = [row.get("messages") or _turns(row["prompt"], row["completion"]) for row in rows]
    return [
        Example(messages=tuple(Message(role=t["role"], content=t["content"]) for t in row), source=f"{name}:{i}")
        for i, row in enumerate(turns, 1)
    ]


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("name", ["support-tickets.jsonl", "brand-voice.jsonl"])
def test_the_shipped_data_gives_no_findings(name: str) -> None:
    assert reviewed(shipped(name)) == {}


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
    review = review_of(rows)
    assert "data/imbalance" in {finding.code for finding in review.findings()}
    assert KEY not in repr((review.findings(), review.classes())) and KEY not in review.add(rows[0])


def test_a_secret_in_a_placeholder_is_hidden() -> None:
    finding = reviewed([example(f"Hello {{{{{TOKEN}}}}}, I am here.")])["data/placeholder"]
    assert "such as (hidden: it holds a secret)" in finding.what


def test_the_same_answer_is_not_shown_where_it_holds_a_secret() -> None:
    rows = [example(f"Here is what you asked of me: {TOKEN}", f"Question {i}?", i) for i in range(1, 60)]
    assert TOKEN[:20] not in repr(reviewed(rows)) and "data/same-answer" in reviewed(rows)


def test_what_is_hidden_in_a_sentence_stands_apart_from_it() -> None:
    rows = [example(f"password: {WORD}", f"Generate a strong password, number {i}.", i) for i in range(1, 60)]
    assert "(100 %) (hidden: it holds a secret) (rows.jsonl:1, " in reviewed(rows)["data/same-answer"].what


def test_examples_of_very_many_kinds_are_the_same_in_every_order() -> None:
    rows = [example(f"Hello {{{{n{min(i, 1500)}}}}}.", row=i + 1) for i in range(1510)]
    told = reviewed(rows)["data/placeholder"].what
    assert "such as {{n1500}}, {{n0}} and {{n1000}} (" in told
    assert reviewed(reversed(rows))["data/placeholder"].what == told


def test_findings_come_most_severe_first_then_most_frequent() -> None:
    text = "The kettle will be there on time, as promised by"
    rows = [example(f"{text} {{{{name}}}}.", row=i) for i in range(3)] + [example(f"{text} caf\ufffd {KEY}.", row=9)]
    rows += [example("The server is 93.184.216.34 today.", row=10 + i) for i in range(5)]
    found = list(reviewed([*rows, *ordinary(200, first=20)]).values())
    assert [f.code for f in found] == ["data/placeholder", "data/encoding", "data/secret", "data/ip-address"]


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
