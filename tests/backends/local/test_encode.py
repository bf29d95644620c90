from __future__ import annotations

from typing import Any

import pytest

from runner.backends.local.encode import Encoded, encode
from runner.conversation import Example, Message, Role


def example(*turns: tuple[Role, str]) -> Example:
    return Example(messages=tuple(Message(role=role, content=text) for role, text in turns), source="rows.jsonl:1")


def labelled_text(tokenizer: Any, row: Encoded) -> str:
    return str(tokenizer.decode(row.trained_ids))


def encoded(tokenizer: Any, *turns: tuple[Role, str]) -> Encoded:
    (row,) = encode(tokenizer, [example(*turns)], frozenset({tokenizer.eos_token_id}))
    assert isinstance(row, Encoded), row
    return row


def test_only_the_answer_and_its_stop_token_carry_a_label(tiny_tokenizer: Any) -> None:
    row = encoded(tiny_tokenizer, ("system", "Be kind."), ("user", "hello"), ("assistant", "good day"))
    assert labelled_text(tiny_tokenizer, row) == "good day<|im_end|>"


def test_every_assistant_turn_of_a_conversation_is_labelled(tiny_tokenizer: Any) -> None:
    row = encoded(tiny_tokenizer, ("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two"))
    assert labelled_text(tiny_tokenizer, row) == "one<|im_end|>two<|im_end|>"


def test_the_stop_token_is_labelled_although_it_is_also_the_padding_token(tiny_tokenizer: Any) -> None:
    assert tiny_tokenizer.pad_token_id == tiny_tokenizer.eos_token_id
    row = encoded(tiny_tokenizer, ("user", "a"), ("assistant", "b"))
    assert row.trained_ids[-1] == tiny_tokenizer.eos_token_id


def test_any_script_is_trained_on_as_it_is_written(tiny_tokenizer: Any) -> None:
    row = encoded(tiny_tokenizer, ("user", "Grüße, 世界 🌍"), ("assistant", 'naïve 🙂 {"a": 1}'))
    assert labelled_text(tiny_tokenizer, row) == 'naïve 🙂 {"a": 1}<|im_end|>'


def test_the_row_is_exactly_what_the_template_gives(tiny_tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    row = encoded(tiny_tokenizer, ("user", "hi"), ("assistant", "yes"))
    assert row.input_ids == tiny_tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "stop token"),
        ("{{ messages | length }}{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}", "rewrites"),
    ],
)
def test_a_template_that_cannot_be_labelled_gives_a_reason(tiny_tokenizer: Any, template: str, reason: str) -> None:
    usual = tiny_tokenizer.chat_template
    tiny_tokenizer.chat_template = template
    try:
        (row,) = encode(
            tiny_tokenizer, [example(("user", "a"), ("assistant", "b"))], frozenset({tiny_tokenizer.eos_token_id})
        )
    finally:
        tiny_tokenizer.chat_template = usual
    assert isinstance(row, str)
    assert reason in row
