"""A model before its weights are loaded: name and revision, facts from its config, and why it could not be opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from runner.backends.base import ModelFacts
from runner.backends.pins import Located
from runner.errors import Exit, Problem, RunnerError, Where

COMMIT = re.compile(r"[0-9a-f]{40}")
NOWHERE = Where()
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
NO_NETWORK = {
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ConnectError",
    "ConnectionError",
    "TimeoutException",
}


def unavailable(what: str, error: BaseException, *, code: str, fix: str, where: Where = NOWHERE) -> RunnerError:
    """Why a model could not be opened: refused (77), no network (69), or not there (66), which `fix` cures."""
    chain: list[BaseException] = [error]
    while (earlier := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(earlier)
    kinds = {type(link).__name__ for link in chain}
    exit_code = Exit.INPUT_MISSING
    if any("custom code" in str(link) for link in chain):
        return _needs_code(what, where)
    if "GatedRepoError" in kinds:
        exit_code, fix = Exit.CREDENTIALS, "Ask for access on the model's page, and set HF_TOKEN."
    elif kinds & NO_NETWORK:
        exit_code, fix = Exit.UNAVAILABLE, "Check the network, and HF_HUB_OFFLINE; or name a local folder."
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    problem = Problem(code=code, what=f"{what} could not be opened: {reason}", where=where, fix=fix)
    return RunnerError(problem, exit_code)


def _needs_code(what: str, where: Where) -> RunnerError:
    problem = Problem(
        code="model/remote-code",
        what=f"{what} comes with Python code of its own, which is not run unless you say so.",
        where=where,
        fix="Choose a model that transformers knows by itself; or read the code, pin its revision, and add "
        "--trust-remote-code to the command line.",
    )
    return RunnerError(problem, Exit.MANIFEST)


def unsafe_files(folder: Path) -> list[Problem]:
    """What a model's folder holds in place of weights: pickles, which can run code when they are loaded, or an adapter,
    which names the model that it belongs to."""
    if (folder / "adapter_config.json").is_file():
        return [_adapter(str(folder))]
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if not pickles or any(folder.glob("*.safetensors")):
        return []
    what = f"The weights in '{folder}' are pickles ({pickles[0]}), which can run any code when they are loaded."
    fix = "Name a model whose weights are safetensors; convert these where it can do no harm."
    return [Problem(code="model/unsafe", what=what, where=Where(key="approach.model"), fix=fix)]


def refuse_adapter(name: str, revision: str | None) -> None:
    """Raises RunnerError (66) for an adapter: transformers would open the model that its files name in its place, from
    wherever that is."""
    if find_adapter_config_file(name, revision=revision) is not None:
        raise RunnerError(_adapter(name), Exit.INPUT_MISSING)


def _adapter(name: str) -> Problem:
    return Problem(
        code="model/unsafe",
        what=f"'{name}' holds an adapter, which names another model to be opened.",
        fix="Name the merged model, or the model that the adapter was made of.",
    )


def snapshot(name: str, revision: str | None, *, fetch: bool) -> Located | None:
    """Where the hub's client keeps a model's commit, known by its config. Raises RunnerError (66, 69, 77) when it is to
    be fetched and cannot be."""
    try:
        config = cached_file(name, CONFIG_NAME, revision=revision, local_files_only=not fetch)
    except (OSError, ValueError) as error:
        if not fetch:
            return None
        fix = "Check the name and its revision."
        raise unavailable(f"The model '{name}'", error, code="model/unavailable", fix=fix) from error
    folder = Path(str(config)).parent
    return Located(folder=folder, commit=folder.name if COMMIT.fullmatch(folder.name) else None)


def split_revision(model: str) -> tuple[str, str | None]:
    """`org/name@revision` -> name and revision; the path of a folder is left as it is."""
    if Path(model).is_absolute():
        return model, None
    name, _, revision = model.partition("@")
    return name, revision or None


def describe_folder(
    name: str, revision: str | None, config: Mapping[str, Any], license_name: str | None = None
) -> ModelFacts:
    """Facts from a model's config; the parameter count is computed from the shapes of a decoder with gated MLPs."""
    return ModelFacts(
        name=name,
        revision=revision,
        family=config.get("model_type"),
        num_parameters=_num_parameters(config),
        context_tokens=config.get("max_position_embeddings"),
        license=license_name,
    )


def _num_parameters(config: Mapping[str, Any]) -> int | None:
    try:
        hidden, layers, mlp = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        head_dim = config.get("head_dim") or hidden // heads
        vocabulary = config["vocab_size"] * hidden
    except (KeyError, TypeError):
        return None
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    per_layer = attention + 3 * hidden * mlp + 2 * hidden
    return int(layers * per_layer + vocabulary * (1 if config.get("tie_word_embeddings") else 2) + hidden)
