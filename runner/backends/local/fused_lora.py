"""LoRA linear layers as three matrix products and two in-place additions, forward and backward.

PEFT's own layer casts, scales and adds in separate passes over memory; on a CPU these cost as much as a product.
The mathematics is the same: y = x W' + c + s (x A') B', with W perhaps in 4 bits and made whole once for each pass.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from peft.tuners.lora.layer import Linear


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, base: torch.Tensor, bias: torch.Tensor | None, a: Any, b: Any, s: float, state: Any
    ) -> Any:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.to(x.dtype).t()
        weight = _whole(base, state, x.dtype)
        y = flat @ weight.t() if bias is None else torch.addmm(bias.to(x.dtype), flat, weight.t())
        y.addmm_(low, b.to(x.dtype).t(), alpha=s)
        ctx.save_for_backward(flat, base, a, b, low)
        ctx.s, ctx.state = s, state
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        flat, base, a, b, low = ctx.saved_tensors
        dy = grads[0].reshape(-1, grads[0].shape[-1])
        dlow = (dy @ b.to(dy.dtype)).mul_(ctx.s)
        dx = None
        if ctx.needs_input_grad[0]:
            weight = _whole(base, ctx.state, dy.dtype)
            dx = (dy @ weight).addmm_(dlow, a.to(dy.dtype)).view(*grads[0].shape[:-1], -1)
        da = (dlow.t() @ flat).to(a.dtype)
        db = (dy.t() @ low).mul_(ctx.s).to(b.dtype)
        return dx, None, None, da, db, None, None


def fuse(model: torch.nn.Module) -> int:
    """Gives every plain LoRA layer the fused forward; returns how many. Others (DoRA, dropout) keep PEFT's own."""
    count = 0
    for layer in model.modules():
        if (type(layer) is Linear or _is_4bit(layer)) and _is_plain(layer):
            layer.forward = types.MethodType(_forward, layer)
            count += 1
    return count


def _is_4bit(layer: torch.nn.Module) -> bool:
    """Told by name, since importing PEFT's class means importing bitsandbytes, which takes seconds."""
    kind = type(layer)
    return (kind.__module__, kind.__name__) == ("peft.tuners.lora.bnb", "Linear4bit")


def _is_plain(layer: Any) -> bool:
    base = layer.base_layer
    return (
        list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and isinstance(layer.lora_dropout["default"], torch.nn.Identity)
        and layer.lora_B["default"].bias is None
        and isinstance(base, torch.nn.Linear)
        and not any(parameter.requires_grad for parameter in base.parameters())
        and (_is_4bit(layer) or base.weight.is_floating_point())
    )


def _forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    base = self.base_layer
    state = getattr(base.weight, "quant_state", None) if _is_4bit(self) else None
    # What bitsandbytes would convert, quantise first or has repacked for answering, it does itself.
    own = state is not None and base.compute_dtype == x.dtype and not getattr(state, "packing_format_for_cpu", False)
    casts = torch.is_autocast_enabled(x.device.type) or not (own if _is_4bit(self) else base.weight.dtype == x.dtype)
    if self.disable_adapters or self.merged or args or kwargs or casts:
        return type(self).forward(self, x, *args, **kwargs)  # type: ignore[no-any-return]
    a, b = self.lora_A["default"].weight, self.lora_B["default"].weight
    return _LoraLinear.apply(x, base.weight, base.bias, a, b, self.scaling["default"], state)  # type: ignore[no-any-return]


def _whole(base: torch.Tensor, state: Any, dtype: torch.dtype) -> torch.Tensor:
    """The weights (out, in) as numbers to compute with."""
    if state is None:
        return base
    from bitsandbytes.functional import dequantize_4bit  # in memory already, where such weights are

    whole: torch.Tensor = dequantize_4bit(base, state).to(dtype)
    return whole
