"""What a backend can be asked to do: narrow protocols, and the jobs that cross them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from runner.conversation import Completion, Example, Message
from runner.errors import Problem

if TYPE_CHECKING:
    import numpy as np

Side = Literal["base", "tuned"]


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """How to train. Lengths are in tokens, `batch_size` in rows for one optimizer step."""

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


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """All that a trainer needs; it never sees the manifest."""

    method: str
    hyperparameters: Hyperparameters
    train: Sequence[Example]
    dev: Sequence[Example]
    work_dir: Path
    model_dir: Path
    seed: int


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
class TrainedModel:
    """What training left behind. `train_tokens` counts real tokens processed, `labelled_tokens` those with a loss."""

    method: str
    model_dir: str
    num_parameters: int
    trainable_parameters: int
    dtype: str
    device: str
    num_steps: int
    train_tokens: int
    labelled_tokens: int
    train_seconds: float
    tokens_per_second: float
    final_loss: float
    dev_loss: float | None
    curve: tuple[CurvePoint, ...]
    moved_adapters: float


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


class Watch(Protocol):
    """Where long work tells how far it is. `check` raises Interrupted when the run was asked to stop."""

    def stage(self, name: str) -> None: ...
    def progress(self, label: str, total: int) -> Progress: ...
    def say(self, line: str) -> None: ...
    def log(self, values: Mapping[str, float], step: int) -> None: ...
    def send_curves_to(self, sink: Callable[[Mapping[str, float], int], None]) -> None: ...
    def check(self) -> None: ...


class Session(Protocol):
    """One model in memory, that can be counted with, trained, asked and scored.

    `count_tokens` gives None where the tokenizer is not at hand. `shorten` cuts an example to a length in tokens
    (earliest turns first, then the end of the answer); None: nothing of the answer would be left. `complete` takes the
    tools on offer for each prompt, where there are any, and what to call the work; what was answered once is kept, and
    not answered again.
    """

    facts: ModelFacts

    def count_tokens(self, examples: Sequence[Example], watch: Watch) -> TokenCounts | None: ...
    def shorten(self, example: Example, max_length: int) -> Example | None: ...
    def mark(self, example: Example) -> list[Segment]: ...
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
    def held_out_loss(self, side: Side, examples: Sequence[Example], watch: Watch) -> HeldOutLoss: ...


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
    """A module of this package that trains and serves."""

    def check(self, model: str) -> list[Problem]: ...
    def open_session(self, model: str, method: str, cache: Path, watch: Watch) -> Session: ...
    def environment(self) -> Mapping[str, object]: ...
    def matmul_rate(self) -> float: ...
