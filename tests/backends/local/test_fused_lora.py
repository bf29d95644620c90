"""The fused layer computes what PEFT's own does, and leaves to PEFT what it does not know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from runner.backends.local.fused_lora import fuse

IN, OUT = 64, 128


class Net(torch.nn.Module):
    """Two linear layers, one of them with a bias, as in Qwen2."""

    def __init__(self, linear: Any = torch.nn.Linear, **options: Any):
        super().__init__()
        self.first = linear(IN, OUT, bias=True, **options)
        self.second = linear(OUT, IN, bias=False, **options)

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(self.first(x).tanh())


def adapted(net: torch.nn.Module, **options: Any) -> Any:
    """The net with an adapter that already does something."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": ["first", "second"], **options})
    model = get_peft_model(net, config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def step(model: Any, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Output, gradient of the input and of every trained parameter."""
    torch.manual_seed(2)
    x = torch.randn(2, 7, IN).to(dtype).requires_grad_()
    y = model(x)
    y.float().square().mean().backward()
    assert x.grad is not None
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {"output": y.detach(), "input": x.grad, **found}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], **allowed: float) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **allowed, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("rslora", [False, True])
def test_a_fused_layer_has_the_outputs_and_gradients_of_pefts_own(rslora: bool) -> None:
    torch.manual_seed(0)
    model = adapted(Net(), use_rslora=rslora)
    expected = step(model)
    assert fuse(model) == 2
    assert_same(step(model), expected, atol=1e-6, rtol=1e-4)


def test_without_gradients_and_without_the_adapter_outputs_are_pefts_own() -> None:
    torch.manual_seed(0)
    model, x = adapted(Net()), torch.randn(3, IN)
    with torch.no_grad():
        expected = model(x)
        with model.disable_adapter():
            base = model(x)
        fuse(model)
        torch.testing.assert_close(model(x), expected)
        with model.disable_adapter():
            assert torch.equal(model(x), base)
    assert not torch.allclose(base, expected)


def test_a_merged_adapter_is_not_added_twice() -> None:
    torch.manual_seed(0)
    model, x = adapted(Net()), torch.randn(3, IN)
    fuse(model)
    with torch.no_grad():
        expected = model(x)
        model.merge_adapter()
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)


def test_adapters_in_float32_on_a_bfloat16_base_come_near_pefts_own() -> None:
    torch.manual_seed(0)
    model = adapted(Net().to(torch.bfloat16))
    assert model.base_model.model.first.lora_A["default"].weight.dtype == torch.float32
    expected = step(model, torch.bfloat16)
    fuse(model)
    found = step(model, torch.bfloat16)
    assert {name: x.dtype for name, x in found.items()} == {name: x.dtype for name, x in expected.items()}
    for name in expected:
        difference = (found[name].float() - expected[name].float()).norm() / expected[name].float().norm()
        assert difference < 0.02, name


def test_under_autocast_pefts_own_layer_runs() -> None:
    torch.manual_seed(0)
    model = adapted(Net())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = step(model)
        fuse(model)
        assert_same(step(model), expected, atol=0, rtol=0)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}, {"bias": "all"}])
def test_what_the_fused_layer_does_not_know_keeps_pefts_own(options: dict[str, Any]) -> None:
    model = adapted(Net(), **options)
    assert fuse(model) == (1 if "bias" in options else 0)  # only one layer has a bias that could be trained


def four_bit_net(dtype: torch.dtype) -> Any:
    bnb = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    net = Net(bnb.nn.Linear4bit, compute_dtype=dtype, quant_type="nf4", compress_statistics=True).to("cpu")
    for layer in (net.first, net.second):
        layer.weight = layer.weight.to("cpu")  # this is what quantises
        layer.support_avx512bf16_for_cpu = False
        assert layer.weight.quant_state is not None
    net.first.bias.data = net.first.bias.data.to(dtype)
    net.is_loaded_in_4bit = True
    return net


@pytest.mark.slow
@pytest.mark.parametrize("rslora", [False, True])
def test_over_four_bit_weights_it_has_the_outputs_and_gradients_of_pefts_own(rslora: bool) -> None:
    model = adapted(four_bit_net(torch.float32), use_rslora=rslora)
    expected = step(model)
    assert fuse(model) == 2
    assert_same(step(model), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_over_four_bit_weights_another_number_format_is_left_to_pefts_own() -> None:
    model = adapted(four_bit_net(torch.bfloat16))
    expected = step(model)  # float32 in, computed in bfloat16
    assert fuse(model) == 2
    assert_same(step(model), expected, atol=0, rtol=0)


@pytest.mark.slow
def test_four_bit_weights_are_not_kept_whole_between_the_passes() -> None:
    model = adapted(four_bit_net(torch.float32))
    fuse(model)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        model(torch.randn(2, IN, requires_grad=True))
    assert sizes and max(sizes) < IN * OUT
