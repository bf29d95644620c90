"""Where a run's directory is to be, as a person wrote it: a folder, or the URL of its mirror."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import Exit, Problem, RunnerError, Where
from runner.stores import is_store

VARIABLE = "RUNNER_OUT"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a run's directory is to be: the folder itself (None: the usual place), and the URL of its mirror in an
    object store, if it has one."""

    folder: Path | None = None
    url: str | None = None


def find_destination(out: str | None, environment: Mapping[str, str]) -> Destination:
    """The destination that the option or RUNNER_OUT names; beside a URL as the option, RUNNER_OUT names the folder.

    Raises RunnerError (73) for a URL of no object store, which would become a folder 'ftp:'.
    """
    outer = environment.get(VARIABLE)
    named = out or outer
    if not named:
        return Destination()
    if not is_store(named):
        return Destination(folder=_folder(named))
    beside = outer if out and outer and not is_store(outer) else None
    return Destination(folder=_folder(beside) if beside else None, url=named.rstrip("/"))


def _folder(text: str) -> Path:
    if text.startswith("file:///"):
        return Path(text.removeprefix("file://"))
    if _URL.match(text):
        raise RunnerError(
            Problem(
                code="run/url",
                what=f"'{text.partition(':')[0]}:' cannot be written to; a run directory is a folder of this machine, "
                "with a mirror in an object store where one is named.",
                where=Where(path="--out"),
                fix="Give a folder, or a mirror as s3://, gs:// or az://bucket/folder.",
            ),
            Exit.RUN_DIRECTORY,
        )
    return Path(text)
