"""How it came out, in a word and a tone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.render.advice import recommended

Tone = Literal["good", "calm", "warn", "bad"]
EVALUATED: dict[str, tuple[Tone, str]] = {
    "improved": ("good", "Improved"),
    "equivalent": ("calm", "No difference that matters"),
    "worse": ("bad", "Worse"),
    "inconclusive": ("warn", "Inconclusive"),
}
ENDED: dict[str, tuple[Tone, str]] = {
    "done": ("calm", "Done"),
    "refused": ("warn", "Refused"),
    "failed": ("bad", "Failed"),
    "interrupted": ("calm", "Interrupted"),
}
REFUSED = {
    "try_retrieval": "Refused: try retrieval first",
    "try_prompting": "Refused: try prompting first",
    "need_data": "Refused: too little data",
    "inconclusive": "Not decided: the gate cannot tell",
}


@dataclass(frozen=True, kw_only=True)
class Headline:
    """What stands above all else."""

    tone: Tone
    text: str


def make_headline(report: Mapping[str, Any]) -> Headline:
    """The verdict of a run that was done, else how the run ended. That no tuning is needed is good news."""
    status, verdict, gate = report["status"], report["verdict"], report["gate"]
    tone, text = ENDED[status]
    if status == "done" and verdict in EVALUATED:
        tone, text = EVALUATED[verdict]
    elif status == "refused" and gate and gate["enough"]:
        arm = recommended(gate)
        tone, text = "good", f"No tuning needed: {arm['name']} reaches the target" if arm else "No tuning needed"
    elif status == "refused" and not report["evaluation"]:
        text = REFUSED.get(verdict, text)
    return Headline(tone=tone, text=text)
