"""The training arms: ours, through the session or through its trainer, and TRL's; each timed step by step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from bench.figures import Result
from bench.rows import MadeUpRows, hyperparameters, local_backend, quickstart_examples

NEVER = 10**9  # steps: no checkpoint while timing


def now() -> float:
    """The time, when the device has done all that it was asked to; both sides wait after every step."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def most_held() -> int | None:
    """The most bytes held since the counter was last set back: allocated on the GPU, else resident; None is unknown."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


class Clock:
    """A watch that notes when each training step ended, what its loss was, and the peak of memory by then."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []
        self.peak_bytes: int | None = None
        self._label = ""

    def progress(self, label: str, total: int) -> Clock:
        self._label = label
        return self

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        if self._label == "train":
            self.times.append(now())
            self.peak_bytes = most_held()

    def log(self, values: Any, step: int) -> None:
        self.losses += [values["train/loss"]] if "train/loss" in values else []

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *_: object) -> None: ...
    def stage(self, name: str) -> None: ...
    def say(self, line: str) -> None: ...
    def send_curves_to(self, sink: Any) -> None: ...
    def saved(self, what: Any, amount: int) -> None: ...
    def note_saved_with(self, note: Any) -> None: ...
    def interruptible(self, grace_seconds: float = 0.0) -> AbstractContextManager[None]:
        return nullcontext()

    def check(self) -> None: ...


def timed(times: Sequence[float], tokens: Sequence[int], losses: Sequence[float], warm: int, **facts: Any) -> Result:
    """What an arm measured after `warm` steps: seconds and real tokens of each; `losses` from the first step on."""
    assert warm >= 1, "a step's time begins where the one before ended"
    seconds = [later - earlier for earlier, later in zip(times[warm - 1 :], times[warm:], strict=False)]
    assert seconds and len(tokens) == len(times), "every step must be timed and counted"
    return {"seconds": seconds, "tokens": list(tokens[warm:]), "losses": list(losses), **facts}


# --- ours ------------------------------------------------------------------------------------------------------------


def ours_on_quickstart(options: dict[str, Any]) -> Result:
    """Through a session, from the shipped rows to the last step: load, prepare, plan memory, train."""
    local, clock = local_backend(), Clock()
    examples = quickstart_examples(options["rows"])
    with tempfile.TemporaryDirectory() as folder:
        session = local.open_session(options["model"], options["method"], Path(folder) / "cache", clock)
        counts = session.count_tokens(examples, clock)
        assert not counts.problems, "the shipped rows can be trained on"
        job = _job(options, examples, Path(folder))
        trained = session.train(job, clock)
    steps = _steps(counts.total, job)
    tokens = [steps.tokens(step, step + 1) for step in range(steps.num_steps)]
    return timed(clock.times, tokens, clock.losses, options["warm"], **_memory(trained, clock.peak_bytes))


