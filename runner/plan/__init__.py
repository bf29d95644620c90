"""What will be done: every value resolved, each with its origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.backends.base import CheckpointPlan, Endpoint, ModelFacts
from runner.manifest import Manifest
from runner.masking import masked
from runner.plan.parts import (
    BudgetPlan,
    CustomMetric,
    DataPlan,
    DeliveryPlan,
    EvalPlan,
    ForgettingPlan,
    GatePlan,
    JudgePlan,
    MixPlan,
    OtherModel,
    Plan,
    ResourcesPlan,
    RoiPlan,
    ServingPlan,
    SourcePlan,
    SplitPlan,
    Template,
    TrackingPlan,
)
from runner.plan.training import resolve_hyperparameters
from runner.schema import read_schema

__all__ = [
    "BudgetPlan",
    "CustomMetric",
    "DataPlan",
    "DeliveryPlan",
    "EvalPlan",
    "ForgettingPlan",
    "GatePlan",
    "JudgePlan",
    "MixPlan",
    "OtherModel",
    "Plan",
    "ResourcesPlan",
    "RoiPlan",
    "ServingPlan",
    "SourcePlan",
    "SplitPlan",
    "Template",
    "TrackingPlan",
    "make_plan",
    "model_name",
    "model_reference",
    "source_files",
    "source_name",
    "without_secrets",
]


def make_plan(manifest: Manifest, model_facts: ModelFacts) -> Plan:
    """Completes a valid manifest: schema defaults first, then values that follow from the approach and the model."""
    origins: dict[str, str] = {}
    values = _complete(manifest, manifest.values, read_schema("manifest"), (), origins)
    approach = values["approach"]
    folder = manifest.folder
    if "max_new_tokens" not in values["eval"]:
        origins["eval.max_new_tokens"] = "measured: a quarter more than the longest expected answer"
    return Plan(
        name=values["name"],
        description=values["description"],
        seed=values["seed"],
        approach=approach["kind"],
        accelerator=approach["accelerator"],
        processes=None if approach["processes"] == "auto" else approach["processes"],
        model=model_name(approach["model"], folder),
        model_facts=model_facts,
        data=_data(values["data"], folder),
        hyperparameters=resolve_hyperparameters(approach["kind"], model_facts, values["hyperparameters"], origins),
        checkpoint=CheckpointPlan(**values["checkpoint"]),
        delivery=DeliveryPlan(**values["delivery"]),
        gate=_gate(values["gate"]),
        eval=_eval(values["eval"], folder),
        roi=_roi(values["roi"]) if values["roi"] else None,
        tracking=TrackingPlan(**{**values["tracking"], "tags": tuple(values["tracking"]["tags"])}),
        budget=BudgetPlan(**values["budget"]),
        resources=ResourcesPlan(**values["resources"]) if values["resources"] else None,
        manifest_path=manifest.path,
        values=without_secrets(values),
        origins=origins,
    )


def _gate(gate: Mapping[str, Any]) -> GatePlan:
    models = tuple(
        OtherModel(
            name=entry.get("name") or entry["endpoint"]["model"],
            endpoint=Endpoint(**entry["endpoint"]),
            constrained=entry.get("constrained", False),
        )
        for entry in gate["models"]
    )
    return GatePlan(**{**gate, "arms": tuple(gate["arms"]), "models": models})


def _eval(values: Mapping[str, Any], folder: Path) -> EvalPlan:
    custom = {
        metric.name: metric
        for entry in values["metrics"]
        if isinstance(entry, Mapping)
        for metric in [_custom(entry, folder)]
    }
    names = (entry if isinstance(entry, str) else _custom(entry, folder).name for entry in values["metrics"])
    schema_file, embedding = values["json_schema"], values["embedding"]
    return EvalPlan(
        **{
            **values,
            "metrics": tuple(names),
            "custom": custom,
            "json_schema": folder / schema_file if schema_file else None,
            "embedding": model_name(embedding, folder) if embedding else None,
            "judge": _judge(values["judge"], folder) if values["judge"] else None,
            "forgetting": ForgettingPlan(**values["forgetting"]),
            "max_new_tokens": values.get("max_new_tokens"),
        }
    )


def _custom(entry: Mapping[str, Any], folder: Path) -> CustomMetric:
    return CustomMetric(
        name=entry.get("name") or entry["python"].rpartition(":")[2],
        python=entry["python"],
        folder=folder,
        higher_is_better=entry.get("higher_is_better", True),
        unit=entry.get("unit", "share"),
    )


def _judge(values: Mapping[str, Any], folder: Path) -> JudgePlan:
    human = values["human"]
    return JudgePlan(
        **{**values, "endpoint": Endpoint(**values["endpoint"]), "human": folder / human if human else None}
    )


def source_files(manifest: Manifest) -> list[Path]:
    """Every local file that the manifest's data, answers and scores come from."""
    data = manifest.values["data"]
    named = [entry for part in ("train", "dev", "test") for entry in _listed(data.get(part))] + data.get("mix", [])
    names = [source_name(entry if isinstance(entry, str) else entry["source"], manifest.folder) for entry in named]
    files = [Path(name) for name in names if Path(name).is_absolute()]
    evaluation = manifest.values.get("eval", {})
    own = [entry["python"] for entry in evaluation.get("metrics", []) if isinstance(entry, Mapping)]
    files += [manifest.folder / f"{name.partition(':')[0].replace('.', '/')}.py" for name in own]
    named_files = (evaluation.get("json_schema"), (evaluation.get("judge") or {}).get("human"))
    return [*files, *(manifest.folder / name for name in named_files if name)]


def model_reference(manifest: Manifest) -> str:
    """The model as the backend wants it: a relative folder starts from the manifest's own."""
    return model_name(manifest.values["approach"]["model"], manifest.folder)


def model_name(name: str, folder: Path) -> str:
    """A folder, which starts with a point, a slash or a tilde, as an absolute path; another model as written."""
    if not name.startswith((".", "/", "~")):
        return name
    return str((folder / Path(name).expanduser()).resolve())


def _data(data: Mapping[str, Any], folder: Path) -> DataPlan:
    def source(entry: str | Mapping[str, Any]) -> SourcePlan:
        own: Mapping[str, Any] = {"source": entry} if isinstance(entry, str) else entry
        template = own.get("template") or data["template"]
        format_name = own.get("format", "auto") if own.get("format", "auto") != "auto" else data["format"]
        return SourcePlan(
            source=source_name(own["source"], folder),
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
    """The same values, masked, with every URL stripped of user, password and query, which may hold keys."""
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return masked(_URL_SECRETS.sub(r"\1\2", value)) if isinstance(value, str) else value


_URL_SECRETS = re.compile(r"^((?:[\w.]+=)?[\w+:.-]+://)(?:[^/\s@]*@)?([^\s?#]*)(?:[?#]\S*)?$")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def source_name(name: str, folder: Path) -> str:
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


def _roi(values: Mapping[str, Any]) -> RoiPlan:
    sides = {side: ServingPlan(**values[side]) for side in ("current", "tuned")}
    return RoiPlan(**{**values, **sides})
