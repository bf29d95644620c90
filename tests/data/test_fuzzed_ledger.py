"""Harmed files through the whole stage: whatever happens, the ledger accounts for every row that could be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from runner.data.ledger import OUTCOMES
from runner.data.prepare import prepare_data
from runner.errors import Exit, RunnerError
from runner.plan import SourcePlan
from tests.data.reading.test_fuzz import make_case
from tests.fakes import FakeSession, FakeWatch, make_test_plan, read_lines, write_rows


def stage(folder: Path, seed: int) -> str:
    """Runs the stage on a harmed file beside a sound one; says how it ended, after checking the ledger."""
    name, raw, how = make_case(seed)
    harmed = folder / name
    harmed.write_bytes(raw)
    sound = [{"prompt": f"sound question {i}", "completion": "yes", "meta": {"kind": f"k{i}"}} for i in range(60)]
    good = SourcePlan(source=str(write_rows(folder / "sound.jsonl", sound)), group_by=how["group_by"])
    plan = make_test_plan("data.split.dev=0.2", "data.split.test=0.2")
    sources = (good, SourcePlan(source=str(harmed), **how))
    plan = replace(plan, data=replace(plan.data, train=sources, max_dropped_fraction=seed % 2))
    out = folder / f"out-{seed}"
    dataset = error = None
    try:
        dataset = prepare_data(plan, FakeSession(), out, folder / "cache", FakeWatch())
    except RunnerError as raised:
        error = raised
        assert error.exit_code in (Exit.DATA_REJECTED, Exit.INPUT_MISSING)
    ledger = out / "ledger.jsonl"
    assert ledger.is_file() or error is not None
    if not ledger.is_file():
        return "no rows"
    lines = read_lines(ledger)
    assert all(line["file"] and line["row"] >= 1 for line in lines)
    assert all(line["outcome"] in OUTCOMES and (line["outcome"] == "dropped") == bool(line["reason"]) for line in lines)
    if dataset is None:
        return "rejected"
    outcomes = Counter(line["outcome"] for line in lines)
    assert {name: getattr(dataset.ledger, name) for name in OUTCOMES} == {name: outcomes[name] for name in OUTCOMES}
    assert sum(outcomes.values()) == dataset.ledger.num_rows == len(lines)
    parts = Counter(line["part"] for line in lines)
    assert all(len(getattr(dataset, part)) == parts[part] for part in ("train", "dev", "test"))
    return "done"


@pytest.mark.slow
def test_the_ledger_accounts_for_every_row_of_harmed_files(tmp_path: Path) -> None:
    ends = Counter(stage(tmp_path, seed) for seed in range(20_000, 20_300))
    assert min(ends[end] for end in ("no rows", "rejected", "done")) > 20
