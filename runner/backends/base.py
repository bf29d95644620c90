"""What a backend can be asked to do: narrow protocols, and the jobs that cross them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from runner.backends.pins import Located
from runner.conversation import Completion, Example, Message
from runner.errors import Problem

if TYPE_CHECKING:
    import numpy as np

Side = Literal["base", "tuned"]
Form = Literal["adapter", "full", "merged"]


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """How to train. Lengths are in tokens, `batch_size` in rows for one optimizer step; None leaves it to the trainer.

    `max_steps` and `batch_tokens` decide where they are given, and `epochs` and `batch_size` are not looked at.
    `target_modules` None: every linear layer of the decoder's blocks. `early_stopping_patience` None: never.
    """

    epochs: float
    learning_rate: float
    batch_size: int
    max_length: int
    schedule: str
    warmup: float
    weight_decay: float
    max_grad_norm: float
    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...] | None
    top_layers: int | None = None
    max_steps: int | None = None
    batch_tokens: int | None = None
    packing: bool = True
    rslora: bool = False
    dora: bool = False
    neftune_alpha: float = 0.0
    early_stopping_patience: int | None = None
    eval_steps: int | None = None

    def passes(self, num_rows: int, num_tokens: int) -> float:
        """Passes over so many training rows and their tokens, where training is not stopped early: the epochs, or what
        `max_steps` come to."""
        if self.max_steps is None:
            return self.epochs
        return self.max_steps / max(1, self.steps_per_pass(num_rows, num_tokens))

    def steps_per_pass(self, num_rows: int, num_tokens: int) -> int:
        """Optimizer steps in a pass over so many rows and their tokens; a step has a row at least."""
        if self.batch_tokens is None:
            return math.ceil(num_rows / self.batch_size)
        return min(num_rows, math.ceil(num_tokens / self.batch_tokens))


@dataclass(frozen=True, kw_only=True)
class CheckpointPlan:
    """How training is saved: every so many optimizer steps (None: by time), and how many checkpoints are kept."""

    every_steps: int | None = None
    keep: int = 2


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """All that a trainer needs; it never sees the manifest. `processes` None: one for each GPU, and one without."""

    method: str
    hyperparameters: Hyperparameters
    train: Sequence[Example]
    dev: Sequence[Example]
    work_dir: Path
    model_dir: Path
    seed: int
    processes: int | None = None
    checkpoint: CheckpointPlan = CheckpointPlan()


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to answer: greedy, at most `max_new_tokens`, `batch_size` rows at a time."""

    max_new_tokens: int
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server that speaks OpenAI's chat protocol. `api_key_env` names the environment variable that holds the key
    (None: the server wants none); prices are dollars per million tokens, None where they are unknown."""

    base_url: str
    model: str
    api_key_env: str | None = None
    timeout_seconds: float = 120.0
    max_parallel: int = 8
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered to one prompt, or the reason why there is no answer; `model` is the one it says it used
    (a snapshot's name, often longer than what was asked for). `cached`: it was asked earlier and not again."""

    completion: Completion | None
    reason: str | None = None
    model: str | None = None
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model before its weights are loaded; None is unknown, never fine."""

    name: str
    revision: str | None
    family: str | None
    num_parameters: int | None
    context_tokens: int | None
    license: str | None


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One point of a training curve; losses are mean nats per labelled token."""

    step: int
    loss: float | None = None
    dev_loss: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes of the device's memory (the machine's, where there is no GPU): what there was, what training was expected
    to take, and the most it took; None is unknown. `measured`: a probe step confirmed the estimate. A micro-batch holds
    at most `micro_batch_tokens`."""

    available_bytes: int | None
    estimate_bytes: int
    peak_bytes: int | None
    measured: bool
    micro_batch_tokens: int
    activation_checkpointing: bool


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What training left behind. `train_tokens` counts real tokens processed, `labelled_tokens` those with a loss;
    `train_seconds` those of every attempt, up to its last checkpoint. `best_step` is the one whose weights these are;
    `resumed_from` the steps at which an interrupted training went on."""

    method: str
    model_dir: str
    num_parameters: int
    trainable_parameters: int
    dtype: str
    device: str
    num_steps: int
    best_step: int
    stopped_early: bool
    epochs: float
    train_tokens: int
    labelled_tokens: int
    train_seconds: float
    tokens_per_second: float
    final_loss: float
    dev_loss: float
    curve: tuple[CurvePoint, ...]
    moved_adapters: float
    num_processes: int
    strategy: str
    memory: MemoryUse
    resumed_from: tuple[int, ...]
    weights_sha256: str
    findings: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class HeldOutLoss:
    """Mean negative log-likelihood per answer token, in nats, one value a row and over all tokens."""

    rows: tuple[float, ...]
    mean: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Tokens of each row (N,) by the model's own tokenizer and template, how many of them carry a loss, and, by the
    row's number, why a row cannot be trained on."""

    total: np.ndarray
    labelled: np.ndarray
    problems: Mapping[int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A stretch of a rendered row that is wholly trained on, or wholly not."""

    text: str
    trained: bool


class Progress(Protocol):
    """One long piece of work that the person watches, as a context; `advance` raises Interrupted when asked to stop."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *_: object) -> None: ...
    def advance(self, amount: int = 1, **facts: float | str) -> None: ...


Saved = Literal["step", "answers", "files"]


class Watch(Protocol):
    """Where long work tells how far it is. `check` raises Interrupted when the run was asked to stop.

    While the context `interruptible` is open, a request raises Interrupted without waiting for a `check`: at once, or
    after a grace. It is for what may be cut short anywhere: what it leaves on disk must be whole, or known to be torn.
    `saved` tells of work that is on disk and that the next attempt need not do again: the training step reached, or a
    number of new answers, or of delivered files that were sent away.
    """

    def stage(self, name: str) -> None: ...
    def progress(self, label: str, total: int) -> Progress: ...
    def say(self, line: str) -> None: ...
    def log(self, values: Mapping[str, float], step: int) -> None: ...
    def send_curves_to(self, sink: Callable[[Mapping[str, float], int], None]) -> None: ...
    def saved(self, what: Saved, amount: int) -> None: ...
    def note_saved_with(self, note: Callable[[Saved, int], None]) -> None: ...
    def check(self) -> None: ...
    def interruptible(self, grace_seconds: float = 0.0) -> AbstractContextManager[None]: ...


class Session(Protocol):
    """One model in memory, that can be counted with, trained, asked and scored.

    `count_tokens` gives None where the tokenizer is not at hand. `shorten` cuts an example to a length in tokens
    (earliest turns first, then the end of the answer); None: nothing of the answer would be left. `complete` takes the
    tools on offer for each prompt, where there are any, and what to call the work; what was answered once is kept, and
    not answered again.

    `folder` is the base model as a server takes it: a hub id, or a path. `answer_anew` looks nothing up: it answers, by
    the prompts' numbers, those of the batches that `complete` begins with until there are `num_rows`. `merge` folds the
    trained adapter into the base weights; `reopen` gives a session whose tuned side comes from a folder's files alone.
    After either, nothing of this session's weights is in memory.
    """

    facts: ModelFacts
    folder: str

    def count_tokens(self, examples: Sequence[Example], watch: Watch) -> TokenCounts | None: ...
    def shorten(self, example: Example, max_length: int) -> Example | None: ...
    def mark(self, example: Example) -> list[Segment]: ...
    def expected_memory(self, hyper: Hyperparameters, examples: Sequence[Example]) -> MemoryUse | None: ...
    def train(self, job: TrainJob, watch: Watch) -> TrainedModel: ...
    def complete(
        self,
        side: Side,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        tools: Sequence[str | None] = (),
        label: str | None = None,
    ) -> list[Completion]: ...
    def answer_anew(
        self,
        side: Side,
        prompts: Sequence[Sequence[Message]],
        num_rows: int,
        sampling: Sampling,
        watch: Watch,
        tools: Sequence[str | None] = (),
    ) -> Mapping[int, Completion]: ...
    def held_out_loss(self, side: Side, examples: Sequence[Example], watch: Watch) -> HeldOutLoss: ...
    def merge(self, folder: Path, watch: Watch) -> None: ...
    def reopen(self, form: Form, folder: Path) -> Session: ...


class Chat(Protocol):
    """A model behind an endpoint.

    `complete` gives one reply for each prompt, in their order; with `schema` the server is asked for JSON that
    satisfies it. A reply that has come is kept and never asked for again. Raises RunnerError: 77 when the key is
    refused, 69 when the server cannot be reached or keeps failing after retries; what had come by then is kept.
    """

    endpoint: Endpoint

    def check(self) -> None: ...
    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        *,
        label: str,
        schema: Mapping[str, object] | None = None,
    ) -> list[Reply]: ...


class Embedder(Protocol):
    """A model that says how alike texts are: one number from 0 to 1 for each pair."""

    def similarities(self, first: Sequence[str], second: Sequence[str], watch: Watch) -> list[float]: ...


class Backend(Protocol):
    """A module of this package that trains and serves.

    Where several processes were started together, rank 0 carries the run out: once it has `gather`ed the others, they
    `follow` it, taking part in what needs them, until it has `dismiss`ed them with its exit code.

    `locate` says where a model's tokenizer and config lie here; unless it may `fetch`, None where they do not.
    """

    def check(self, model: str) -> list[Problem]: ...
    def open_session(
        self, model: str, method: str, cache: Path, watch: Watch, *, trust_remote_code: bool = False
    ) -> Session: ...
    def locate(self, model: str, cache: Path, watch: Watch, *, fetch: bool) -> Located | None: ...
    def environment(self) -> Mapping[str, Any]: ...
    def matmul_rate(self) -> float: ...
    def gather(self) -> None: ...
    def follow(self, is_stopped: Callable[[], bool]) -> int: ...
    def dismiss(self, exit_code: int) -> None: ...
