"""What a judge must show: problems where it did not, or could not be made to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runner.errors import Problem, Severity, Where
from runner.judge.figure import Figure
from runner.plan import JudgePlan

# Landis and Koch (1977): kappa up to 0.2 is slight agreement, up to 0.4 fair, above that moderate or better.
UNRELIABLE_KAPPA, WEAK_KAPPA = 0.2, 0.4


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of a judge. `gold_wins`: the expected answer beats that of another row. `identical_ties`: an
    answer ties with itself. `flips`: the preference turns with the order. `unscored`: no usable marks. `agreement` with
    people is None where no file is given; `kappa` also where it is undefined."""

    gold_wins: Figure
    identical_ties: Figure
    flips: Figure
    unscored: Figure
    agreement: Figure | None
    kappa: float | None


def unmet(plan: JudgePlan, figures: Figures, unscored_reasons: Mapping[str, int]) -> tuple[Problem, ...]:
    """An error for each requirement that was not met or not measured, and what else there is to say."""
    return (
        *_unscored(plan, figures.unscored, unscored_reasons),
        *_gold_wins(plan, figures.gold_wins),
        *_identical_ties(figures.identical_ties),
        *_flips(plan, figures.flips),
        *_untested(figures),
        *_people(figures),
    )


def _unscored(plan: JudgePlan, figure: Figure, reasons: Mapping[str, int]) -> Iterator[Problem]:
    if figure.value is not None and figure.value > plan.max_unscored:
        why = ", ".join(f"{reason} ({num})" for reason, num in [*reasons.items()][:3])
        what = f"it gave no usable marks in {figure}, with at most {100 * plan.max_unscored:g} % allowed: {why}"
        yield _not_reliable(what, "max_unscored", "Choose a judge that can answer in JSON, or cure the cause.")


def _gold_wins(plan: JudgePlan, figure: Figure) -> Iterator[Problem]:
    if figure.value is not None and figure.value < plan.min_gold_wins:
        what = f"the expected answer beat another row's in only {figure}, with {100 * plan.min_gold_wins:g} % required"
        fix = "Let the rubric say what a right answer is, choose a stronger judge, or look at the expected answers."
        yield _not_reliable(what, "min_gold_wins", fix)


def _identical_ties(figure: Figure) -> Iterator[Problem]:
    if figure.value is not None and figure.value < 1:
        what = f"an answer tied with itself in only {figure}, with all required"
        yield _not_reliable(what, "endpoint", "Choose a stronger judge.")


def _flips(plan: JudgePlan, figure: Figure) -> Iterator[Problem]:
    if figure.value is not None and figure.value > plan.max_flips:
        what = (
            f"its preference turned with the order of the answers in {figure}, with {100 * plan.max_flips:g} % allowed"
        )
        yield _not_reliable(what, "max_flips", "Choose a stronger judge, or make the rubric more definite.")


def _untested(figures: Figures) -> Iterator[Problem]:
    """A figure that could not be taken is not passed."""
    tests = {
        "the expected against another answer": figures.gold_wins,
        "an answer against itself": figures.identical_ties,
        "the order of the answers": figures.flips,
        "usable marks": figures.unscored,
    }
    missing = [f"{name} ({figure.unknown})" for name, figure in tests.items() if figure.value is None]
    if missing:
        fix = "Give more dev rows with different answers, or a judge that gives marks for them."
        yield _not_reliable(f"untested on {'; '.join(missing)}", "endpoint", fix, code="judge/untested")


def _people(figures: Figures) -> Iterator[Problem]:
    agreed, kappa = figures.agreement, figures.kappa
    if agreed is None:
        return
    fix = "Say in the rubric what those people went by, or choose another judge."
    found = f"the same preference in {agreed}"
    if kappa is None:
        reason = agreed.unknown or f"{found}, which chance alone would reach"
        what = f"How far the judge agrees with people is unknown: {reason}."
        yield _warning("judge/human-unknown", what, "Give more rows, with different preferences.")
    elif kappa < UNRELIABLE_KAPPA:
        yield _not_reliable(f"it hardly agrees with people: Cohen's kappa {kappa:.2f}, {found}", "human", fix)
    elif kappa < WEAK_KAPPA:
        yield _warning("judge/human-weak", f"The judge agrees weakly: Cohen's kappa {kappa:.2f}, {found}.", fix)


def _not_reliable(what: str, key: str, fix: str, *, code: str = "judge/not-reliable") -> Problem:
    return _problem(code, f"The judge is not reliable: {what}.", key, fix, "error")


def _warning(code: str, what: str, fix: str) -> Problem:
    return _problem(code, what, "human", fix, "warning")


def _problem(code: str, what: str, key: str, fix: str, severity: Severity) -> Problem:
    return Problem(code=code, what=what, where=Where(key=f"eval.judge.{key}"), fix=fix, severity=severity)
