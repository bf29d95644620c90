"""Which packages are installed: the light core answers, checks and plans; training needs the rest."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from importlib import metadata

from runner.errors import Exit, Problem, RunnerError

TRAINING = (  # what a run imports, in the order in which people miss it
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "scipy",
    "pyarrow",
    "bm25s",
    "sacrebleu",
    "rapidfuzz",
    "regex",
    "fsspec",
)
INSTALL = 'Use the full image, or install it with: pip install "runner[train]"'


def missing_for_training() -> list[str]:
    """The packages that a run imports and that cannot be found here."""
    return [name for name in TRAINING if not _is_found(name)]


def require_training() -> None:
    """Raises RunnerError (66) where a run could not be carried out for want of packages."""
    if missing := missing_for_training():
        what = f"Training needs packages that are not installed: {', '.join(missing)}."
        raise RunnerError(Problem(code="approach/package-missing", what=what, fix=INSTALL), Exit.INPUT_MISSING)


def public_versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those of the packages that are installed, without what a build adds for a kind of machine: torch
    2.13.0+cpu is 2.13.0."""
    found = {name: version_of(name) for name in names}
    return {name: version.partition("+")[0] for name, version in sorted(found.items()) if version is not None}


def version_of(name: str) -> str | None:
    """The whole version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def installed() -> dict[str, str]:
    """Every package that is installed, with its whole version."""
    found = {str(one.metadata["Name"]).lower().replace("_", "-"): one.version for one in metadata.distributions()}
    return dict(sorted(found.items()))


def digest(versions: dict[str, str]) -> str:
    """One hash of packages and versions."""
    return hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()


def _is_found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec stands in for it
        return False
