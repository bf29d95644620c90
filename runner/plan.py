"""What will be done: every value resolved, each with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.backends.base import Hyperparameters, ModelFacts
from runner.manifest import Manifest
from runner.schema import read_schema


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """Which files, and how they are read and divided; shares are of the questions."""

    train: tuple[Path, ...]
    format: str
    system: str | None
    dev: float
    test: float
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
    data, evaluation, folder = values["data"], values["eval"], manifest.folder
    files = [data["train"]] if isinstance(data["train"], str) else data["train"]
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
        data=DataPlan(
            train=tuple(folder / name for name in files),
            format=data["format"],
            system=data["system"],
            dev=data["split"]["dev"],
            test=data["split"]["test"],
            max_dropped_fraction=data["max_dropped_fraction"],
        ),
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
        values=values,
        origins=origins,
    )


def model_reference(manifest: Manifest) -> str:
    """The model as the backend wants it: a relative folder starts from the manifest's own."""
    return _model_name(manifest.values["approach"]["model"], manifest.folder)


def _model_name(name: str, folder: Path) -> str:
    if not name.startswith((".", "/", "~")):
        return name
    return str((folder / Path(name).expanduser()).resolve())


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
