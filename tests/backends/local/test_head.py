"""The loss at the head: the same numbers as a plain cross entropy, in pieces, and never of changed logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from runner.backends.local import head
from runner.backends.local.generate import packed_rows
from runner.backends.local.head import answer_losses, head_bytes, head_losses
from runner.backends.local.pack import pack
from tests.backends.local.test_pack import gradients, plain_losses, rows_with_prefix

VOCABULARY, HIDDEN, NUM = 97, 16, 23


def inputs(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> tuple[Any, ...]:
    torch.manual_seed(5)
    hidden, weight = torch.randn(NUM, HIDDEN), torch.randn(VOCABULARY, HIDDEN)
    constant = torch.randn(VOCABULARY) if bias else None
    labels = torch.randint(0, VOCABULARY, (NUM,))
    return hidden.to(dtype), weight.to(dtype), None if constant is None else constant.to(dtype), labels


def differentiate(loss: Any, given: tuple[Any, ...], *, trained: bool) -> tuple[torch.Tensor, list[Any]]:
    """Losses, and gradients for incoming gradients that differ from token to token."""
    hidden, weight, bias, labels = given
    leaves = [hidden.clone().requires_grad_()]
    leaves += [None if x is None else x.clone().requires_grad_(trained) for x in (weight, bias)]
    losses = loss(*leaves, labels)
    losses.backward(torch.linspace(0.1, 2.0, len(labels)))
    return losses.detach(), [None if x is None else x.grad for x in leaves]


def plain(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(F.linear(hidden, weight, bias).float(), labels, reduction="none")


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_rows", [1, 5, NUM])
@pytest.mark.parametrize("kept_rows", [3, NUM])
def test_losses_and_gradients_are_those_of_a_plain_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, trained: bool, bias: bool, chunk_rows: int, kept_rows: int
) -> None:
    monkeypatch.setattr(head, "CHUNK_BYTES", chunk_rows * VOCABULARY * 4)
    monkeypatch.setattr(head, "KEPT_BYTES", kept_rows * VOCABULARY * 4)
    given = inputs(bias=bias)
    expected, slopes = differentiate(plain, given, trained=trained)
    found, ours = differentiate(head_losses, given, trained=trained)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    for a, b in zip(ours, slopes, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("trained", [False, True])
def test_in_float16_a_large_vocabulary_does_not_overflow(trained: bool) -> None:
    hidden, weight = torch.zeros(1, 4, dtype=torch.float16), torch.ones(70_000, 4, dtype=torch.float16)
    losses, slopes = differentiate(head_losses, (hidden, weight, None, torch.tensor([3])), trained=trained)
    assert losses.item() == pytest.approx(11.156, abs=1e-3)  # log 70,000
    assert all(bool(slope.isfinite().all()) for slope in slopes if slope is not None)


@pytest.mark.parametrize("trained", [False, True])
def test_in_bfloat16_gradients_are_as_near_the_truth_as_a_plain_cross_entropy_comes(trained: bool) -> None:
    half = inputs(torch.bfloat16)
    exact_losses, exact = differentiate(
        plain, tuple(x if x.dtype == torch.int64 else x.float() for x in half), trained=trained
    )
    plain_losses_, usual = differentiate(plain, half, trained=trained)
    found, ours = differentiate(head_losses, half, trained=trained)
    assert (found - exact_losses).abs().max() <= 1.2 * (plain_losses_ - exact_losses).abs().max()
    for a, b, truth in zip(ours, usual, exact, strict=True):
        if a is not None:
            assert a.dtype == torch.bfloat16
            assert (a.float() - truth).norm() <= 1.5 * (b.float() - truth).norm()


def test_a_token_known_for_certain_still_has_its_small_gradient() -> None:
    weight = torch.eye(4, dtype=torch.bfloat16)
    hidden = torch.tensor([[9.0, 0.0, 0.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    head_losses(hidden, weight, None, torch.tensor([0])).backward(torch.ones(1))
    others = torch.exp(torch.tensor(-9.0)).item()
    assert hidden.grad is not None
    assert hidden.grad[0].tolist() == pytest.approx([-3 * others, others, others, others], rel=0.01)


def test_a_token_thought_impossible_has_a_finite_loss() -> None:
    hidden = torch.tensor([[500.0, 0.0]], requires_grad=True)
    losses = head_losses(hidden, torch.eye(2), None, torch.tensor([1]))
    assert losses.tolist() == [500.0]


def test_without_gradients_only_losses_are_computed() -> None:
    hidden, weight, bias, labels = inputs()
    with torch.no_grad():
        found = head_losses(hidden.requires_grad_(), weight.requires_grad_(), bias, labels)
    assert not found.requires_grad
    torch.testing.assert_close(found, plain(hidden, weight, bias, labels).detach())


def test_under_autocast_the_product_is_in_its_number_format_and_gradients_in_their_own() -> None:
    hidden, weight, bias, labels = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, slopes = differentiate(head_losses, (hidden, weight, bias, labels), trained=True)
        expected, _ = differentiate(plain, (hidden, weight, bias, labels), trained=True)
    assert [slope.dtype for slope in slopes] == [torch.float32] * 3
    torch.testing.assert_close(found, expected)


def test_no_more_rows_than_the_chunk_allows_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    widest = []
    whole = head._odds
    monkeypatch.setattr(head, "_odds", lambda h, *rest: (widest.append(len(h)), whole(h, *rest))[1])
    monkeypatch.setattr(head, "CHUNK_BYTES", 4 * VOCABULARY * 4)
    differentiate(head_losses, inputs(), trained=False)
    assert max(widest) == 4 and sum(widest) == NUM


def test_the_bytes_needed_grow_with_labels_up_to_the_chunk() -> None:
    assert head_bytes(10, 1000, 2, trained=False) == 10 * 1000 * (4 + 2 + 2)
    assert head_bytes(10, 1000, 2, trained=True) == 10 * 1000 * (4 + 2 + 2 + 2)
    assert head_bytes(10**9, 1000, 2, trained=False) == head_bytes(10**8, 1000, 2, trained=False)


def small(config: Any, **more: Any) -> Any:
    sizes = {"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    return config(**sizes, num_attention_heads=2, num_key_value_heads=1, head_dim=16, pad_token_id=0, **more)


def changed(name: str) -> Any:
    torch.manual_seed(2)
    if name == "soft-capped":
        return Gemma2ForCausalLM(small(Gemma2Config, final_logit_softcapping=0.5, attn_logit_softcapping=None))
    if name == "scaled":
        return CohereForCausalLM(small(CohereConfig, logit_scale=3.0))
    return GraniteForCausalLM(small(GraniteConfig, logits_scaling=7.0))


@pytest.mark.parametrize("name", ["soft-capped", "scaled", "divided"])
def test_logits_that_the_model_changes_after_the_head_are_those_of_the_loss(name: str) -> None:
    model = changed(name).train()
    rows = rows_with_prefix(12)
    separate = torch.cat([plain_losses(model, row) for row in rows])
    separate.mean().backward()
    expected = gradients(model)
    with packed_rows(model):
        losses = answer_losses(model, pack(rows))
    torch.testing.assert_close(losses, separate, atol=2e-5, rtol=1e-4)
    losses.mean().backward()
    for key, value in gradients(model).items():
        torch.testing.assert_close(value, expected[key], atol=2e-5, rtol=1e-3)


class OwnHead(torch.nn.Linear):
    """A head that is more than one product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).tanh()


