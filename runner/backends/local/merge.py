"""The adapter folded into the base weights: one model that any server takes, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from runner.backends.base import Watch
from runner.backends.local.adapt import open_adapter
from runner.backends.local.deliver import deliver_weights
from runner.backends.local.device import compute_dtype
from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import are_as_noted, facts_of, write_whole

NOTE = "MERGED.json"
SPARE_BYTES = 64_000_000  # for the tokenizer, the card and the report


def fold(model: Any, adapter: Path, watch: Watch) -> Any:
    """The base model with the adapter of a folder folded in, in place, in the number format that it answered in.

    A 4-bit base is first put into the values that it computes with: merged into the original weights, or quantised
    once more, it would be another model than the one that was evaluated (peft#2321).
    """
    watch.say("Merging the adapter into the base weights ...")
    watch.check()
    base = model.unload()
    if getattr(base, "is_quantized", False):
        base = base.dequantize(dtype=compute_dtype())
    watch.check()
    merged = open_adapter(base, adapter).merge_and_unload(safe_merge=True)
    watch.check()
    return merged


def write_merged(merged: Any, tokenizer: Any, folder: Path, adapter_sha256: str, watch: Watch) -> None:
    """Writes the model and, last, a note of what its files are and which adapter they hold.

    Raises RunnerError (74) when the disk has no room for them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    _check_room(folder.parent, sum(p.numel() * p.element_size() for p in merged.parameters()) + SPARE_BYTES)
    try:
        deliver_weights(merged, tokenizer, folder, None)
    except OSError as error:  # a disk that filled up meanwhile
        raise _no_room(folder, f"it could not be written: {error}") from error
    watch.check()
    write_whole(folder / NOTE, json.dumps({"adapter": adapter_sha256, "files": facts_of(folder)}, indent=2))


def is_merged(folder: Path, adapter_sha256: str) -> bool:
    """Whether the folder holds this adapter merged, every file as it was written."""
    try:
        note = json.loads((folder / NOTE).read_text())
        return bool(note["adapter"] == adapter_sha256) and are_as_noted(folder, note["files"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _check_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise _no_room(folder, f"it takes {num_bytes / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free")


def _no_room(folder: Path, why: str) -> RunnerError:
    problem = Problem(
        code="delivery/no-room",
        what=f"There is no room for the merged model: {why}.",
        where=Where(key="delivery.merge"),
        fix="Free some space and run the same command again, or leave delivery.merge out.",
    )
    return RunnerError(problem, Exit.IO)
