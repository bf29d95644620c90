"""lora, qlora and full as one loop: TRL's trainer on rows that we tokenized, labelled and packed ourselves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from runner.backends.base import CurvePoint, Progress, TrainedModel, TrainJob, Watch
from runner.backends.local import generate
from runner.backends.local.encode import Encoded
from runner.backends.local.encoded import EncodedRows, as_encoded
from runner.backends.local.fused_lora import fuse
from runner.backends.local.pack import answer_losses, pack
from runner.conversation import Example
from runner.errors import Exit, Problem, RunnerError

DEV_LOOKS = 2


class _PackedTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with our loss (labelled tokens only, over all of the step's tokens) and our dev loss."""

    def __init__(self, *, dev: Sequence[Encoded], watch: Watch, **kwargs: Any):
        super().__init__(**kwargs)
        self._dev = dev
        self._watch = watch
        self.model_accepts_loss_kwargs = True  # the loss below divides by the whole step's tokens itself
        self._loss_shifts_labels = False  # our labels are those of the kept positions, already shifted

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        losses = answer_losses(model, inputs)
        return losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        metrics = {"eval_loss": generate.held_out_loss(self.model, self._dev, self._watch).mean}
        self.model.train()
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _Reporter(TrainerCallback):  # type: ignore[misc]
    """Turns the trainer's log into progress, a curve, and an error when the loss is no number."""

    def __init__(self, progress: Progress, watch: Watch, tokens_per_step: float):
        self._progress = progress
        self._watch = watch
        self._tokens_per_step = tokens_per_step
        self._started = time.perf_counter()
        self.points: list[CurvePoint] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = time.perf_counter() - self._started
        facts: dict[str, float | str] = {"tok_s": round(self._tokens_per_step * state.global_step / seconds)}
        for name in ("loss", "dev_loss"):
            latest = next((v for p in reversed(self.points) if (v := getattr(p, name)) is not None), None)
            if latest is not None:
                facts[name] = round(latest, 4)
        if state.global_step >= state.max_steps:
            control.should_log = True  # else the last steps of a short run never reach the curve
        self._progress.advance(1, **facts)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        logs = logs or {}
        loss, dev_loss = logs.get("loss"), logs.get("eval_loss")
        if loss is None and dev_loss is None:
            return
        for value in (loss, dev_loss, logs.get("grad_norm")):
            if value is not None and not math.isfinite(value):
                raise _diverged(state.global_step, args.learning_rate)
        point = CurvePoint(
            step=state.global_step, loss=loss, dev_loss=dev_loss, learning_rate=logs.get("learning_rate")
        )
        self.points.append(point)
        names = {"train/loss": loss, "train/dev_loss": dev_loss, "train/learning_rate": point.learning_rate}
        self._watch.log({k: v for k, v in names.items() if v is not None}, state.global_step)


