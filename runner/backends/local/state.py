"""Where training is: with the weights and the optimizer's moments, all that a checkpoint has to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runner.backends.base import CurvePoint


@dataclass(kw_only=True)
class State:
    """The step, the curve so far, the best look at the dev rows, and the loss that is not in the curve yet. The
    micro-batches belong to it: others would round otherwise. `computed_on` says what every stretch was computed on."""

    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None
    looks_without_better: int = 0
    points: list[CurvePoint] = field(default_factory=list)
    unlogged_loss: float = 0.0
    unlogged_steps: int = 0
    resumed_from: list[int] = field(default_factory=list)
    micro_batch_tokens: int = 0
    activation_checkpointing: bool = False
    computed_on: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> State:
        """The state that `to_json` gave."""
        return cls(**{**values, "points": [CurvePoint(**point) for point in values["points"]]})

    def go_on_with(self, computer: str) -> None:
        """Notes what the steps from here on are computed on, where it is another one than before."""
        if self.computed_on[-1:] != [computer]:
            self.computed_on.append(computer)

    @property
    def has_looked(self) -> bool:
        """Whether the dev loss of this step is known."""
        return any(point.step == self.step and point.dev_loss is not None for point in self.points)

    def is_better(self, dev_loss: float) -> bool:
        """Takes a look at the dev rows into account; whether these are the best weights so far."""
        if self.best_loss is None or dev_loss < self.best_loss:
            self.best_step, self.best_loss, self.looks_without_better = self.step, dev_loss, 0
            return True
        self.looks_without_better += 1
        return False

    def latest(self, name: str) -> float | None:
        """The newest `loss` or `dev_loss` of the curve."""
        values = (getattr(point, name) for point in reversed(self.points))
        return next((value for value in values if value is not None), None)
