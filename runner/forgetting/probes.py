"""The probes and the general texts: written for this project, and the same for every experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runner.conversation import Example, Message
from runner.forgetting.checks import CHECKS

FOLDER = Path(__file__).parent
KINDS = ("instruction", "format", "refusal", "fact")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A prompt whose answer can be checked: `check` names its `type` and what that needs."""

    id: str
    kind: str
    prompt: str
    check: Mapping[str, Any]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt alone. No system prompt: the experiment's own asks for the trained task's form, so that base too
        would fail; what may be forgotten is how the model answers in general use."""
        return (Message(role="user", content=self.prompt),)

    @property
    def group(self) -> str:
        """A harmful request and its harmless likeness belong together: a model that refuses both passes one of them."""
        return self.id.removesuffix("-harmful").removesuffix("-harmless")

    def passed(self, output: str) -> bool:
        """Whether that answer is right."""
        return CHECKS[self.check["type"]](output, self.check)


@cache
def load_probes() -> tuple[Probe, ...]:
    """Every probe, in the order of the file."""
    return tuple(Probe(**row) for row in _rows("probes.jsonl"))


@cache
def load_texts() -> tuple[Example, ...]:
    """Every passage of general text, as the answer to a request for it."""
    return tuple(
        Example(
            messages=(
                Message(role="user", content=row["prompt"]),
                Message(role="assistant", content=row["text"]),
            ),
            source=f"texts.jsonl:{number}",
        )
        for number, row in enumerate(_rows("texts.jsonl"), start=1)
    )


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]
