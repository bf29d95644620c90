"""The reading half of the data stage: sources -> local files -> records -> rows, each an example or a reason."""

from __future__ import annotations

from runner.data.reading.formats import FORMATS
from runner.data.reading.local import LocalFile
from runner.data.reading.rows import Row, Source, read_rows
from runner.data.reading.sources import fetch

__all__ = ["FORMATS", "LocalFile", "Row", "Source", "fetch", "read_rows"]
