"""What will be done: every value resolved, each with its origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from runner.backends.base import Hyperparameters, ModelFacts
from runner.manifest import Manifest
from runner.schema import read_schema


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
class GatePlan:
    """What tuning is for and how strictly the gate is kept."""

    task: str
    policy: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EvalPlan:
    """How the sides are compared; `max_new_tokens` None means: measured from the expected answers."""

    metrics: tuple[str, ...]
    margin: float
    json_schema: Path | None
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
    """The price of the machine (None: unknown) and limits on what the run may be expected to cost."""

    usd_per_hour: float | None
    max_usd: float | None
    max_hours: float | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The experiment, resolved; `origins` says of every dotted key where its value comes from."""

    name: str
    description: str
    seed: int
    approach: str
    model: str
    model_facts: ModelFacts
    data: DataPlan
    hyperparameters: Hyperparameters
    gate: GatePlan
    eval: EvalPlan
    roi: RoiPlan | None
    tracking: TrackingPlan
    budget: BudgetPlan
    manifest_path: Path
    values: Mapping[str, Any]
    origins: Mapping[str, str]


def make_plan(manifest: Manifest, model_facts: ModelFacts) -> Plan:
    """Completes a valid manifest: schema defaults first, then values that follow from the approach and the model."""
    origins: dict[str, str] = {}
    values = _complete(manifest, manifest.values, read_schema("manifest"), (), origins)
    hyper = values["hyperparameters"]
    for key, (value, why) in _derived_defaults(values["approach"]["kind"], model_facts, hyper).items():
        if key not in hyper:
            hyper[key] = value
            origins[f"hyperparameters.{key}"] = f"derived: {why}"
    evaluation, folder = values["eval"], manifest.folder
    schema_file = evaluation["json_schema"]
    if "max_new_tokens" not in evaluation:
        origins["eval.max_new_tokens"] = "measured: a quarter more than the longest expected answer"
    modules = hyper["target_modules"]
    return Plan(
        name=values["name"],
        description=values["description"],
        seed=values["seed"],
        approach=values["approach"]["kind"],
        model=_model_name(values["approach"]["model"], folder),
        model_facts=model_facts,
        data=_data(values["data"], folder),
        hyperparameters=Hyperparameters(**{**hyper, "target_modules": tuple(modules) if modules else None}),
        gate=GatePlan(**values["gate"]),
        eval=EvalPlan(
            **{
                **evaluation,
                "metrics": tuple(evaluation["metrics"]),
                "json_schema": folder / schema_file if schema_file else None,
                "max_new_tokens": evaluation.get("max_new_tokens"),
            }
        ),
        roi=_roi(values["roi"]) if values["roi"] else None,
        tracking=TrackingPlan(**{**values["tracking"], "tags": tuple(values["tracking"]["tags"])}),
        budget=BudgetPlan(**values["budget"]),
        manifest_path=manifest.path,
        values=without_secrets(values),
        origins=origins,
    )


def source_files(manifest: Manifest) -> list[Path]:
    """Every local file that the manifest's data and answers come from."""
    data = manifest.values["data"]
    named = [entry for part in ("train", "dev", "test") for entry in _listed(data.get(part))] + data.get("mix", [])
    names = [_source_name(entry if isinstance(entry, str) else entry["source"], manifest.folder) for entry in named]
    files = [Path(name) for name in names if Path(name).is_absolute()]
    schema = manifest.values.get("eval", {}).get("json_schema")
    return [*files, *([manifest.folder / schema] if schema else [])]


def model_reference(manifest: Manifest) -> str:
    """The model as the backend wants it: a relative folder starts from the manifest's own."""
    return _model_name(manifest.values["approach"]["model"], manifest.folder)


def _model_name(name: str, folder: Path) -> str:
    if not name.startswith((".", "/", "~")):
        return name
    return str((folder / Path(name).expanduser()).resolve())


