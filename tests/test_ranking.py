"""The best of several points by dev loss, what may be compared, the exit code of the whole, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit
from runner.ranking import CAUTION, Result, choose, exit_of, report_sweep, table_rows
from runner.records import Record, Score
from runner.render import render_sweep
from runner.sweep import Point
from tests.fakes import quickstart
from tests.render.pages import ESCAPED, HOSTILE

MANIFEST = quickstart()
SAID_NO, DONE = Exit.SAID_NO, Exit.DONE


class Maker:
    """Makes results of points with run directories of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.count = 0

    def __call__(
        self, dev_loss: float | None, *, values: str = "", seed: int | None = None, dev: str = "rows", **changes: Any
    ) -> Result:
        number, self.count = self.count, self.count + 1
        path = self.folder / f"point-{number}"
        (path / "data").mkdir(parents=True)
        (path / "data" / "dev.jsonl").write_text(dev)
        overrides = (f"hyperparameters.rank={values or number}", *([f"seed={seed}"] if seed is not None else []))
        point = Point(number=number, label=f"p{number}", overrides=overrides, manifest=MANIFEST, run_id=f"id{number}")
        code = changes.pop("code", DONE)
        facts: dict[str, Any] = {"status": "done", "model": "m", "dev_loss": dev_loss, "exit_code": code, **changes}
        return Result(point=point, record=Record(path=path, **facts), exit_code=code)


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def score(tuned: float) -> Score:
    low, high = tuned - 0.1, tuned + 0.1
    return Score(
        metric="chrf", tuned=tuned, low=low, high=high, base=0.1, difference=tuned - 0.1, ci_low=low, ci_high=high
    )


def test_the_lowest_dev_loss_is_best_whatever_the_test_rows_say(make: Maker) -> None:
    results = [make(0.5, score=score(0.9)), make(0.3, score=score(0.2)), make(0.4, score=score(0.8))]
    assert choose(results).number == 1
    assert choose(results).text == "Best by dev loss: point 1, p1 (0.3000)."


def test_of_several_seeds_the_mean_counts_and_only_values_with_all_of_them(make: Maker) -> None:
    results = [
        make(0.2, values="8", seed=1, dev="a"),
        make(0.9, values="8", seed=2, dev="b"),
        make(0.5, values="16", seed=1, dev="a"),
        make(0.4, values="16", seed=2, dev="b"),
        make(0.1, values="32", seed=1, dev="a"),
        make(None, values="32", seed=2, dev="b", status="failed", code=Exit.BUG),
    ]
    best = choose(results)
    assert (best.number, best.dev_loss) == (2, pytest.approx(0.45))
    assert "the mean over 2 seeds" in best.text and "left out: 1" in best.text


@pytest.mark.parametrize("changes", [{"dev": "other rows"}, {"model": "another"}])
def test_losses_of_other_rows_or_models_are_not_compared(make: Maker, changes: dict[str, Any]) -> None:
    best = choose([make(0.5), make(0.3, **changes)])
    assert best.number is None and "cannot be compared" in best.text


def test_where_none_was_trained_there_is_no_best(make: Maker) -> None:
    assert choose([make(None, status="refused", code=SAID_NO)]).number is None


def test_a_best_of_some_points_is_the_best_so_far(make: Maker) -> None:
    left = Result(point=make(0.1).point, record=None, exit_code=None)
    assert choose([make(0.5), left]).text.startswith("Best so far by dev loss")


@pytest.mark.parametrize(
    ("codes", "stopped", "expected"),
    [
        ([DONE, DONE], None, DONE),
        ([SAID_NO, DONE], None, DONE),  # the best is the last one
        ([DONE, SAID_NO], None, SAID_NO),  # chosen on the dev rows, it is what counts
        ([Exit.BUG, DONE], None, Exit.BUG),
        ([Exit.BUG, Exit.MANIFEST, DONE], None, Exit.MANIFEST),
        ([Exit.MANIFEST, Exit.INTERRUPTED, DONE], None, Exit.INTERRUPTED),  # a retry can still finish one
        ([Exit.BUG, DONE], Exit.IO, Exit.IO),
        ([Exit.BUG, DONE], Exit.INTERRUPTED, Exit.INTERRUPTED),
    ],
)
def test_the_exit_code_of_the_whole(make: Maker, codes: list[Exit], stopped: Exit | None, expected: Exit) -> None:
    results = [make(1 / (i + 1), code=code) for i, code in enumerate(codes)]
    assert exit_of(results, choose(results), stopped) == expected


def test_without_a_best_one_that_said_no_is_no(make: Maker) -> None:
    results = [make(0.5, code=SAID_NO), make(0.3, model="another")]
    assert exit_of(results, choose(results), None) == SAID_NO


def test_the_table_marks_the_best_and_keeps_what_was_not_run(make: Maker) -> None:
    results = [make(0.5, score=score(0.2)), make(0.3, score=score(0.3))]
    results.append(Result(point=make(0.1).point, record=None, exit_code=None))
    report = report_sweep(MANIFEST, results, Exit.INTERRUPTED)
    rows = table_rows(report["points"], report["best"]["number"])
    assert [(row[0][0], row[1], row[2]) for row in rows[1:]] == [
        ("0", "", "done"),
        ("1", "best", "done"),
        ("2", "", "not run"),
    ]
    assert (report["status"], report["exit_code"]) == ("interrupted", 75)


def test_the_page_has_every_point_its_interval_and_the_caution(make: Maker) -> None:
    report = report_sweep(MANIFEST, [make(0.5, score=score(0.2)), make(0.3, score=score(0.3))], None)
    page = render_sweep(report)
    assert page.count("<circle") == 3 and "10.0 to 30.0" in page
    assert CAUTION.replace("'", "&#39;") in page and "1 p1 (best by dev loss)" in page


@pytest.mark.parametrize("tuned", [None, 0.2])
def test_the_page_is_drawn_whatever_is_missing_and_text_stays_text(make: Maker, tuned: float | None) -> None:
    found = score(tuned) if tuned is not None else None
    report = report_sweep(MANIFEST, [make(None, score=found, verdict_text=HOSTILE, code=Exit.BUG)], None)
    report |= {"name": HOSTILE, "manifest": HOSTILE, "text": HOSTILE}
    report["points"][0]["label"] = HOSTILE
    page = render_sweep(report)
    assert HOSTILE not in page and ESCAPED in page
