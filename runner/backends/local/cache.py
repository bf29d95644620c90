"""Keys and values of answers in the making, in memory that has room for the tokens to come."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def make_cache(config: Any, spare: int) -> DynamicCache:
    """An empty cache for a model of this config, which takes up to `spare` tokens behind the first ones without being
    copied. Layers of other kinds (sliding windows, states) are those of transformers."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(spare) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Appends in place. transformers' own layer copies all that it holds for every token: in float32 on a processor
    that took longer than the attention."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, spare: int):
        super().__init__()
        self._spare = spare
        self._rooms: list[torch.Tensor | None] = [None, None]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds states (B, heads, tokens, dim) to those held, and gives all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._append(0, self.keys, key_states)
        self.values = self._append(1, self.values, value_states)
        return self.keys, self.values

    def _append(self, which: int, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        room = self._rooms[which]
        begin = held.shape[-2] if held.numel() else 0
        end = begin + new.shape[-2]
        if room is None or held.data_ptr() != room.data_ptr() or end > room.shape[-2]:
            room = new.new_empty((*new.shape[:-2], end + self._spare, new.shape[-1]))
            if begin:
                room[..., :begin, :] = held
            self._rooms[which] = room
        room[..., begin:end, :] = new
        return room[..., :end, :]
