"""Which packages are installed: the light core answers, checks and plans; training needs the rest."""

from __future__ import annotations

import importlib.util

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


def _is_found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec stands in for it
        return False
