"""Faster layers where they pay: on a GPU, Liger's norms, rotary embeddings and gated MLPs, when it is installed."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import torch


def use_kernels(model: Any) -> bool:
    """Gives this model's layers Liger's forward passes (the same mathematics in fewer passes over memory); says whether
    it did. The loss stays ours: Liger's own goes through every position, ours only through labelled ones."""
    if not torch.cuda.is_available():
        return False
    with suppress(ImportError):
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

        if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
            return False
        try:
            _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
        except (AttributeError, TypeError) as error:  # a Liger that does not know these transformers yet
            logging.getLogger(__name__).warning("Liger's layers are not used: %s", error)
            return False
        return True
    return False