def ours_on_made_up(options: dict[str, Any], model: Any, rows: MadeUpRows) -> Result:
    """Through the backend's trainer, with a model that is in memory already and rows of random tokens."""
    local, clock = local_backend(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        job = _job(options, (), Path(folder))
        job.work_dir.mkdir()
        told = local.ranks.job.RankJob(
            model="made up",
            method=options["method"],
            cache=Path(folder),
            trust_remote_code=False,
            name="bench",
            job=job,
            rows=rows,
            dev=_head(rows),
        )
        local.loop.LOG_STEPS_GPU = 1  # the loss of the first step is compared; it costs us a wait a step
        _, trained = local.train.train(model, _NoTokenizer(), told, clock, local.session.ALONE, lambda: False)
    steps = _steps(rows.counts.total, job)
    tokens = [steps.tokens(step, step + 1) for step in range(steps.num_steps)]
    return timed(clock.times, tokens, clock.losses, options["warm"], **_memory(trained, clock.peak_bytes))


class _NoTokenizer:
    def save_pretrained(self, folder: Any) -> None: ...


def _job(options: dict[str, Any], examples: Sequence[Any], folder: Path) -> Any:
    from runner.backends.base import CheckpointPlan, TrainJob

    return TrainJob(
        method=options["method"],
        hyperparameters=_hyper(options),
        train=examples,
        dev=examples[:2],
        work_dir=folder / "work",
        model_dir=folder / "model",
        seed=options["seed"],
        processes=1,
        checkpoint=CheckpointPlan(every_steps=NEVER),
    )


def _hyper(options: dict[str, Any]) -> Any:
    return hyperparameters(max_steps=options["warm"] + options["steps"], **options["hyper"])


def _steps(lengths: Any, job: Any) -> Any:
    from runner.backends.local.steps import make_steps

    return make_steps(lengths, job.hyperparameters, job.seed)


def _head(rows: MadeUpRows) -> MadeUpRows:
    import numpy as np

    return MadeUpRows(np.sort(rows.counts.total)[:2], 16)


def _memory(trained: Any, peak_bytes: int | None) -> dict[str, Any]:
    """The plan and the peak that the kernel or CUDA counted, not the product's own meter."""
    use = trained.memory
    return {
        "peak_bytes": peak_bytes,
        "estimate_bytes": use.estimate_bytes,
        "memory_error": abs(use.estimate_bytes / peak_bytes - 1) if peak_bytes else None,
        "micro_batch_tokens": use.micro_batch_tokens,
        "activation_checkpointing": use.activation_checkpointing,
    }


# --- TRL's -----------------------------------------------------------------------------------------------------------


def trl_on_quickstart(options: dict[str, Any]) -> Result:
    """Stock SFTTrainer on the same rows and tokens; `tuned`: packed, without checkpointing, in float32."""
    local, clock = local_backend(), Clock()
    from runner.backends.local.encode import encode

    session = local.open_session(options["model"], "lora", Path(options["work"]) / "cache", clock)
    rows = encode(session.tokenizer, quickstart_examples(options["rows"]), session.stop_ids)
    extra: dict[str, Any] = {}
    if options["tuned"]:
        largest = max(sum(len(row.input_ids) for row in some) for some in _batches(rows, options))
        extra = {"packing": True, "gradient_checkpointing": False, "bf16": False, "max_length": largest}
        extra |= {"per_device_train_batch_size": 1}  # a pack holds what a batch of rows holds otherwise
    return train_with_trl(options, session.folder, session.tokenizer, rows, extra)


def train_with_trl(
    options: dict[str, Any], model: Any, tokenizer: Any, rows: Sequence[Any], extra: dict[str, Any]
) -> Result:
    """SFTTrainer with its defaults, but for `extra`, on encoded rows in the order that our steps take them."""
    import torch
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig

    hyper, order = _hyper(options), [row for some in _batches(rows, options) for row in some]
    adapter = LoraConfig(r=hyper.rank, lora_alpha=hyper.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "output_dir": folder,
            "max_steps": hyper.max_steps,
            "per_device_train_batch_size": hyper.batch_size,
            "learning_rate": hyper.learning_rate,
            "max_length": hyper.max_length,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": not torch.cuda.is_available(),  # or it refuses its own default, bf16
        }
        trainer = _in_order()(
            model=model,
            args=SFTConfig(**{**given, **extra}),
            train_dataset=_dataset(order),
            processing_class=tokenizer,
            peft_config=None if options["method"] == "full" else adapter,
        )
        counted, clock = _Counted(trainer.data_collator), _StepClock()
        trainer.data_collator = counted
        trainer.add_callback(clock.callback())
        trainer.remove_callback(PrinterCallback)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        parts = trainer.args.gradient_accumulation_steps
    tokens = [sum(counted.tokens[i * parts : (i + 1) * parts]) for i in range(len(clock.times))]
    return timed(clock.times, tokens, clock.losses, options["warm"], peak_bytes=most_held())


def _batches(rows: Sequence[Any], options: dict[str, Any]) -> list[list[Any]]:
    """The rows of each step as ours takes them."""
    import numpy as np

    hyper = _hyper(options)
    lengths = np.array([len(row.input_ids) for row in rows])
    from runner.backends.local.steps import make_steps

    steps = make_steps(lengths, hyper, options["seed"])
    return [[rows[int(i)] for i in steps.rows(step)] for step in range(steps.num_steps)]


def _dataset(rows: Sequence[Any]) -> Any:
    """Tokens and labels as TRL takes them ready-made."""
    import datasets

    datasets.disable_progress_bars()
    labels = [[-100] * len(row.input_ids) for row in rows]
    for row, line in zip(rows, labels, strict=True):
        for first, end in row.spans:
            line[first:end] = row.input_ids[first:end]
    return datasets.Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": labels})


def _in_order() -> Any:
    """SFTTrainer, taking rows in the order in which they stand."""
    from torch.utils.data import SequentialSampler
    from trl import SFTTrainer

    class InOrder(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    return InOrder


class _Counted:
    """A collator that notes the real tokens of each micro-batch."""

    def __init__(self, collator: Any):
        self.tokens: list[int] = []
        self._collator = collator

    def __call__(self, rows: Any) -> Any:
        self.tokens.append(sum(len(row["input_ids"]) for row in rows))
        return self._collator(rows)


class _StepClock:
    """Notes when each optimizer step ended, and the losses that are logged."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def callback(self) -> Any:
        from transformers import TrainerCallback

        clock = self

        class Callback(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.times.append(now())

            def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
                clock.losses += [float(logs["loss"])] if logs and "loss" in logs else []

        return Callback()
