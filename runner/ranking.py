"""The points of a sweep side by side, and which is best: by dev loss, never by what the test rows say.

Of many points the best on the test rows is partly the luckiest there; its score would say more than it holds for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from runner import __version__
from runner.errors import EXIT_CODES, Exit
from runner.files import sha256_of
from runner.manifest import Manifest
from runner.plan import without_secrets
from runner.records import Record
from runner.sweep import Point

SCHEMA_VERSION = 1
SEED = "seed="
CAUTION = (
    "The best point is chosen by its loss on the dev rows, never by the test rows: of many points the one with the "
    "highest test score is partly the luckiest there. Where you choose by test scores all the same, do not believe the "
    "winner's: measure it again on test rows that no point has seen."
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a point: its directory as it stands, and the exit code (None: it was not run)."""

    point: Point
    record: Record | None
    exit_code: Exit | None


@dataclass(frozen=True, kw_only=True)
class Best:
    """The point to use, and the mean dev loss of its values over the seeds; None, and why, where none can be named."""

    number: int | None
    dev_loss: float | None
    text: str


def choose(results: Sequence[Result]) -> Best:
    """The values with the lowest dev loss, as the mean over the seeds that all of them were run with; of the seeds the
    first. Losses are compared on the same dev rows and with the same model alone."""
    trained = [
        (r, r.record) for r in results if r.record and r.record.status == "done" and r.record.dev_loss is not None
    ]
    is_open = any(result.exit_code is None or EXIT_CODES[result.exit_code].retry for result in results)
    by_values: dict[tuple[str, ...], dict[str, tuple[Result, Record]]] = {}
    for result, record in trained:
        values, seed = _without_seed(result.point)
        by_values.setdefault(values, {})[seed] = (result, record)
    seeds = {seed for found in by_values.values() for seed in found}
    whole = {values: found for values, found in by_values.items() if set(found) == seeds}
    if not whole:
        text = f"No best point{' yet' if is_open else ''}: none was trained to its end with every seed."
        return Best(number=None, dev_loss=None, text=text)
    for seed in seeds:
        if len({_measured_on(found[seed][1]) for found in whole.values()}) > 1:
            what = "dev losses of different models or different dev rows cannot be compared"
            return Best(number=None, dev_loss=None, text=f"No best point is named: {what}.")
    losses = {values: fmean(record.dev_loss or 0.0 for _, record in found.values()) for values, found in whole.items()}
    values = min(losses, key=lambda key: losses[key])
    so_far = " so far" if is_open else ""
    first = min((result.point for result, _ in whole[values].values()), key=lambda point: point.number)
    over = f", the mean over {len(seeds)} seeds" if len(seeds) > 1 else ""
    left = len(by_values) - len(whole)
    missing = f" Values without every seed were left out: {left}." if left else ""
    text = f"Best{so_far} by dev loss: point {first.number}, {first.label} ({losses[values]:.4f}{over}).{missing}"
    return Best(number=first.number, dev_loss=losses[values], text=text)


def _without_seed(point: Point) -> tuple[tuple[str, ...], str]:
    """A point's values and its seed."""
    seeds = [value for value in point.overrides if value.startswith(SEED)]
    return tuple(value for value in point.overrides if not value.startswith(SEED)), "".join(seeds)


def _measured_on(record: Record) -> tuple[str | None, str]:
    """The model and the dev rows that a loss is of."""
    try:
        rows = sha256_of(record.path / "data" / "dev.jsonl")
    except OSError:
        rows = str(record.path)  # unknown, so like no other
    return record.model, rows


def exit_of(results: Sequence[Result], best: Best, stopped: Exit | None) -> Exit:
    """How the whole ended: what stopped it, a code that is worth a retry, the worst fault, else the best point's own
    (0 or 3); where none can be named, 3 as soon as one point said no."""
    codes = [result.exit_code for result in results if result.exit_code is not None]
    if stopped is not None:
        return stopped
    if again := [code for code in codes if EXIT_CODES[code].retry]:
        return max(again)
    if faults := [code for code in codes if code not in (Exit.DONE, Exit.SAID_NO)]:
        return max(faults)
    own = next((result.exit_code for result in results if result.point.number == best.number), None)
    return own if own is not None else max(codes, default=Exit.DONE)


def report_sweep(manifest: Manifest, results: Sequence[Result], stopped: Exit | None) -> dict[str, Any]:
    """The sweep as plain JSON data; `stopped` is the exit code that left points for the next time."""
    best = choose(results)
    exit_code = exit_of(results, best, stopped)
    rows = [_row(result) for result in results]
    faulty = any(row["exit_code"] not in (None, 0, 3) for row in rows)
    status = "interrupted" if stopped is not None else "failed" if faulty else "done"
    count = {state: sum(row["status"] == state for row in rows) for state in dict.fromkeys(r["status"] for r in rows)}
    tally = ", ".join(f"{number} {state}" for state, number in count.items())
    return {
        "schema_version": SCHEMA_VERSION,
        "runner_version": __version__,
        "name": manifest.values["name"],
        "manifest": str(manifest.path),
        "status": status,
        "exit_code": int(exit_code),
        "exit_meaning": EXIT_CODES[exit_code].meaning,
        "text": f"{len(rows)} points: {tally}. {best.text}",
        "best": asdict(best),
        "caution": CAUTION,
        "points": rows,
    }


def _row(result: Result) -> dict[str, Any]:
    point, record = result.point, result.record
    row = {
        "number": point.number,
        "label": point.label,
        "overrides": without_secrets(list(point.overrides)),
        "run_id": point.run_id,
        "directory": str(record.path) if record else None,
        "status": record.status if record else "not run" if result.exit_code is None else "failed",
        "exit_code": None if result.exit_code is None else int(result.exit_code),
        **{key: getattr(record, key, None) for key in ("verdict", "verdict_text", "dev_loss", "hours", "usd")},
    }
    return row | {"score": asdict(record.score) if record and record.score else None}


def table_rows(rows: Sequence[Mapping[str, Any]], best: int | None) -> list[tuple[str, ...]]:
    """The points as a table, the best marked, the head first."""
    metric = next((row["score"]["metric"] for row in rows if row["score"]), "score")
    head = ("point", "", "status", "verdict", "dev loss", f"{metric} base", "tuned", "difference", "95 % interval")
    return [(*head, "hours", "$"), *(_cells(row, row["number"] == best) for row in rows)]


def _cells(row: Mapping[str, Any], is_best: bool) -> tuple[str, ...]:
    score = row["score"] or {}
    low, high = score.get("ci_low"), score.get("ci_high")
    return (
        f"{row['number']}  {row['label']}",
        "best" if is_best else "",
        row["status"],
        row["verdict"] or "-",
        shown(row["dev_loss"], ".4f"),
        shown(score.get("base"), ".3f"),
        shown(score.get("tuned"), ".3f"),
        shown(score.get("difference"), "+.3f"),
        "-" if low is None or high is None else f"{low:+.3f} to {high:+.3f}",
        shown(row["hours"], ".2f"),
        shown(row["usd"], ".2f"),
    )


def shown(value: float | None, form: str) -> str:
    """A figure, or that there is none."""
    return "-" if value is None else format(value, form)