def _data(data: Mapping[str, Any], folder: Path) -> DataPlan:
    def source(entry: str | Mapping[str, Any]) -> SourcePlan:
        own: Mapping[str, Any] = {"source": entry} if isinstance(entry, str) else entry
        template = own.get("template") or data["template"]
        format_name = own.get("format", "auto") if own.get("format", "auto") != "auto" else data["format"]
        return SourcePlan(
            source=_source_name(own["source"], folder),
            format="columns" if template and format_name == "auto" else format_name,
            template=Template(**template) if template else None,
            system=data["system"] if (data["system"] or "").strip() else None,
            weight=own.get("weight", 1),
            group_by=data["group_by"],
            class_by=data["class_by"],
        )

    def mixed(entry: Mapping[str, Any]) -> MixPlan:
        general = replace(source(entry), system=None, group_by=None, class_by=None)
        return MixPlan(source=general, fraction=entry.get("fraction"), rows=entry.get("rows"))

    return DataPlan(
        train=tuple(map(source, _listed(data["train"]))),
        dev=tuple(map(source, _listed(data["dev"]))),
        test=tuple(map(source, _listed(data["test"]))),
        mix=tuple(map(mixed, data["mix"])),
        split=SplitPlan(**data["split"]),
        long_rows=data["long_rows"],
        max_dropped_fraction=data["max_dropped_fraction"],
    )


def without_secrets(value: Any) -> Any:
    """The same values with every URL stripped of user, password and query, which may hold keys."""
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return _URL_SECRETS.sub(r"\1\2", value) if isinstance(value, str) else value


_URL_SECRETS = re.compile(r"^((?:[\w.]+=)?[\w+:.-]+://)(?:[^/\s@]*@)?([^\s?#]*)(?:[?#]\S*)?$")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _source_name(name: str, folder: Path) -> str:
    """A URL and a hub dataset as written; a file as an absolute path."""
    if "://" in name or ("@" in name and not (folder / name).exists()):
        return name
    return str((folder / Path(name).expanduser()).absolute())


def _complete(
    manifest: Manifest,
    values: Mapping[str, Any],
    schema: Mapping[str, Any],
    path: tuple[str, ...],
    origins: dict[str, str],
) -> dict[str, Any]:
    """The written values with the schema's defaults; every leaf gets its origin."""
    result: dict[str, Any] = {}
    for key, entry in schema["properties"].items():
        here = (*path, key)
        if "$ref" in entry:
            entry = read_schema("manifest")["$defs"][entry["$ref"].rpartition("/")[2]]
        written = key in values
        if not written and "default" not in entry:
            continue
        value = values[key] if written else entry["default"]
        if isinstance(value, Mapping) and "properties" in entry:
            result[key] = _complete(manifest, value, entry, here, origins)
            continue
        result[key] = value
        origins[".".join(here)] = _origin(manifest, here) if written else "default"
    return result


def _origin(manifest: Manifest, path: tuple[str, ...]) -> str:
    place = manifest.document.places.get(path)
    return f"{manifest.path.name}:{place.line}" if place else "--set"


def _derived_defaults(kind: str, facts: ModelFacts, written: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Defaults that depend on the approach and the model's size, each with its reason."""
    small = facts.num_parameters is not None and facts.num_parameters < 1_000_000_000
    size = "a model under 1B parameters" if small else "a model of 1B parameters or more"
    if facts.num_parameters is None:
        size = "a model of unknown size"
    if kind == "full":
        rate = 1e-4 if small else 2e-5
        return {
            "epochs": (2, "full tuning overfits after few passes"),
            "batch_size": (16, "full tuning"),
            "learning_rate": (rate, f"full tuning, {size}"),
            "alpha": (2 * written["rank"], "twice the rank"),
        }
    return {
        "epochs": (2, "an adapter learns a narrow task in few passes"),
        "batch_size": (8, "adapters"),
        "learning_rate": (1e-3 if small else 2e-4, f"adapters, {size}"),
        "alpha": (2 * written["rank"], "twice the rank"),
    }


def _roi(values: Mapping[str, Any]) -> RoiPlan:
    sides = {side: ServingPlan(**values[side]) for side in ("current", "tuned")}
    return RoiPlan(**{**values, **sides})
