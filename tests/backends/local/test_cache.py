"""Keys and values that are appended in place."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer

from runner.backends.local.cache import RoomyLayer, make_cache


def states(num_tokens: int, num_rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(num_rows, 3, num_tokens, 4), torch.randn(num_rows, 3, num_tokens, 4)


@pytest.mark.parametrize("spare", [0, 1, 3, 50])
@pytest.mark.parametrize("repeats", [1, 3])
def test_what_is_held_is_what_transformers_would_hold(spare: int, repeats: int) -> None:
    torch.manual_seed(0)
    ours, theirs = RoomyLayer(spare), DynamicLayer()
    for num_tokens in (5, 7):
        some = states(num_tokens)
        ours.update(*some)
        theirs.update(*some)
    ours = copy.deepcopy(ours)  # as a prefix that several batches go on from
    for layer in (ours, theirs):
        layer.batch_repeat_interleave(repeats)
    for num_tokens in (4, 1, 1, 1, 1):
        some = states(num_tokens, 2 * repeats)
        held = zip(ours.update(*some), theirs.update(*some), strict=True)
        assert all(torch.equal(mine, other) for mine, other in held)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


def test_tokens_go_where_there_is_room_and_nothing_is_copied() -> None:
    layer = RoomyLayer(spare=3)
    layer.update(*states(5))
    place = layer.keys.data_ptr(), layer.values.data_ptr()
    for _ in range(3):
        layer.update(*states(1))
        assert (layer.keys.data_ptr(), layer.values.data_ptr()) == place
    layer.update(*states(1))
    assert layer.keys.data_ptr() != place[0] and layer.get_seq_length() == 9


def test_two_that_go_on_from_the_same_prefix_do_not_meet() -> None:
    prefix = RoomyLayer(spare=4)
    prefix.update(*states(5))
    one, other = copy.deepcopy(prefix), copy.deepcopy(prefix)
    one.update(*states(1))
    kept = one.keys.clone()
    other.update(*states(1))
    assert torch.equal(one.keys, kept) and prefix.get_seq_length() == 5


def test_layers_of_other_kinds_stay_as_they_are() -> None:
    plain = make_cache(LlamaConfig(num_hidden_layers=2), spare=8)
    assert isinstance(plain, DynamicCache) and [type(layer) for layer in plain.layers] == [RoomyLayer] * 2
    sliding = MistralConfig(num_hidden_layers=2, sliding_window=16)
    usual = DynamicCache(config=sliding)
    assert [type(layer) for layer in make_cache(sliding, spare=8).layers] == [type(layer) for layer in usual.layers]
    assert not any(isinstance(layer, RoomyLayer) for layer in make_cache(sliding, spare=8).layers)
