"""What `delivery.to` may say, known without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runner.stores import is_store, url_fault

HUB = "hf://"
LONGEST_NAME = 96  # of a repository on the hub, without its owner
_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)  # what the hub's client takes
_UNFIT = re.compile(r"[^\w.=,+-]", re.ASCII)  # in the name of a folder


def is_hub(to: str) -> bool:
    """Whether it is a repository of the hub, well formed or not."""
    return to.startswith(HUB)


def target_fault(to: str, longer_by: int = 0) -> tuple[str, str] | None:
    """What is wrong with a `delivery.to`, and its cure; None where nothing is. A repository's name has room for so many
    characters more."""
    if is_store(to):
        if said := url_fault(to):
            scheme = to.partition("://")[0]
            return f"{said}.", f"Write it as {scheme}://bucket/folder; keys come from the environment."
        return None
    if not is_hub(to):
        cure = "Write s3://bucket/folder (or gs://, az://), or hf://owner/name for a repository of the hub."
        return "Weights cannot be sent there.", cure
    owner, _, name = to.removeprefix(HUB).partition("/")
    cure = "Write it as hf://owner/name; the token comes from HF_TOKEN."
    if "@" in to:
        return "It has a user or key in it, or a revision, which is always main.", cure
    if not owner or not name or "/" in name:
        return "A model's repository on the hub has an owner and a name, and nothing else.", cure
    if len(name) + longer_by > LONGEST_NAME or len(owner) > LONGEST_NAME:
        room = LONGEST_NAME - longer_by
        return "The hub takes no name that long.", f"Write a name of at most {room} characters."
    if not (_NAME.fullmatch(owner) and _NAME.fullmatch(name)) or name.endswith(".git"):
        signs = (
            "letters, digits, '-', '_' and '.', none of '-' and '.' first, last or doubled, and no '.git' at the end"
        )
        return "The hub takes no such name.", f"Use {signs}."
    return None


def of_point(to: str, label: str, run_id: str) -> str:
    """Where a point of a sweep goes, as each would replace the one before: a folder, or a repository, of its own."""
    return f"{to}-{run_id}" if is_hub(to) else f"{to}/{_UNFIT.sub('-', label)}-{run_id}"


def destination(values: Mapping[str, Any]) -> str | None:
    """What the values of a manifest name as `delivery.to`."""
    to: str | None = (values.get("delivery") or {}).get("to")
    return to and to.rstrip("/")


def is_owed(report: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a run that is done has weights that are to go where the manifest's values say, and are not there yet."""
    delivery, to = report.get("delivery"), destination(values)
    if to is None or report.get("status") != "done" or not delivery or delivery["card"] is None:
        return False
    sent = delivery.get("to")
    return sent is None or sent["url"] != to or sent["pushed_at"] is None
