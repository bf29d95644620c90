"""Sources -> local files: a path is taken as it is; a URL or a hub dataset is downloaded once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from runner.data.reading.download import Say, download
from runner.data.reading.hub import fetch_dataset
from runner.data.reading.local import DATA_FILE, LocalFile, measure

PAUSES = (1.0, 4.0)  # seconds before the second and the third try
URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)
HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*@[^\s:@]+(:\w[\w.-]*)?")


def fetch(source: str, cache: Path, say: Say, key: str = "data.train", pauses: Sequence[float] = PAUSES) -> LocalFile:
    """The file of a source, downloaded into `cache` where it is not local and not there yet.

    Raises RunnerError: 66 missing, 77 refused, 69 unreachable after a try for each pause and one more, 64 when a
    package is not installed, 74 when the cache cannot be written.
    """
    if is_url(source):
        return download(source, cache, say, key, pauses)
    path = fetch_dataset(source, cache, say, key) if is_hub(source) else Path(source)
    return measure(path, source, key)


def is_url(source: str) -> bool:
    """Whether the source has a scheme."""
    return URL.match(source) is not None


def is_hub(source: str) -> bool:
    """Whether the source is written as ``org/name@revision[:split]`` and is neither a file nor named like one."""
    written = HUB.fullmatch(source) is not None and not DATA_FILE.search(source)
    return written and not os.path.lexists(source)
