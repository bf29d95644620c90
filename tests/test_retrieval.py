"""Retrieved examples: nearest first, in every script, and without failing on questions that have no words."""

from __future__ import annotations

import pytest

from runner.conversation import Example
from runner.retrieval import Retriever
from tests.fakes import question


def found(examples: list[str], asked: str, count: int = 1) -> list[str]:
    index = Retriever([question(text, "a") for text in examples])
    return [example.question for example in index.nearest(asked, count)]


@pytest.mark.parametrize(
    ("examples", "asked", "nearest"),
    [
        (["my parcel is late", "the lamp is broken", "may I return it"], "LAMP: broken?", "the lamp is broken"),
        (["it is a lamp", "it is a bed", "it is a rug"], "it is the rug", "it is a rug"),
        (["包裹迟到了", "灯坏了", "可以退货吗"], "我的灯坏了", "灯坏了"),
        (["สินค้าแตก", "ขอคืนเงิน", "ส่งช้ามาก"], "ส่งช้า", "ส่งช้ามาก"),
        (["straße", "weg"], "STRASSE", "straße"),
    ],
)
def test_the_nearest_shares_the_rarest_words(examples: list[str], asked: str, nearest: str) -> None:
    assert found(examples, asked) == [nearest]


def test_the_nearest_comes_first_and_no_example_twice() -> None:
    examples = ["red lamp", "red lamp in the hall", "green bed", "blue rug"]
    assert found(examples, "red lamp", 2) == ["red lamp", "red lamp in the hall"]
    assert sorted(found(examples, "red lamp", 9)) == sorted(examples)


@pytest.mark.parametrize("asked", ["", "?!", "xylophone"])
def test_a_question_of_unknown_words_still_gets_its_examples(asked: str) -> None:
    assert len(set(found(["one", "two", "three"], asked, 2))) == 2


@pytest.mark.parametrize("examples", [["?", "!", "..."], ["?"], ["?", "one"]])
def test_examples_without_words_can_be_retrieved(examples: list[str]) -> None:
    assert found(examples, "one", 3)[0] == examples[-1] or "one" not in examples
    assert len(found(examples, "one", 3)) == len(examples)


def test_earlier_turns_count_as_well() -> None:
    first, second = question("the lamp", "a"), question("the rug", "a")
    row = question("the lamp", "which?")
    row = Example(messages=(*row.messages, *question("that one", "a").messages), source="x:1")
    assert Retriever([second, first]).nearest(row.question, 1) == [first]
