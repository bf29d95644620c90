"""The guard tests of training: packed equals separate, shared prefix or not, whatever the accumulation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from runner.backends.local.encode import Encoded
from runner.backends.local.fused_lora import fuse
from runner.backends.local.generate import packed_rows
from runner.backends.local.head import answer_losses
from runner.backends.local.pack import MIN_SHARED, pack, shared_prefix

IGNORED = -100


def rows_with_prefix(length: int, seed: int = 0) -> list[Encoded]:
    """Rows of uneven lengths that share their first `length` tokens."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(5, 250, (count,), generator=generator).tolist()

    prefix, rows = tokens(length), []
    for i, (question, answer) in enumerate(((3, 4), (9, 2), (1, 11), (20, 6))):
        own = [10 + i, *tokens(question)]
        reply = tokens(answer)
        begin = length + len(own)
        rows.append(Encoded([*prefix, *own, *reply], [(begin, begin + len(reply))]))
    return rows


def adapted_model(folder: Path, *, fused: bool) -> Any:
    """The tiny model with an adapter that already does something."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    if fused:
        assert fuse(model) == 14
    return model


def plain_losses(model: Any, row: Encoded) -> torch.Tensor:
    """One row by itself through transformers' own attention and torch's own loss."""
    logits = model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
    trained = {i for first, end in row.spans for i in range(first, end)}
    labels = torch.tensor([token if i in trained else IGNORED for i, token in enumerate(row.input_ids)][1:])
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")[labels != IGNORED]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def step(model: Any, batches: Sequence[Sequence[Encoded]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of one optimizer step over micro-batches, divided by all of the step's labels."""
    num_labels = sum(row.num_labelled for batch in batches for row in batch)
    total = 0.0
    with packed_rows(model):
        for batch in batches:
            loss = answer_losses(model, pack(batch)).sum() / num_labels
            loss.backward()
            total += loss.item()
    return total, gradients(model)


@pytest.mark.parametrize("prefix", [0, MIN_SHARED - 1, 30])
def test_packed_rows_have_the_losses_and_gradients_of_separate_rows(tiny_model: Path, prefix: int) -> None:
    rows = rows_with_prefix(prefix)
    plain = adapted_model(tiny_model, fused=False)
    separate = torch.cat([plain_losses(plain, row) for row in rows])
    separate.mean().backward()
    expected = gradients(plain)
    model = adapted_model(tiny_model, fused=True)
    with packed_rows(model):
        losses = answer_losses(model, pack(rows))
    torch.testing.assert_close(losses, separate, atol=2e-5, rtol=1e-4)
    losses.mean().backward()
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-5, rtol=1e-3)


def test_accumulating_micro_batches_changes_neither_loss_nor_gradient(tiny_model: Path) -> None:
    rows = rows_with_prefix(12)
    model = adapted_model(tiny_model, fused=True)
    whole_loss, whole = step(model, [rows])
    parts_loss, parts = step(model, [[row] for row in rows])
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=2e-5, rtol=1e-3)


def test_another_row_in_the_batch_changes_nothing(tiny_model: Path) -> None:
    model = adapted_model(tiny_model, fused=True)
    first, *others = rows_with_prefix(12)
    with packed_rows(model), torch.no_grad():
        alone = answer_losses(model, pack([first]))
        among = answer_losses(model, pack([first, *others]))[: len(alone)]
    torch.testing.assert_close(among, alone, atol=2e-5, rtol=1e-4)


def test_the_shared_prefix_ends_before_the_token_that_predicts_the_first_label() -> None:
    same = Encoded(list(range(5, 25)), [(15, 20)])
    assert shared_prefix([same, same]) == 14
    batch = pack([same, same])
    assert batch["labels"].tolist() == [*range(20, 25), *range(20, 25)]
    assert batch["input_ids"][0, batch["logits_to_keep"]].tolist() == [*range(19, 24), *range(19, 24)]


def test_the_prefix_is_computed_once() -> None:
    rows = rows_with_prefix(30)
    assert pack(rows)["input_ids"].shape[1] == sum(len(row.input_ids) for row in rows) - 3 * 30


def test_outside_training_the_model_attends_as_transformers_does(tiny_model: Path) -> None:
    model = adapted_model(tiny_model, fused=True)
    with packed_rows(model):
        pass
    assert model.config._attn_implementation == "sdpa"