def test_a_head_that_is_no_plain_layer_is_asked_for_its_logits(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    own = OwnHead(64, model.config.vocab_size, bias=False)
    own.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 20)
    model.lm_head = own
    rows = rows_with_prefix(12)
    with torch.no_grad():
        separate = torch.cat([plain_losses(model, row) for row in rows])
        with packed_rows(model):
            losses = answer_losses(model, pack(rows))
    torch.testing.assert_close(losses, separate, atol=2e-5, rtol=1e-4)


def test_a_head_tied_to_the_embeddings_gives_them_both_gradients() -> None:
    torch.manual_seed(2)
    model = LlamaForCausalLM(small(LlamaConfig, tie_word_embeddings=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    rows = rows_with_prefix(12)
    torch.cat([plain_losses(model, row) for row in rows]).mean().backward()
    expected = gradients(model)
    with packed_rows(model):
        answer_losses(model, pack(rows)).mean().backward()
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_plain_head_never_makes_the_logits_of_a_whole_batch(
    tiny_model: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    monkeypatch.setattr(head, "_losses_of_logits", None)  # would raise when it is called
    rows = rows_with_prefix(12)
    with packed_rows(model), context():
        assert len(answer_losses(model, pack(rows))) == sum(row.num_labelled for row in rows)


def test_looking_at_the_head_draws_no_random_numbers(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.model.embed_tokens.register_forward_hook(lambda module, args, out: out + torch.rand_like(out))
    batch = pack(rows_with_prefix(12))
    with torch.no_grad(), packed_rows(model):
        torch.manual_seed(4)
        first = answer_losses(model, batch)
        torch.manual_seed(4)
        again = answer_losses(model, batch)
    assert torch.equal(first, again)


def test_afterwards_the_model_gives_logits_again(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    batch = pack(rows_with_prefix(12))
    with torch.no_grad():
        with packed_rows(model):
            answer_losses(model, batch)
        assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, model.config.vocab_size)


def test_rows_are_not_read_with_attention_that_would_mix_them(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with pytest.raises(AssertionError, match="mix the rows"):
        answer_losses(model, pack(rows_with_prefix(12)))
