"""Vendors by name. `load` is the one dynamic import of the project."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from runner.errors import Exit, Problem, RunnerError

if TYPE_CHECKING:
    from runner.backends.base import Backend


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """Where a training approach is carried out; `module` is None while it is not built."""

    module: str | None
    extra: str


APPROACHES: dict[str, Vendor] = {
    "openai": Vendor(module=None, extra="openai"),
    "anthropic": Vendor(module=None, extra="bedrock"),
    "lora": Vendor(module="runner.backends.local", extra="train"),
    "qlora": Vendor(module="runner.backends.local", extra="train"),
    "full": Vendor(module="runner.backends.local", extra="train"),
}


def load(approach: str) -> Backend:
    """The backend of an approach; raises RunnerError when a package it needs is not installed."""
    vendor = APPROACHES[approach]
    if vendor.module is None:
        raise RunnerError(
            Problem(
                code="approach/not-built",
                what=f"The approach '{approach}' is not built yet.",
                fix="Use lora, qlora or full.",
            ),
            Exit.MANIFEST,
        )
    try:
        return cast("Backend", importlib.import_module(vendor.module))
    except ModuleNotFoundError as error:
        raise RunnerError(
            Problem(
                code="approach/package-missing",
                what=f"The approach '{approach}' needs the package '{error.name}', which is not installed.",
                fix=f'Install it with: pip install "runner[{vendor.extra}]"',
            ),
            Exit.INPUT_MISSING,
        ) from error
