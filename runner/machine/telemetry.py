"""No library reports on its use or its faults to its maker, unless the person wants it: one table, set before any of
them is loaded."""

from __future__ import annotations

from collections.abc import MutableMapping

SILENT = {  # variable, the value that turns it off; who reads it
    "DO_NOT_TRACK": "1",  # huggingface_hub, and others that keep to consoledonottrack.com
    "DISABLE_TELEMETRY": "1",  # huggingface_hub, for transformers and datasets too
    "HF_HUB_DISABLE_TELEMETRY": "1",  # the same
    "WANDB_ERROR_REPORTING": "false",  # wandb and its service: faults, to Sentry and by OpenTelemetry
    "OTEL_SDK_DISABLED": "true",  # OpenTelemetry's SDK, which comes with wandb
}


def silence(environment: MutableMapping[str, str]) -> None:
    """Sets what nobody set."""
    for name, value in SILENT.items():
        environment.setdefault(name, value)
