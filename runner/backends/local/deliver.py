"""The trained model as files: written once, proven by their hashes, and known again by a later attempt."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from runner.backends.base import CurvePoint, MemoryUse, TrainedModel
from runner.errors import Problem, Where
from runner.files import are_as_noted, facts_of, make_readable, sha256_of, write_whole

OUTCOME = "outcome.json"


def deliver_weights(model: Any, tokenizer: Any, folder: Path, weights: Mapping[str, torch.Tensor] | None) -> None:
    """Writes the adapter or the full weights, and the tokenizer with the template used in training, into an empty
    folder; `weights` are given where the model itself holds only a part of them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        model.save_pretrained(folder, state_dict=dict(weights) if weights else None)
    except SafetensorError as error:  # which is what a full disk is to it
        raise OSError(f"the model could not be written: {error}") from error
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's form with nothing filled in; the card comes with the scores
    for path in folder.iterdir():
        make_readable(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def weights_hash(folder: Path) -> str:
    """The sha256 of a model's weights: of its safetensors files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(sha256_of(path).encode())
    return digest.hexdigest()


def write_outcome(folder: Path, name: str, trained: TrainedModel) -> None:
    """Notes last of all that the job `name` is trained and what its files are."""
    values = {"job": name, "files": facts_of(Path(trained.model_dir)), "trained": asdict(trained)}
    write_whole(folder / OUTCOME, json.dumps(values))


def read_outcome(folder: Path, name: str, model: Path) -> TrainedModel | None:
    """What an earlier attempt at the job trained; None where it did not end, or its files are not as they were."""
    try:
        values = json.loads((folder / OUTCOME).read_text())
        if values["job"] != name or not are_as_noted(model, values["files"]):
            return None
        return _trained({**values["trained"], "model_dir": str(model)})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _trained(values: Mapping[str, Any]) -> TrainedModel:
    findings = (Problem(**{**finding, "where": Where(**finding["where"])}) for finding in values["findings"])
    made = {
        "curve": tuple(CurvePoint(**point) for point in values["curve"]),
        "memory": MemoryUse(**values["memory"]),
        "resumed_from": tuple(values["resumed_from"]),
        "findings": tuple(findings),
    }
    return TrainedModel(**{**values, **made})
