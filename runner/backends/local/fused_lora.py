"""LoRA linear layers as three matrix products and two in-place additions, forward and backward.

PEFT's own layer casts, scales and adds in separate passes over memory; on a CPU these cost as much as a product.
The mathematics is the same: y = x W' + s (x A') B'.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from peft.tuners.lora.layer import Linear


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, base: torch.Tensor, a: torch.Tensor, b: torch.Tensor, s: float) -> Any:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.to(x.dtype).t()
        y = flat @ base.t()
        y.addmm_(low, b.to(x.dtype).t(), alpha=s)
        ctx.save_for_backward(flat, base, a, b, low)
        ctx.s = s
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        flat, base, a, b, low = ctx.saved_tensors
        dy = grads[0].reshape(-1, grads[0].shape[-1])
        dlow = (dy @ b.to(dy.dtype)).mul_(ctx.s)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ base).addmm_(dlow, a.to(dy.dtype)).view(*grads[0].shape[:-1], -1)
        da = (dlow.t() @ flat).to(a.dtype)
        db = (dy.t() @ low).mul_(ctx.s).to(b.dtype)
        return dx, None, da, db, None


def fuse(model: torch.nn.Module) -> int:
    """Gives every plain LoRA layer the fused forward; returns how many. Others keep PEFT's own."""
    count = 0
    for layer in model.modules():
        if type(layer) is Linear and _is_plain(layer):
            layer.forward = types.MethodType(_forward, layer)
            count += 1
    return count


def _is_plain(layer: Linear) -> bool:
    return (
        list(layer.lora_A) == ["default"]
        and not layer.use_dora.get("default", False)
        and isinstance(layer.lora_dropout["default"], torch.nn.Identity)
        and getattr(layer.base_layer, "bias", None) is None
        and layer.base_layer.weight.is_floating_point()
    )


def _forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if self.disable_adapters or self.merged or args or kwargs:
        return type(self).forward(self, x, *args, **kwargs)  # type: ignore[no-any-return]
    a, b = self.lora_A["default"].weight, self.lora_B["default"].weight
    return _LoraLinear.apply(x, self.base_layer.weight, a, b, self.scaling["default"])  # type: ignore[no-any-return]
