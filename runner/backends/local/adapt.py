"""What of the model is trained: an adapter on frozen (perhaps 4-bit) weights, or the weights themselves."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from runner.backends.base import Hyperparameters
from runner.backends.local.fused_lora import fuse
from runner.backends.local.ranks import blocks
from runner.errors import Exit, Problem, RunnerError

ROUTERS = ("gate", "router", "shared_expert_gate")  # of mixtures of experts: they choose experts and are left alone


def prepare(model: Any, method: str, hyper: Hyperparameters) -> Any:
    """The model with what is to be trained, and nothing else, open to gradients; the same weights, not a copy.

    Raises RunnerError (78) when the adapter does not fit the model.
    """
    model.requires_grad_(False)
    if method == "full":
        chosen = blocks(model)[-hyper.top_layers :] if hyper.top_layers else [model]
        for module in chosen:
            module.requires_grad_(True)
        return model
    config = LoraConfig(
        r=hyper.rank,
        lora_alpha=hyper.alpha,
        lora_dropout=hyper.dropout,
        use_rslora=hyper.rslora,
        use_dora=hyper.dora,
        target_modules=list(hyper.target_modules or linear_names(model)),
        layers_to_transform=_top_layers(model, hyper.top_layers),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise RunnerError(
            Problem(
                code="hyperparameters/target-modules",
                what=f"The adapter does not fit the model: {str(error).splitlines()[0]}",
                fix="Correct hyperparameters.target_modules, or leave it out for all linear layers.",
            ),
            Exit.MANIFEST,
        ) from error
    fuse(adapted)
    return adapted


def attach(model: Any, folder: Path) -> Any:
    """The model with the adapter of a folder, as it answers: nothing of it open to gradients."""
    adapted = open_adapter(model, folder)
    fuse(adapted)
    return adapted


def open_adapter(model: Any, folder: Path) -> Any:
    """PEFT's model of a folder's adapter, from safetensors alone: where there are none, PEFT would load a pickle."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise FileNotFoundError(errno.ENOENT, "There are no weights in safetensors", str(folder))
    return PeftModel.from_pretrained(model, str(folder))


def linear_names(model: Any) -> list[str]:
    """The names of all linear layers in the decoder's blocks, whatever its family; not the LM head, not routers."""
    return sorted(
        {
            name.rpartition(".")[2]
            for block in blocks(model)
            for name, module in block.named_modules()
            if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] not in ROUTERS
        }
    )


def _top_layers(model: Any, count: int | None) -> list[int] | None:
    """The numbers of the last `count` layers; None for all of them."""
    num_layers = model.config.get_text_config().num_hidden_layers
    return None if count is None else list(range(max(0, num_layers - count), num_layers))


def check_attention(model: Any, longest: int) -> None:
    """Refuses what packed attention would compute wrongly: a window shorter than the rows, or recurrent layers."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    reason = None
    if window and longest > window:
        reason = f"it attends to a window of {window} tokens and a row has {longest}"
    elif kinds or getattr(config, "attn_logit_softcapping", None):
        reason = "its layers are not plain attention (" + (", ".join(sorted(kinds)) or "soft-capped logits") + ")"
    if reason:
        raise RunnerError(
            Problem(
                code="model/attention",
                what=f"This model cannot be trained on packed rows: {reason}.",
                fix="Lower hyperparameters.max_length to the window, or choose another model.",
            ),
            Exit.MANIFEST,
        )


def add_noise(model: Any, alpha: float) -> None:
    """NEFTune (arXiv:2310.05914): uniform noise on the embeddings while training, of alpha / sqrt(tokens x width), with
    the tokens of an average row of the pack."""

    def noisy(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not model.training:
            return output
        tokens = inputs[0].numel() / getattr(model, "rows_in_pack", 1)
        size = alpha / (tokens * output.shape[-1]) ** 0.5
        return output + torch.empty_like(output).uniform_(-size, size)

    if alpha:
        model.get_input_embeddings().register_forward_hook(noisy)


def recompute(model: Any, wanted: bool) -> None:
    """Whether the forward pass is repeated in the backward pass instead of being kept."""
    if wanted:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def share_moved(model: Any) -> float:
    """Share of adapter layers that training moved: a B matrix begins at zero, and one that stayed learned nothing."""
    ends = [p for name, p in model.named_parameters() if "lora_B" in name]
    return sum(bool(p.any()) for p in ends) / len(ends) if ends else 1.0
