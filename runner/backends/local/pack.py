"""Several rows in one sequence without padding, their common beginning computed once.

Rows of one experiment usually open with the same system prompt. A micro-batch keeps that prefix once; every row's own
part attends to the prefix and to itself, never to another row. The result equals separate rows exactly (a test holds
it to that), for fewer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from runner.backends.local.encode import Encoded

MIN_SHARED = 8


def shared_prefix(rows: Sequence[Encoded]) -> int:
    """Tokens that all rows begin with, ending before any row's first label can depend on its own last prompt token."""
    if len(rows) < 2:
        return 0
    limit = min(row.spans[0][0] - 1 for row in rows)
    first = rows[0].input_ids
    length = 0
    while length < limit and all(row.input_ids[length] == first[length] for row in rows):
        length += 1
    return length if length >= MIN_SHARED else 0


def pack(rows: Sequence[Encoded], *, shared: bool = True) -> dict[str, torch.Tensor]:
    """A micro-batch of T tokens: the prefix (P tokens, 0 unless `shared` and there is one), then each row's own part.

    `input_ids`, `position_ids` (1, T); `logits_to_keep` (N,) the positions that predict a label; `labels` (N,);
    `row_sizes` (rows,) labels of each row; and what the attention needs, see `_layout`.
    """
    prefix = shared_prefix(rows) if shared else 0
    ids = list(rows[0].input_ids[:prefix])
    positions = list(range(prefix))
    keep: list[int] = []
    labels: list[int] = []
    sizes: list[int] = []
    for row in rows:
        shift = len(ids) - prefix
        answered = [j for first, end in row.spans for j in range(max(first, 1), end)]
        keep.extend(shift + j - 1 for j in answered)
        labels.extend(row.input_ids[j] for j in answered)
        sizes.append(len(answered))
        ids.extend(row.input_ids[prefix:])
        positions.extend(range(prefix, len(row.input_ids)))
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "logits_to_keep": torch.tensor(keep),
        "labels": torch.tensor(labels),
        "row_sizes": torch.tensor(sizes),
        **_layout(prefix, [len(row.input_ids) - prefix for row in rows]),
    }


def _layout(prefix: int, own: Sequence[int]) -> dict[str, torch.Tensor]:
    """Where each row's tokens stand, for both attentions; P and the longest row follow from the shapes.

    Of rows padded to one length L: `gather` (rows, L) the place of each own token after the prefix, filled up with 0;
    `scatter` (T - P,) the place of each own token in the flattened `gather`. Of sequences laid end to end, the prefix
    (if any) and then prefix + own part of each row: `cu_q`, `cu_k` (sequences + 1,) where queries and keys of each
    begin; with a prefix also `kv_index` (keys,) the token that is each key, and `kv_own` (T - P,) the key that is each
    own token.
    """
    longest, starts = max(own), list(accumulate(own, initial=0))
    queries = [prefix, *own] if prefix else list(own)
    keys = [prefix, *(prefix + length for length in own)] if prefix else list(own)
    cu_k = list(accumulate(keys, initial=0))
    kv_index: list[int] = []
    kv_own: list[int] = []
    if prefix:
        kv_index.extend(range(prefix))
        for begin, length, key in zip(starts, own, cu_k[1:], strict=False):
            kv_index.extend((*range(prefix), *range(prefix + begin, prefix + begin + length)))
            kv_own.extend(range(key + prefix, key + prefix + length))
    gather = [[*range(a, a + n), *[0] * (longest - n)] for a, n in zip(starts, own, strict=False)]
    return {
        "gather": torch.tensor(gather),
        "scatter": torch.tensor([i * longest + j for i, length in enumerate(own) for j in range(length)]),
        "cu_q": torch.tensor(list(accumulate(queries, initial=0)), dtype=torch.int32),
        "cu_k": torch.tensor(cu_k, dtype=torch.int32),
        "kv_index": torch.tensor(kv_index, dtype=torch.int64),
        "kv_own": torch.tensor(kv_own, dtype=torch.int64),
    }
