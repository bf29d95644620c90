"""AdamW over the parameters that are open to gradients, and both as tensors that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from runner.backends.base import Hyperparameters
from runner.backends.local.ranks import put, whole

MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimizer:
    """Gradients and moments are made at once: a probe then sees all that a step takes, and an update takes no more
    memory, so that it cannot fail half-way."""

    def __init__(self, model: Any, hyper: Hyperparameters):
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._max_norm = hyper.max_grad_norm
        self._adam = torch.optim.AdamW(
            self.parameters, lr=hyper.learning_rate, weight_decay=hyper.weight_decay, fused=True
        )
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
            moments = {kind: torch.zeros_like(p) for kind in MOMENTS}
            self._adam.state[p] = {"step": torch.zeros((), device=p.device), **moments}

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        return list(self._parameters.values())

    def update(self, learning_rate: float) -> None:
        """Clips the gradients, moves the weights, and forgets the gradients."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        torch.nn.utils.clip_grad_norm_(self.parameters, self._max_norm)
        self._adam.step()
        self.forget()

    def forget(self) -> None:
        """Sets the gradients to zero; their memory stays."""
        self._adam.zero_grad(set_to_none=False)

    def weights(self) -> dict[str, torch.Tensor]:
        """What is trained, whole; where it is sharded every rank has to take part."""
        return {name: whole(p) for name, p in self._parameters.items()}

    def moments(self) -> dict[str, torch.Tensor]:
        """Adam's moments, whole; where they are sharded every rank has to take part."""
        return {name: whole(value) for name, value in self._moments()}

    def put_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Puts weights in place of those in the model."""
        for name, parameter in self._parameters.items():
            put(parameter, weights[name])

    def put_moments(self, moments: Mapping[str, torch.Tensor], step: int) -> None:
        """Puts the moments in place that there were after so many updates."""
        for name, value in self._moments():
            put(value, moments[name])
        for held in self._adam.state.values():
            held["step"].fill_(step)

    def _moments(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self._parameters.items():
            for kind in MOMENTS:
                yield f"{name}.{kind}", self._adam.state[parameter][kind]
