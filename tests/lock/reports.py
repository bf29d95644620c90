"""What of a run's report may differ between two places, and the report without it."""

from __future__ import annotations

import re
from typing import Any

# Times, what is computed from them, and what the machine had to spare.
MEASURED = {
    *("started_at", "time", "timings", "cost", "seconds", "seconds_per_answer", "train_seconds", "tokens_per_second"),
    *("available_bytes", "estimate_bytes", "peak_bytes", "num_threads", "threads", "usd_per_1000"),
}
NAMES_THE_FOLDER = "model/adapter_config.json"  # of the base model, by its whole path
TIMED = re.compile(r"seconds|_at$")


def comparable(value: Any, folder: str) -> Any:
    """A report without what was measured in time or memory, with the folder that it lies in written as one word."""
    if isinstance(value, dict) and value.get("name") == NAMES_THE_FOLDER:
        return NAMES_THE_FOLDER
    if isinstance(value, dict):
        return {
            comparable(key, folder): comparable(item, folder)
            for key, item in value.items()
            if key not in MEASURED and not TIMED.search(key)
        }
    if isinstance(value, list):
        return [comparable(item, folder) for item in value]
    return value.replace(folder, "FOLDER") if isinstance(value, str) else value