def train(
    model: Any, tokenizer: Any, encode: Callable[[Sequence[Example]], EncodedRows], job: TrainJob, watch: Watch
) -> tuple[Any, TrainedModel]:
    """The trained model (an adapter around the same weights, or the weights themselves) and what training did.

    Raises RunnerError when the loss stops being a number, and Interrupted when asked to stop.
    """
    hyper = job.hyperparameters
    rows, dev = encode(job.train), encode(job.dev)
    _check_attention(model, int(max(rows.counts.total.max(), dev.counts.total.max())))
    set_seed(job.seed)
    if job.method != "full":
        model = _with_adapter(model, job)
    steps_per_epoch = math.ceil(len(rows) / hyper.batch_size)
    num_steps = max(1, round(steps_per_epoch * hyper.epochs))
    row_tokens = int(rows.counts.total.sum())
    with watch.progress("train", num_steps) as progress:
        reporter = _Reporter(progress, watch, row_tokens / steps_per_epoch)
        trainer = _PackedTrainer(
            dev=dev,
            watch=watch,
            model=model,
            processing_class=tokenizer,
            args=_arguments(job, num_steps),
            train_dataset=rows.as_dataset(),
            eval_dataset=dev.as_dataset(),
            data_collator=lambda features: pack([as_encoded(f) for f in features]),
            callbacks=[reporter],
        )
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        with generate.packed_rows(model):
            trainer.train()
        seconds = time.perf_counter() - started
    moved = _share_moved(model) if job.method != "full" else 1.0
    _deliver(model, tokenizer, job.model_dir)
    model.eval()
    losses = [p.loss for p in reporter.points if p.loss is not None]
    dev_losses = [p.dev_loss for p in reporter.points if p.dev_loss is not None]
    trained_tokens = round(row_tokens * num_steps / steps_per_epoch)
    outcome = TrainedModel(
        method=job.method,
        model_dir=str(job.model_dir),
        num_parameters=sum(p.numel() for p in model.parameters()),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        num_steps=num_steps,
        train_tokens=trained_tokens,
        labelled_tokens=round(int(rows.counts.labelled.sum()) * num_steps / steps_per_epoch),
        train_seconds=seconds,
        tokens_per_second=trained_tokens / seconds,
        final_loss=losses[-1],
        dev_loss=dev_losses[-1] if dev_losses else None,
        curve=tuple(reporter.points),
        moved_adapters=moved,
    )
    return model, outcome


def _arguments(job: TrainJob, num_steps: int) -> SFTConfig:
    hyper = job.hyperparameters
    on_gpu = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(job.work_dir),
        max_steps=num_steps,
        per_device_train_batch_size=hyper.batch_size,
        learning_rate=hyper.learning_rate,
        lr_scheduler_type=hyper.schedule,
        warmup_steps=hyper.warmup,
        weight_decay=hyper.weight_decay,
        max_grad_norm=hyper.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=False,  # the weights already have the number format they compute in
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
        logging_steps=10 if on_gpu else 1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=max(1, num_steps // DEV_LOOKS),
        eval_on_start=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=hyper.max_length,
        seed=job.seed,
        data_seed=job.seed,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several visible GPUs would be driven by DataParallel
    return arguments


def _with_adapter(model: Any, job: TrainJob) -> Any:
    hyper = job.hyperparameters
    if job.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    by_name = hyper.target_modules or hyper.top_layers  # PEFT takes layer numbers only beside names
    config = LoraConfig(
        r=hyper.rank,
        lora_alpha=hyper.alpha,
        lora_dropout=hyper.dropout,
        target_modules=list(hyper.target_modules or _linear_names(model)) if by_name else "all-linear",
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


def _linear_names(model: Any) -> list[str]:
    """The names of all linear layers but the LM head."""
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, m in model.named_modules()
            if isinstance(m, torch.nn.Linear) and m is not head
        }
    )


def _top_layers(model: Any, count: int | None) -> list[int] | None:
    """The numbers of the last `count` layers; None for all of them."""
    num_layers = model.config.get_text_config().num_hidden_layers
    return None if count is None else list(range(max(0, num_layers - count), num_layers))


def _check_attention(model: Any, longest: int) -> None:
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


def _share_moved(model: Any) -> float:
    """Share of adapter layers that training moved: a B matrix begins at zero, and one that stayed learned nothing."""
    ends = [p for name, p in model.named_parameters() if "lora_B" in name]
    return sum(bool(p.any()) for p in ends) / len(ends)


def _deliver(model: Any, tokenizer: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():  # safetensors writes 0600; the next stage or another user must read it too
        path.chmod(0o644)


def _diverged(step: int, learning_rate: float) -> RunnerError:
    return RunnerError(
        Problem(
            code="train/diverged",
            what=f"The loss is no longer a number at step {step}, with learning rate {learning_rate:g}.",
            fix="Lower hyperparameters.learning_rate (a tenth is a good next try).",
        ),
        Exit.MANIFEST,
    )
