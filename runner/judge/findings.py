"""What is worth knowing of a judge beside its marks: whose kin it is, whether it stays the same, how steady it was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from runner.errors import Problem, Severity, Where
from runner.judge.ask import Judged
from runner.judge.effects import Effects
from runner.plan import JudgePlan

# Words by which a maker's models are known; letters on either side make it another word (dolphin is no phi).
FAMILIES = {
    "claude": r"claude",
    "cohere": r"command|aya|cohere",
    "deepseek": r"deepseek",
    "falcon": r"falcon",
    "google": r"gemma|gemini|codegemma|medgemma|palm",
    "granite": r"granite",
    "grok": r"grok",
    "kimi": r"kimi|moonshot",
    "llama": r"(?:meta)?(?:code|tiny|open)?llama|vicuna",
    "mistral": r"mistral|mixtral|ministral|codestral|magistral|devstral|pixtral",
    "nova": r"nova",
    "openai": r"(?:chat)?gpt(?!-?(?:neo|j))|o[1345]|davinci",
    "olmo": r"olmoe?",
    "phi": r"phi",
    "qwen": r"(?:code)?qwen|qwq|qvq",
    "smollm": r"smollm|smolvlm",
    "glm": r"(?:chat)?glm",
}
_WORDS = {family: re.compile(rf"(?<![a-z])(?:{words})(?![a-z])") for family, words in FAMILIES.items()}
_DATED = re.compile(r"20\d\d-?[01]\d(?:-?[0-3]\d)?(?!\d)|[-@]\d{3,4}(?![\dkbm])|[-@:]v\d+(?::\d+)?$|@[0-9a-f]{7,}$")
_VERSION = re.compile(r"\d")
_MOVING = re.compile(r"latest|(?<![a-z])(?:claude|gemini|(?:chat)?gpt(?!-?oss)|grok|o[1345])(?![a-z])")


def same_family(judge_model: str, base_model: str, family: str | None) -> str | None:
    """The family that both models belong to, by the words of their names; None: none is known.

    `family` is the architecture of the base model: it counts only where its name says nothing, for many makers build
    on another's architecture. Two models of one name are of one family.
    """
    judge, base = _name(judge_model), _name(base_model)
    if judge == base:
        return judge
    shared = _families(judge) & (_families(base) or _families((family or "").lower()))
    return min(shared, default=None)


def choice_findings(plan: JudgePlan, base_model: str, family: str | None) -> list[Problem]:
    """What can be said of the choice of judge before it is asked."""
    name = plan.endpoint.model
    findings = []
    if shared := same_family(name, base_model, family):
        what = f"The judge ({name}) is of the tuned model's own family ({shared}); models favour their own kind."
        fix = "Choose a judge of another family."
        findings.append(_finding("judge/own-family", what, "endpoint.model", fix, "warning"))
    if not is_pinned(name):
        what = f"The judge's model '{name}' names no snapshot: what it stands for can change from day to day."
        fix = "Write the name with its date or version."
        findings.append(_finding("judge/snapshot-not-pinned", what, "endpoint.model", fix, "note"))
    return findings


def is_pinned(model: str) -> bool:
    """Whether a name stands for one set of weights: it has a date or a revision, or a version where its maker does not
    move the name to newer weights."""
    name = model.lower()
    if "latest" not in name and _DATED.search(name):
        return True
    return bool(_VERSION.search(name)) and not _MOVING.search(name)


def snapshot_findings(rounds: Sequence[Judged]) -> list[Problem]:
    """A finding when more than one model answered in all rounds together."""
    names = sorted({name for judged in rounds for name in judged.snapshots})
    if len(names) < 2:
        return []
    what = f"The judge changed within the run: {', '.join(names)} answered."
    fix = "Write the name of one snapshot, and judge again."
    return [_finding("judge/snapshot-changed", what, "endpoint.model", fix, "warning")]


def comparison_findings(plan: JudgePlan, judged: Judged, found: Effects) -> list[Problem]:
    """What a comparison shows of the judge that made it. An error: too few of its rows have marks to read it."""
    return [*_unscored(plan, judged), *_flips(plan, judged), *_effects(found)]


def _unscored(plan: JudgePlan, judged: Judged) -> Iterator[Problem]:
    if not judged.unscored_share:
        return
    many = judged.unscored_share > plan.max_unscored
    why = ", ".join(f"{reason} ({num})" for reason, num in [*judged.unscored_reasons.items()][:3])
    share = f"{judged.outcomes['unscored']} of {len(judged.judgements)} rows ({100 * judged.unscored_share:.1f} %)"
    what = f"The judge gave no usable marks in {share}: {why}."
    if many:
        what += f" At most {100 * plan.max_unscored:g} % are allowed, so its figures are not to be read."
    fix = "Choose a judge that can answer in JSON, or raise its cap."
    yield _finding("judge/unscored", what, "max_unscored", fix, "error" if many else "note")


def _flips(plan: JudgePlan, judged: Judged) -> Iterator[Problem]:
    if judged.flip_rate is not None and judged.flip_rate > plan.max_flips:
        num = judged.outcomes["inconsistent"]
        what = (
            f"The judge's preference turned with the order of the answers in {100 * judged.flip_rate:.1f} % of the "
            f"rows ({num}); at most {100 * plan.max_flips:g} % are allowed."
        )
        fix = "Choose a stronger judge, or make the rubric more definite."
        yield _finding("judge/flips", what, "max_flips", fix, "warning")


def _effects(found: Effects) -> Iterator[Problem]:
    for code, effect in (("judge/length-effect", found.length), ("judge/style-effect", found.style)):
        if effect.confounded:
            what = f"{effect.text} Quality and this cannot be told apart here."
            fix = "Look at some pairs; say in the rubric what length and formatting should be."
            yield _finding(code, what, "rubric", fix, "warning")
        if not effect.clear or effect.win_rate is None or effect.adjusted_win_rate is None:
            continue
        turns = (effect.win_rate - 0.5) * (effect.adjusted_win_rate - 0.5) < 0
        severity: Severity = "warning" if turns else "note"
        fix = "Say in the rubric what length and formatting should be, and read both figures."
        yield _finding(code, effect.text, "rubric", fix, severity)


def _name(model: str) -> str:
    """The last part of a path or hub name, in lower case."""
    return model.rstrip("/").rpartition("/")[2].lower()


def _families(name: str) -> set[str]:
    return {family for family, pattern in _WORDS.items() if pattern.search(name)}


def _finding(code: str, what: str, key: str, fix: str, severity: Severity) -> Problem:
    return Problem(code=code, what=what, where=Where(key=f"eval.judge.{key}"), fix=fix, severity=severity)
