"""What will be done, part by part: one dataclass a section of the manifest, every value resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner.backends.base import CheckpointPlan, Endpoint, Hyperparameters, ModelFacts


@dataclass(frozen=True, kw_only=True)
class Template:
    """How a row's columns become a conversation: texts in which ``{{column}}`` stands for the row's value."""

    prompt: str
    completion: str
    system: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """One place that rows come from: an absolute path, a URL, or a hub dataset ``org/name@revision[:split]``.

    A row counts `weight` times in training. `system` is put before rows that have none; `group_by` and `class_by`
    name the column (a dotted path) that holds a row's group and class.
    """

    source: str
    format: str = "auto"
    template: Template | None = None
    system: str | None = None
    weight: float = 1.0
    group_by: str | None = None
    class_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class MixPlan:
    """General rows mixed into the training part: `rows` of them, or `fraction` of the rows to train on."""

    source: SourcePlan
    fraction: float | None = None
    rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """Shares of the questions that are held out where no file is given for them, and how alike two questions must
    be to count as the same (None: only equal ones)."""

    dev: float
    test: float
    similarity: float | None


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """Where the rows come from, and how they are divided and limited."""

    train: tuple[SourcePlan, ...]
    dev: tuple[SourcePlan, ...]
    test: tuple[SourcePlan, ...]
    mix: tuple[MixPlan, ...]
    split: SplitPlan
    long_rows: Literal["drop", "truncate", "refuse"]
    max_dropped_fraction: float


@dataclass(frozen=True, kw_only=True)
class OtherModel:
    """An un-tuned model behind an endpoint that the gate tries too; `constrained` asks its server to decode only what
    satisfies `eval.json_schema`."""

    name: str
    endpoint: Endpoint
    constrained: bool


@dataclass(frozen=True, kw_only=True)
class GatePlan:
    """What tuning is for, how strictly the gate is kept, and which un-tuned arms it measures.

    `target` is the score of the primary metric that is good enough; None: as good as can be, but for the margin.
    `shots` examples go into each few-shot prompt. At most `max_rows` dev rows are answered, and arms are left out when
    they would cost more than `max_usd` together (None: no limit).
    """

    task: str
    policy: str
    reason: str
    target: float | None
    arms: tuple[str, ...]
    instruction: str | None
    shots: int
    models: tuple[OtherModel, ...]
    max_rows: int
    max_usd: float | None


@dataclass(frozen=True, kw_only=True)
class CustomMetric:
    """A person's own metric: ``module:function``, looked up in the manifest's folder first."""

    name: str
    python: str
    folder: Path
    higher_is_better: bool
    unit: str


@dataclass(frozen=True, kw_only=True)
class JudgePlan:
    """A model that compares two answers by a rubric, and what it must show before it is believed.

    Marks go from 1 to `scale`. `human` is a file of answers that people compared. `min_gold_wins` is
    the share of rows in which the expected answer must beat one of another row, `max_flips` the share in which the
    order of the two may change the preference, `max_unscored` the share without a usable judgement.
    """

    endpoint: Endpoint
    rubric: str
    scale: int
    human: Path | None
    min_gold_wins: float
    max_flips: float
    max_unscored: float
    max_usd: float | None


@dataclass(frozen=True, kw_only=True)
class ForgettingPlan:
    """Whether general abilities are measured before and after, and the drops that fail the verdict (None: none does):
    `max_drop` of the share of probes passed, `max_loss_rise` of the loss on general text, in nats per token."""

    measure: bool
    max_drop: float | None
    max_loss_rise: float | None


@dataclass(frozen=True, kw_only=True)
class EvalPlan:
    """How the sides are compared; the first of `metrics` is the primary one.

    `max_new_tokens` None means: measured from the expected answers. `pattern` is the regular expression of the metric
    `regex`, `embedding` the model of the metric `similarity`.
    """

    metrics: tuple[str, ...]
    custom: Mapping[str, CustomMetric]
    margin: float
    json_schema: Path | None
    pattern: str | None
    embedding: str | None
    judge: JudgePlan | None
    forgetting: ForgettingPlan
    max_new_tokens: int | None
    batch_size: int
    resamples: int


@dataclass(frozen=True, kw_only=True)
class ServingPlan:
    """One way to serve the requests; token counts of one request, None means: as measured."""

    prompt_tokens: float | None
    output_tokens: float | None
    usd_per_million_input: float
    usd_per_million_output: float
    usd_per_month: float


@dataclass(frozen=True, kw_only=True)
class RoiPlan:
    """What the return is computed from."""

    requests_per_month: float
    horizon_months: int
    one_time_usd: float
    current: ServingPlan
    tuned: ServingPlan


@dataclass(frozen=True, kw_only=True)
class TrackingPlan:
    """Where the run is tracked."""

    wandb: str
    project: str
    entity: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BudgetPlan:
    """The price of the machine (None: unknown), limits on what the run may be expected to cost, and how many attempts
    in a row may save nothing (None: any number)."""

    usd_per_hour: float | None
    max_usd: float | None
    max_hours: float | None
    max_idle_attempts: int | None


@dataclass(frozen=True, kw_only=True)
class DeliveryPlan:
    """What is delivered besides the trained weights: with `merge`, the adapter folded into the base model too. `to` is
    where it all goes (None: it stays in the run directory), a repository of the hub `private` or for everybody."""

    merge: bool
    to: str | None
    private: bool


@dataclass(frozen=True, kw_only=True)
class ResourcesPlan:
    """The machines that a cluster is asked for, as written; None is what the cluster gives, or follows from the rest
    of the manifest (`gpus`, `shm_gb`)."""

    image: str | None
    gpu: str | None
    gpus: int | None
    nodes: int
    cpus: int | None
    memory_gb: int | None
    disk_gb: int | None
    shm_gb: int | None
    spot: bool
    max_attempts: int
    max_hours: float | None
    queue: str | None
    volume: str | None
    keys_from: str | None
    role: str | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The experiment, resolved; `origins` says of every dotted key where its value comes from.

    `processes` None: one for each GPU, and one without. `accelerator` is auto, required or none.
    """

    name: str
    description: str
    seed: int
    approach: str
    accelerator: str
    processes: int | None
    model: str
    model_facts: ModelFacts
    data: DataPlan
    hyperparameters: Hyperparameters
    checkpoint: CheckpointPlan
    delivery: DeliveryPlan
    gate: GatePlan
    eval: EvalPlan
    roi: RoiPlan | None
    tracking: TrackingPlan
    budget: BudgetPlan
    resources: ResourcesPlan | None
    manifest_path: Path
    values: Mapping[str, Any]
    origins: Mapping[str, str]
