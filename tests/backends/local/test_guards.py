"""The mistakes that cost most when nobody looks: each has its guard here (packing: test_pack, test_attention)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from runner.backends.local.encode import Encoded, encode, render
from runner.backends.local.generate import held_out_loss, packed_rows
from runner.backends.local.head import answer_losses
from runner.backends.local.pack import pack
from runner.conversation import Example, Message, Role
from tests.backends.local.test_pack import adapted_model, gradients, plain_losses, rows_with_prefix, step
from tests.fakes import FakeWatch

IGNORED = -100
CHAT: tuple[tuple[Role, str], ...] = (
    ("system", "Be kind and answer with JSON."),
    ("user", "hello there"),
    ("assistant", "good day"),
    ("user", "and again"),
    ("assistant", "good evening"),
)


def chat(*turns: tuple[Role, str]) -> Example:
    return Example(messages=tuple(Message(role=role, content=text) for role, text in turns), source="rows.jsonl:1")


def encoded(tokenizer: Any, examples: Sequence[Example]) -> list[Encoded]:
    rows = encode(tokenizer, examples, frozenset({tokenizer.eos_token_id}))
    assert all(isinstance(row, Encoded) for row in rows), rows
    return [row for row in rows if isinstance(row, Encoded)]


@pytest.fixture
def rows(tiny_tokenizer: Any) -> list[Encoded]:
    """Conversations of uneven lengths under one system prompt."""
    talks = [chat(*CHAT), chat(*CHAT[:3])]
    talks += [chat(CHAT[0], ("user", f"number {i} " * i), ("assistant", "yes " * (5 - i) + "!")) for i in range(1, 4)]
    return encoded(tiny_tokenizer, talks)


def test_every_row_learns_to_stop_although_padding_is_the_same_token(rows: list[Encoded], tiny_tokenizer: Any) -> None:
    assert tiny_tokenizer.pad_token_id == tiny_tokenizer.eos_token_id
    batch = pack(rows)
    stops = [part[-1].item() for part in batch["labels"].split(batch["row_sizes"].tolist())]
    assert stops == [tiny_tokenizer.eos_token_id] * len(rows)
    num_answers = sum(len(row.spans) for row in rows)
    assert batch["labels"].tolist().count(tiny_tokenizer.eos_token_id) == num_answers


def test_a_row_opens_with_one_start_token(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = encoded(tiny_tokenizer, [chat(*CHAT)])
    start = tiny_tokenizer.convert_tokens_to_ids("<|im_start|>")
    monkeypatch.setattr(tiny_tokenizer, "_special_tokens_map", {**tiny_tokenizer._special_tokens_map})
    tiny_tokenizer.bos_token = "<|im_start|>"
    assert row.input_ids[0] == start and row.input_ids[1] != start
    doubled = "<|im_start|>" + tiny_tokenizer.chat_template
    monkeypatch.setattr(tiny_tokenizer, "chat_template", doubled)
    (reason,) = encode(tiny_tokenizer, [chat(*CHAT)], frozenset({tiny_tokenizer.eos_token_id}))
    assert isinstance(reason, str) and "twice" in reason


def test_a_row_is_trained_behind_the_prefix_that_it_is_asked_with(tiny_tokenizer: Any) -> None:
    talk = chat(*CHAT)
    (row,) = encoded(tiny_tokenizer, [talk])
    for (begin, _), turn in zip(row.spans, (2, 4), strict=True):
        asked = render(tiny_tokenizer, talk.messages[:turn], answer_next=True)
        assert row.input_ids[:begin] == tiny_tokenizer(asked, add_special_tokens=False)["input_ids"]


def test_the_packed_labels_of_a_conversation_are_its_answers(tiny_tokenizer: Any) -> None:
    rows = encoded(tiny_tokenizer, [chat(*CHAT), chat(*CHAT[:3])])
    batch = pack(rows)
    said = [tiny_tokenizer.decode(part) for part in batch["labels"].split(batch["row_sizes"].tolist())]
    assert said == ["good day<|im_end|>good evening<|im_end|>", "good day<|im_end|>"]


def test_every_label_follows_the_token_that_predicts_it(rows: list[Encoded]) -> None:
    batch = pack(rows)
    ids, keep = batch["input_ids"][0], batch["logits_to_keep"]
    before = [row.input_ids[i - 1] for row in rows for first, end in row.spans for i in range(first, end)]
    assert ids[keep].tolist() == before
    assert batch["labels"].tolist() == [token for row in rows for token in row.trained_ids]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_every_adapter_moves_in_the_first_step(
    tiny_model: Path, rows: list[Encoded], checkpointing: bool, fused: bool
) -> None:
    model = adapted_model(tiny_model, fused=fused)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    model.train()
    with packed_rows(model):
        answer_losses(model, pack(rows)).mean().backward()
    optimizer.step()
    ends = {name: p for name, p in trained.items() if "lora_B" in name}
    assert len(ends) == 14
    assert [name for name, p in ends.items() if not p.any()] == []


def test_checkpointing_changes_neither_loss_nor_gradient(tiny_model: Path) -> None:
    model = adapted_model(tiny_model, fused=True).train()
    rows = rows_with_prefix(12)
    loss, usual = step(model, [rows])
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again, found = step(model, [rows])
    assert again == loss
    for name in usual:
        torch.testing.assert_close(found[name], usual[name], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulating_over_uneven_rows_is_one_batch(tiny_model: Path, trained_head: bool, parts: int) -> None:
    """One batch of four rows, and two or four batches: the same loss and gradient, also of a trained head."""
    rows = rows_with_prefix(0)
    model = adapted_model(tiny_model, fused=True)
    model.get_output_embeddings().weight.requires_grad_(trained_head)
    whole_loss, whole = step(model, [rows])
    loss, found = step(model, [rows[i::parts] for i in range(parts)])
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert found.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(found[name], whole[name], atol=2e-5, rtol=1e-3)


def test_the_loss_weighs_tokens_and_not_rows(tiny_model: Path) -> None:
    model = adapted_model(tiny_model, fused=True)
    rows = rows_with_prefix(0)
    found = held_out_loss(model, rows, FakeWatch())
    by_hand = [plain_losses(model, row).detach() for row in rows]
    assert found.rows == pytest.approx([losses.mean().item() for losses in by_hand], rel=1e-4)
    assert found.mean == pytest.approx(torch.cat(by_hand).mean().item(), rel=1e-4)
    assert found.mean != pytest.approx(sum(found.rows) / len(rows), rel=1e-4)


def test_bfloat16_weights_give_the_packed_loss_of_separate_rows(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    exact = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).float()
    rows = rows_with_prefix(30)
    with torch.no_grad():
        separate = torch.cat([plain_losses(exact, row) for row in rows])
        with packed_rows(model):
            losses = answer_losses(model, pack(rows))
    torch.testing.assert_close(losses, separate, atol=0.05, rtol=0.02)
    assert losses.mean().item() == pytest.approx(separate.mean().item(), rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_loss_and_gradient_are_those_of_trl(
    tiny_model: Path, tiny_tokenizer: Any, rows: list[Encoded], tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")

    def model() -> Any:
        if kind == "lora":
            return adapted_model(tiny_model, fused=False).to(dtype)
        return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)

    trainer = trl.SFTTrainer(
        model=model(),
        processing_class=tiny_tokenizer,
        train_dataset=datasets.Dataset.from_list([{"input_ids": row.input_ids, "labels": labels(row)} for row in rows]),
        args=trl.SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=len(rows),
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            remove_unused_columns=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
        ),
    )
    theirs = trainer.model
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape == (len(rows), max(len(row.input_ids) for row in rows))
    expected_loss = trainer.compute_loss(theirs.train(), batch)
    expected_loss.backward()
    expected = gradients(theirs)
    ours = model().train()
    loss, found = step(ours, [rows])
    allowed = 1e-5 if dtype == torch.float32 else 5e-3
    assert loss == pytest.approx(expected_loss.item(), rel=allowed)
    assert found.keys() == expected.keys()
    for name in expected:
        difference = (found[name].float() - expected[name].float()).norm() / expected[name].float().norm()
        assert difference < (1e-4 if dtype == torch.float32 else 0.05), name


def labels(row: Encoded) -> list[int]:
    trained = {i for first, end in row.spans for i in range(first, end)}
    return [token if i in trained else IGNORED for i, token in enumerate(row.input_ids)]
