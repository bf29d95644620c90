"""The data stage around a model that counts words: nothing is lost between the file and the parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data import Dataset, prepare_data
from runner.errors import Exit, RunnerError
from runner.plan import Plan
from tests.fakes import FakeSession, make_test_plan, read_lines, write_rows


def pair(prompt: str, completion: str = "yes") -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


PAIRS = [pair(f"question number {i}") for i in range(200)]


def plan_for(*paths: Path, **changes: Any) -> Plan:
    plan = make_test_plan(train=paths)
    return replace(plan, data=replace(plan.data, **{"system": None, "dev": 0.2, "test": 0.3, **changes}))


def prepare(
    folder: Path, rows: list[Any], max_length: int = 2048, **changes: Any
) -> tuple[Dataset, list[dict[str, Any]]]:
    path = write_rows(folder / "rows.jsonl", rows)
    plan = plan_for(path, **changes)
    plan = replace(plan, hyperparameters=replace(plan.hyperparameters, max_length=max_length))
    dataset = prepare_data(plan, FakeSession(), folder / "out")
    return dataset, read_lines(folder / "out" / "ledger.jsonl")


def rejection(folder: Path, rows: list[Any], **changes: Any) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        prepare(folder, rows, **changes)
    assert caught.value.exit_code == Exit.DATA_REJECTED
    return caught.value


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["good", "bad", "empty", "long"]), min_size=40, max_size=60))
def test_the_ledger_reconciles_with_the_rows_that_were_read(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    made = {"good": "more {}", "empty": " ", "long": "{}" + " word" * 30}
    rows = [*PAIRS[:100], *([i] if kind == "bad" else pair(made[kind].format(i)) for i, kind in enumerate(kinds))]
    dataset, ledger = prepare(tmp_path_factory.mktemp("ledger"), rows, max_length=20, max_dropped_fraction=0.9)
    outcomes = Counter(entry["outcome"] for entry in ledger)
    kept = len(dataset.train) + len(dataset.dev) + len(dataset.test)
    assert [entry["row"] for entry in ledger] == list(range(1, len(rows) + 1))
    assert (dataset.num_rows, dataset.num_dropped) == (len(rows), outcomes["dropped"])
    assert kept == outcomes["kept"] == len(rows) - sum(kind != "good" for kind in kinds)
    assert sum(dataset.dropped_reasons.values()) == dataset.num_dropped
    assert all((entry["reason"] is None) == (entry["outcome"] == "kept") for entry in ledger)


def test_the_parts_on_disk_are_the_parts_in_memory(tmp_path: Path) -> None:
    dataset, _ = prepare(tmp_path, PAIRS)
    for name, part in (("train", dataset.train), ("dev", dataset.dev), ("test", dataset.test)):
        written = read_lines(tmp_path / "out" / f"{name}.jsonl")
        assert [(row["id"], row["source"]) for row in written] == [(e.id, e.source) for e in part]
        assert [row["messages"][-1]["content"] for row in written] == [e.expected for e in part]


def test_the_order_of_rows_and_further_rows_move_no_row_to_another_part(tmp_path: Path) -> None:
    once, _ = prepare(tmp_path / "a", PAIRS)
    again, _ = prepare(tmp_path / "b", [*reversed(PAIRS), *(pair(f"new {i}") for i in range(50))])
    ids = {e.id for part in (once.train, once.dev, once.test) for e in part}
    for part in ("train", "dev", "test"):
        assert {e.id for e in getattr(once, part)} == {e.id for e in getattr(again, part)} & ids


def test_a_row_longer_than_the_model_may_read_is_dropped_with_that_reason(tmp_path: Path) -> None:
    dataset, ledger = prepare(tmp_path, [*PAIRS, pair("word " * 30)], max_length=30)
    assert dataset.dropped_reasons == {"longer than hyperparameters.max_length": 1}
    assert ledger[-1]["reason"] == "longer than hyperparameters.max_length (31 tokens, 30 allowed)"
    assert [f.code for f in dataset.findings] == ["data/dropped"]


def test_like_reasons_are_counted_together_and_unlike_ones_apart(tmp_path: Path) -> None:
    def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    bad = [
        chat(("user", " "), ("assistant", "b")),
        chat(("user", "a"), ("assistant", "")),
        chat(("user", "a"), ("assistant", 7)),
        chat(("usr", "a"), ("assistant", "b")),
        chat(("user", "a"), ("assistent", "b")),
        {"a": 1},
        {"b": 1},
    ]
    good = [chat(("user", f"question {i}"), ("assistant", "yes")) for i in range(100)]
    dataset, _ = prepare(tmp_path, [*good, *bad], max_dropped_fraction=0.5)
    assert dataset.dropped_reasons == {
        "a message is empty": 2,
        "a message has no text as content": 1,
        "a role is not one of system, user, assistant, tool": 2,
        "no 'messages'": 2,
    }


@pytest.mark.parametrize(("num_bad", "allowed"), [(0, 0.0), (29, 0.29), (57, 0.57)])
def test_just_the_allowed_share_of_rows_may_be_dropped(tmp_path: Path, num_bad: int, allowed: float) -> None:
    rows: list[Any] = [*PAIRS[: 100 - num_bad], *([7] * num_bad)]
    assert prepare(tmp_path, rows, max_dropped_fraction=allowed)[0].num_dropped == num_bad
    rejection(tmp_path, [*rows[1:], 7], max_dropped_fraction=allowed)


def test_too_many_dropped_rows_are_told_with_their_places_and_all_are_in_the_ledger(tmp_path: Path) -> None:
    error = rejection(tmp_path, [*PAIRS[:20], *range(12)], max_dropped_fraction=0.02)
    *shown, total = error.problems
    path = tmp_path / "rows.jsonl"
    assert [str(problem.where) for problem in shown] == [f"{path}:{n}" for n in range(21, 31)]
    assert {problem.what for problem in shown} == {"The row is not a JSON object."}
    assert total.what == "12 of 32 rows cannot be used, more than the allowed 2 %; the first 10 are shown above."
    ledger = read_lines(tmp_path / "out" / "ledger.jsonl")
    assert str(tmp_path / "out" / "ledger.jsonl") in total.fix
    assert [entry["outcome"] for entry in ledger] == ["kept"] * 20 + ["dropped"] * 12


def test_data_without_one_usable_row_is_rejected_however_many_may_be_dropped(tmp_path: Path) -> None:
    error = rejection(tmp_path, [1, 2, 3], max_dropped_fraction=1)
    assert error.problems[-1].what == "3 of 3 rows cannot be used."


@pytest.mark.parametrize(
    ("rows", "shares", "part"),
    [
        (PAIRS[:5], {"dev": 0.0, "test": 0.5}, "dev"),
        (PAIRS[:5], {"dev": 0.5, "test": 0.0}, "test"),
        (PAIRS[:5], {"dev": 0.5, "test": 0.5}, "train"),
        ([pair("same", f"answer {i}") for i in range(50)], {}, "test"),
    ],
)
def test_a_split_with_an_empty_part_is_rejected(
    tmp_path: Path, rows: list[Any], shares: dict[str, float], part: str
) -> None:
    (problem,) = rejection(tmp_path, rows, **shares).problems
    assert problem.code == "data/empty-part" and problem.where.key == "data.split"
    assert shares == {} or f"the {part} part" in problem.what


@pytest.mark.parametrize(
    ("extra", "code", "what"),
    [
        ([], None, ""),
        ([PAIRS[3]], "data/duplicates", "1 rows repeat another row: rows.jsonl:4 = rows.jsonl:201."),
        ([pair("QUESTION  number 3")], "data/duplicates", "1 rows repeat another row: rows.jsonl:4 = rows.jsonl:201."),
        (
            [pair("question number 3", "no")],
            "data/contradictions",
            "1 questions have different answers: rows.jsonl:4 / rows.jsonl:201.",
        ),
        (
            PAIRS[:4],
            "data/duplicates",
            "4 rows repeat another row: rows.jsonl:1 = rows.jsonl:201, rows.jsonl:2 = rows.jsonl:202, "
            "rows.jsonl:3 = rows.jsonl:203 and others.",
        ),
    ],
)
def test_repeated_and_contradicting_questions_are_found(
    tmp_path: Path, extra: list[Any], code: str | None, what: str
) -> None:
    dataset, _ = prepare(tmp_path, [*PAIRS, *extra])
    assert [(f.code, f.what, f.severity) for f in dataset.findings] == ([(code, what, "warning")] if code else [])


def test_the_manifests_system_prompt_reaches_every_row_that_has_none(tmp_path: Path) -> None:
    own, answer = {"role": "system", "content": "Own."}, {"role": "assistant", "content": "yes"}
    chats = [{"messages": [own] * (i % 2) + [{"role": "user", "content": f"question {i}"}, answer]} for i in range(200)]
    prepare(tmp_path, chats, system="Be brief.")
    rows = [row for name in ("train", "dev", "test") for row in read_lines(tmp_path / "out" / f"{name}.jsonl")]
    systems = Counter(tuple(m["content"] for m in row["messages"] if m["role"] == "system") for row in rows)
    assert systems == {("Be brief.",): 100, ("Own.",): 100}


def test_tokens_are_those_of_the_kept_rows(tmp_path: Path) -> None:
    rows = [pair("w " * (i % 10 + 1) + str(i), "yes please") for i in range(100)]
    dataset, _ = prepare(tmp_path, [*rows, pair("w " * 99)], max_length=50)
    lengths = [i % 10 + 1 + 1 + 2 for i in range(100)]
    tokens = dataset.tokens
    assert (tokens.total, tokens.labelled, tokens.longest, tokens.longest_answer) == (sum(lengths), 200, 13, 2)
    assert (tokens.median, tokens.p90) == (8, 12)
    assert dataset.train_tokens == sum(lengths[int(e.source.split(":")[1]) - 1] for e in dataset.train)


def test_two_files_of_the_same_name_are_counted_as_two(tmp_path: Path) -> None:
    short = write_rows(tmp_path / "a" / "rows.jsonl", PAIRS)
    long = write_rows(tmp_path / "b" / "rows.jsonl", [pair(f"a much longer question number {i}") for i in range(200)])
    alone = [prepare_data(plan_for(path), FakeSession(), tmp_path / "out") for path in (short, long)]
    both = prepare_data(plan_for(short, long), FakeSession(), tmp_path / "out")
    assert both.train_tokens == sum(dataset.train_tokens for dataset in alone)
    copy = write_rows(tmp_path / "c" / "rows.jsonl", PAIRS)
    twice = prepare_data(plan_for(short, copy), FakeSession(), tmp_path / "out")
    assert twice.tokens.total == 2 * alone[0].tokens.total
    assert [source.num_rows for source in twice.sources] == [200, 200]


def test_the_quickstarts_own_data_is_clean(tmp_path: Path) -> None:
    dataset = prepare_data(make_test_plan(), FakeSession(), tmp_path)
    assert (dataset.num_dropped, dataset.findings) == (0, ())
