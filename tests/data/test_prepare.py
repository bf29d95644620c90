"""The data stage around a model that counts words: nothing is lost between the file and the parts."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data import division, store
from runner.data.ledger import OUTCOMES
from runner.data.prepare import Dataset, prepare_data
from runner.data.reading import fetch, read_rows
from runner.errors import Exit, RunnerError
from runner.manifest import load_manifest
from runner.plan import MixPlan, Plan, SourcePlan, make_plan
from tests.fakes import QUICKSTART, SMALL, FakeSession, FakeWatch, make_test_plan, read_lines, write_rows

MANIFESTS = QUICKSTART.parent


def pair(prompt: str, completion: str = "yes") -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def sentences(count: int, seed: int = 0, length: int = 14) -> list[str]:
    """Questions of random words, none like another."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(3, 8))) for _ in range(3000)]
    return [" ".join(draw.choices(words, k=length)) for _ in range(count)]


PAIRS = [pair(f"question number {i}") for i in range(200)]
CLEAN = [pair(text) for text in sentences(400)]


def plan_for(*paths: Path, **changes: Any) -> Plan:
    plan = make_test_plan(train=paths)
    shares = {name: changes.pop(name, usual) for name, usual in (("dev", 0.2), ("test", 0.3))}
    split = replace(plan.data.split, **shares, similarity=changes.pop("similarity", plan.data.split.similarity))
    for role in ("held_dev", "held_test"):
        if role in changes:
            changes[role.removeprefix("held_")] = (SourcePlan(source=str(changes.pop(role))),)
    own = {key: changes.pop(key) for key in ("system", "group_by", "class_by", "weight", "format") if key in changes}
    train = tuple(replace(source, **{"system": None, **own}) for source in plan.data.train)
    return replace(plan, data=replace(plan.data, train=train, split=split, **changes))


def prepare_plan(plan: Plan, folder: Path, session: FakeSession | None = None) -> Dataset:
    return prepare_data(plan, session or FakeSession(), folder / "out", folder / "cache", FakeWatch())


def prepare(
    folder: Path, rows: list[Any], max_length: int = 2048, session: FakeSession | None = None, **changes: Any
) -> tuple[Dataset, list[dict[str, Any]]]:
    plan = plan_for(write_rows(folder / "rows.jsonl", rows), **changes)
    plan = replace(plan, hyperparameters=replace(plan.hyperparameters, max_length=max_length))
    dataset = prepare_plan(plan, folder, session)
    return dataset, read_lines(folder / "out" / "ledger.jsonl")


def parts_of(dataset: Dataset) -> dict[str, str]:
    """The part of each row, by its id."""
    return {e.id: part for part in ("train", "dev", "test") for e in getattr(dataset, part)}


def codes(dataset: Dataset) -> set[str]:
    return {finding.code for finding in dataset.findings}


def rejection(folder: Path, rows: list[Any], **changes: Any) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        prepare(folder, rows, **changes)
    assert caught.value.exit_code == Exit.DATA_REJECTED
    return caught.value


# --- nothing is lost ------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["good", "bad", "empty", "long", "spaced"]), min_size=40, max_size=60))
def test_the_ledger_reconciles_with_the_rows_that_were_read(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    made = {"good": "more {}", "empty": " ", "long": "{}" + " word" * 30, "spaced": "odd\r\nline {}"}
    rows = [*PAIRS[:100], *([i] if kind == "bad" else pair(made[kind].format(i)) for i, kind in enumerate(kinds))]
    dataset, ledger = prepare(
        tmp_path_factory.mktemp("ledger"), rows, max_length=20, max_dropped_fraction=0.9, similarity=None
    )
    outcomes = Counter(entry["outcome"] for entry in ledger)
    totals = dataset.ledger
    assert [entry["row"] for entry in ledger] == list(range(1, len(rows) + 1))
    assert totals.num_rows == len(rows)
    assert {name: getattr(totals, name) for name in OUTCOMES} == {name: outcomes[name] for name in OUTCOMES}
    assert outcomes["dropped"] == sum(kind in ("bad", "empty", "long") for kind in kinds) == totals.num_faulty
    assert outcomes["repaired"] == kinds.count("spaced") == sum(totals.repairs.values())
    assert sum(totals.reasons.values()) == outcomes["dropped"]
    assert len(parts_of(dataset)) == totals.num_used
    assert all((entry["reason"] is None) == (entry["outcome"] != "dropped") for entry in ledger)
    assert all((entry["part"] is None) == (entry["outcome"] == "dropped") for entry in ledger)


def test_the_parts_on_disk_are_the_parts_in_memory(tmp_path: Path) -> None:
    dataset, ledger = prepare(tmp_path, PAIRS)
    for name, part in (("train", dataset.train), ("dev", dataset.dev), ("test", dataset.test)):
        written = read_lines(tmp_path / "out" / f"{name}.jsonl")
        names = [(row["id"], row["source"], row["group"]) for row in written]
        assert names == [(e.id, e.source, e.group) for e in part]
        assert [row["messages"][-1]["content"] for row in written] == [e.expected for e in part]
        told = [f"rows.jsonl:{entry['row']}" for entry in ledger if entry["part"] == name]
        assert told == [e.source for e in part]


def test_a_second_run_reads_counts_and_compares_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once, _ = prepare(tmp_path, PAIRS)
    monkeypatch.setattr(store, "read_rows", None)
    monkeypatch.setattr(division, "near_duplicates", None)
    again, _ = prepare(tmp_path, PAIRS)
    assert parts_of(again) == parts_of(once)
    assert again.ledger == once.ledger
    with pytest.raises(TypeError):
        prepare(tmp_path, PAIRS[1:])


@pytest.mark.parametrize(
    "change", [{"system": "Be brief."}, {"format": "prompt_completion"}, {"class_by": "completion"}]
)
def test_another_way_of_reading_is_not_taken_from_the_cache(tmp_path: Path, change: dict[str, Any]) -> None:
    prepare(tmp_path, PAIRS)
    before = len(list((tmp_path / "cache" / "rows").iterdir()))
    prepare(tmp_path, PAIRS, **change)
    assert len(list((tmp_path / "cache" / "rows").iterdir())) == before + 1


# --- lengths --------------------------------------------------------------------------------------------------------


def test_a_row_longer_than_the_model_may_read_is_dropped_with_that_reason(tmp_path: Path) -> None:
    dataset, ledger = prepare(tmp_path, [*PAIRS, pair("word " * 30)], max_length=30)
    assert dataset.ledger.reasons == {"longer than hyperparameters.max_length": 1}
    assert ledger[-1]["reason"] == "longer than hyperparameters.max_length (31 tokens, 30 allowed)"
    assert {"data/dropped", "data/long-rows"} <= codes(dataset)
    (told,) = [f.what for f in dataset.findings if f.code == "data/long-rows"]
    assert told == "0.5% of rows (1) exceed 30 tokens; they were dropped."


def test_long_rows_are_truncated_in_training_and_dropped_where_answers_are_compared(tmp_path: Path) -> None:
    rows = [*PAIRS, *(pair(f"long {text}", "word " * 60) for text in sentences(60))]
    dataset, ledger = prepare(tmp_path, rows, max_length=40, long_rows="truncate", max_dropped_fraction=0.5)
    outcomes = Counter((entry["part"], entry["outcome"]) for entry in ledger if entry["row"] > len(PAIRS))
    assert set(outcomes) == {("train", "truncated"), (None, "dropped")}
    assert dataset.ledger.truncated == outcomes["train", "truncated"] > 20
    cut = [e for e in dataset.train if not e.messages[-1].complete]
    assert len(cut) == dataset.ledger.truncated
    assert {sum(len(m.content.split()) for m in e.messages) for e in cut} == {40}
    assert dataset.tokens.longest == 40
    written = read_lines(tmp_path / "out" / "train.jsonl")
    assert sum(row["messages"][-1].get("complete") is False for row in written) == len(cut)


def test_a_run_may_refuse_every_long_row(tmp_path: Path) -> None:
    error = rejection(tmp_path, [*PAIRS, pair("word " * 30)], max_length=30, long_rows="refuse")
    (problem,) = error.problems
    assert problem.what.startswith("1 of 201 rows are longer than 30 tokens, and data.long_rows is 'refuse'")
    assert problem.where.key == "data.long_rows"
    assert prepare(tmp_path, PAIRS, max_length=30, long_rows="refuse")[0].ledger.dropped == 0


def test_without_a_tokenizer_lengths_are_an_estimate_that_drops_nothing(tmp_path: Path) -> None:
    rows = [*PAIRS, pair("word " * 300)]  # about 375 tokens
    dataset, _ = prepare(tmp_path, rows, max_length=300, session=FakeSession(has_tokenizer=False))
    assert dataset.ledger.dropped == 0
    assert dataset.tokens.band is not None
    assert dataset.tokens.num_over == 1
    told = {f.code: f.what for f in dataset.findings}
    assert "estimated from the characters" in told["data/estimated-tokens"]
    assert "by estimate, so none was dropped" in told["data/long-rows"]


# --- the split ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [PAIRS, CLEAN], ids=["numbered", "random"])
def test_the_order_of_rows_and_further_rows_move_no_row_to_another_part(tmp_path: Path, rows: list[Any]) -> None:
    once = parts_of(prepare(tmp_path / "a", rows)[0])
    shuffled = parts_of(prepare(tmp_path / "b", random.Random(3).sample(rows, len(rows)))[0])
    assert shuffled == once
    more = [pair(text) for text in sentences(100, seed=9)]
    appended = parts_of(prepare(tmp_path / "c", [*rows, *more])[0])
    assert {name: part for name, part in appended.items() if name in once} == once


def test_appended_near_duplicates_move_no_old_row_and_take_no_old_test_row_away(tmp_path: Path) -> None:
    once = parts_of(prepare(tmp_path / "a", CLEAN)[0])
    ends = ("changed", "altered", "other words")
    twins = [pair(" ".join(row["prompt"].split()[:-1]) + " " + end) for row in CLEAN[:60] for end in ends]
    dataset, _ = prepare(tmp_path / "b", [*CLEAN, *twins])
    after = parts_of(dataset)
    assert {name: part for name, part in after.items() if name in once}.items() <= once.items()
    assert {name for name, part in once.items() if part == "test"} <= after.keys()
    assert dataset.split.num_withheld > 20
    assert {"data/withheld", "data/near-duplicates"} <= codes(dataset)


def test_near_duplicates_are_never_in_two_parts_and_what_is_withheld_says_for_which_row(tmp_path: Path) -> None:
    twins = [pair(" ".join(row["prompt"].split()[:-1]) + " changed", "no") for row in CLEAN]
    dataset, ledger = prepare(tmp_path, [*CLEAN, *twins])
    part = {entry["row"]: entry["part"] for entry in ledger}
    assert all(part[n] == part[n + 400] or None in (part[n], part[n + 400]) for n in range(1, 401))
    withheld = [entry for entry in ledger if entry["outcome"] == "dropped"]
    assert len(withheld) == dataset.split.num_withheld == dataset.ledger.dropped > 100
    assert dataset.ledger.num_faulty == 0
    for entry in withheld:
        own, other = entry["row"], (entry["row"] - 1 + 400) % 800 + 1
        assert entry["reason"].startswith(f"like a row of the {part[other]} part (not used in ")
        assert entry["reason"].endswith(f": rows.jsonl:{other})"), (own, other)
    named = {tuple(sorted(row["rows"])) for row in read_lines(tmp_path / "out" / "leaks.jsonl")}
    assert len(named) == len(withheld)


def test_rows_of_one_group_stay_together_and_rows_without_one_are_faulty(tmp_path: Path) -> None:
    rows = [{**row, "customer": {"id": i % 40}} for i, row in enumerate(CLEAN)]
    dataset, ledger = prepare(tmp_path, [*rows, pair("nobody's")], group_by="customer.id", max_dropped_fraction=0.01)
    part = {entry["row"]: entry["part"] for entry in ledger}
    assert all(len({part[row] for row in range(1 + c, 401, 40)}) == 1 for c in range(40))
    assert {e.group for e in dataset.test} == {str(c) for c in range(40) if part[1 + c] == "test"}
    assert ledger[-1]["reason"] == "no 'customer.id' (data.group_by)"


def test_rows_of_like_questions_share_a_group_name_that_no_order_changes(tmp_path: Path) -> None:
    rows = [*CLEAN, *(pair(row["prompt"].upper(), "no") for row in CLEAN[:50])]
    groups = {e.source: e.group for e in prepare(tmp_path / "a", rows)[0].train}
    assert len(set(groups.values())) < len(groups)
    again = {e.id: e.group for e in prepare(tmp_path / "b", rows[::-1])[0].train}
    assert {e.id: e.group for e in prepare(tmp_path / "a", rows)[0].train} == again


def test_given_parts_are_taken_as_they_are_and_their_leaks_are_named_pair_by_pair(tmp_path: Path) -> None:
    held = write_rows(tmp_path / "held.jsonl", [pair(text) for text in sentences(60, seed=5)])
    twin = pair(" ".join(sentences(60, seed=5)[7].split()[:-1]) + " changed")
    rows = [*CLEAN, pair(sentences(60, seed=5)[3], "copied"), twin]
    dataset, ledger = prepare(tmp_path, rows, held_test=held)
    assert {e.source for e in dataset.test} == {f"held.jsonl:{n}" for n in range(1, 61)}
    assert len(dataset.dev) > 40
    named = [row["rows"] for row in read_lines(tmp_path / "out" / "leaks.jsonl")]
    assert sorted(named) == [["rows.jsonl:401", "held.jsonl:4"], ["rows.jsonl:402", "held.jsonl:8"]]
    (told,) = [f for f in dataset.findings if f.code == "data/leaks"]
    assert told.severity == "warning" and "rows.jsonl:401 ~ held.jsonl:4" in told.what
    assert [entry["part"] for entry in ledger if entry["row"] in (401, 402)] == [None, None]


def test_classes_are_shown_by_part_and_a_class_without_test_rows_is_named(tmp_path: Path) -> None:
    rows = [pair(text, ("spam", "ham")[i % 2]) for i, text in enumerate(sentences(300))]
    dataset, _ = prepare(tmp_path, [*rows, pair("a single row of it", "rare")])
    counts = dataset.split.classes
    assert {name: sum(parts.values()) for name, parts in counts.items()} == {"spam": 150, "ham": 150, "rare": 1}
    assert sum(parts["test"] for parts in counts.values() if "test" in parts) == len(dataset.test)
    assert "data/class-missing" in codes(dataset)


def test_a_class_is_the_same_with_white_space_around_it(tmp_path: Path) -> None:
    rows = [pair(text, (" spam ", "ham\n")[i % 2]) for i, text in enumerate(sentences(300))]
    dataset, _ = prepare(tmp_path, rows)
    assert {name: sum(parts.values()) for name, parts in dataset.split.classes.items()} == {"spam": 150, "ham": 150}
    assert "data/class-missing" not in codes(dataset)


# --- weights and mixing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "expected"), [(1, 1.0), (2, 2.0), (0.5, 0.5), (2.25, 2.25)])
def test_a_row_counts_in_training_as_often_as_its_sources_weight_says(
    tmp_path: Path, weight: float, expected: float
) -> None:
    plain, _ = prepare(tmp_path, CLEAN)
    dataset, ledger = prepare(tmp_path, CLEAN, weight=weight)
    assert len(dataset.train) / len(plain.train) == pytest.approx(expected, rel=0.2 if weight % 1 else 0)
    assert (len(dataset.dev), len(dataset.test)) == (len(plain.dev), len(plain.test))
    assert dataset.train_tokens == sum(sum(len(m.content.split()) for m in e.messages) for e in dataset.train)
    assert dataset.split.train == len(dataset.train)
    written = read_lines(tmp_path / "out" / "train.jsonl")
    assert sum(row.get("times", 1) for row in written) == len(dataset.train)
    reasons = {entry["reason"] for entry in ledger} - {None}
    assert reasons == ({"not drawn (by its source's weight, fraction or number of rows)"} if weight < 1 else set())


def test_rows_of_one_question_are_drawn_one_by_one(tmp_path: Path) -> None:
    held = [write_rows(tmp_path / f"{n}.jsonl", [pair(text) for text in sentences(30, seed=n)]) for n in (5, 6)]
    rows = [pair("write something short", text) for text in sentences(200)]
    dataset, _ = prepare(tmp_path, rows, weight=0.5, held_dev=held[0], held_test=held[1])
    assert 60 < len(dataset.train) < 140


def test_a_mix_that_is_too_small_is_told(tmp_path: Path) -> None:
    general = write_rows(tmp_path / "general.jsonl", [pair(text) for text in sentences(20, seed=7)])
    dataset, _ = prepare(tmp_path, CLEAN, mix=(MixPlan(source=SourcePlan(source=str(general)), rows=50),))
    (told,) = [f.what for f in dataset.findings if f.code == "data/mix-too-small"]
    assert "30 fewer than were asked for" in told


@pytest.mark.parametrize(("own_bad", "mix_bad", "stops"), [(0, 60, False), (60, 0, True)])
def test_faulty_general_rows_do_not_stop_the_run_and_sound_ones_do_not_excuse_it(
    tmp_path: Path, own_bad: int, mix_bad: int, stops: bool
) -> None:
    general = [*(pair(text) for text in sentences(2000 if own_bad else 100, seed=7)), *[pair(" ")] * mix_bad]
    mix = (MixPlan(source=SourcePlan(source=str(write_rows(tmp_path / "general.jsonl", general))), rows=10),)
    rows = [*CLEAN, *[pair(" ")] * own_bad]
    if stops:
        rejection(tmp_path, rows, mix=mix)
    else:
        assert prepare(tmp_path, rows, mix=mix)[0].ledger.faults == {"a message is empty": mix_bad}


@pytest.mark.parametrize(("asked", "expected"), [({"rows": 30}, 30), ({"fraction": 0.25}, None), ({"rows": 900}, 200)])
def test_general_rows_are_mixed_into_training_alone(
    tmp_path: Path, asked: dict[str, Any], expected: int | None
) -> None:
    general = write_rows(tmp_path / "general.jsonl", [pair(text) for text in sentences(200, seed=7)])
    plain, _ = prepare(tmp_path, CLEAN)
    mix = (MixPlan(source=SourcePlan(source=str(general)), **asked),)
    dataset, ledger = prepare(tmp_path, CLEAN, mix=mix)
    assert dataset.split.num_mixed == (expected or round(0.25 * len(plain.train)))
    assert sum(e.source.startswith("general") for e in dataset.train) == dataset.split.num_mixed
    assert (parts_of(plain).items()) <= parts_of(dataset).items()
    assert not any(e.source.startswith("general") for e in (*dataset.dev, *dataset.test))
    mixed = [entry for entry in ledger if entry["mix"]]
    assert len(mixed) == 200
    assert sum(entry["part"] == "train" for entry in mixed) == dataset.split.num_mixed
    assert dataset.ledger.num_rows == 600


def test_a_general_row_that_is_like_a_test_row_is_not_mixed_in(tmp_path: Path) -> None:
    plain, _ = prepare(tmp_path, CLEAN)
    copies = [pair(e.prompt[-1].content, "general") for e in plain.test]
    general = write_rows(tmp_path / "general.jsonl", [*copies, pair("something else entirely, at last")])
    dataset, _ = prepare(tmp_path, CLEAN, mix=(MixPlan(source=SourcePlan(source=str(general)), rows=100),))
    assert dataset.split.num_mixed == 1
    assert parts_of(plain).items() <= parts_of(dataset).items()


# --- what is shown and written --------------------------------------------------------------------------------------


def test_the_written_parts_can_be_read_as_data_again(tmp_path: Path) -> None:
    def chat(i: int) -> dict[str, Any]:
        first = {"role": "assistant", "content": "only context", "weight": 0}
        turns = [{"role": "user", "content": f"opening {i}"}, first]
        return {"messages": [*turns, {"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}]}

    once, _ = prepare(tmp_path / "a", [chat(i) for i in range(100)])
    again = read_rows_of(tmp_path / "a" / "out" / "train.jsonl", tmp_path)
    assert [e.messages for e in again] == [e.messages for e in once.train]
    assert not any(e.messages[1].trained for e in again)


def read_rows_of(path: Path, folder: Path) -> list[Any]:
    file = fetch(str(path), folder, print)
    return [row.example for row in read_rows(SourcePlan(source=str(path)), file).rows]


def test_no_secret_is_shown_or_written_into_the_ledger(tmp_path: Path) -> None:
    key = "sk-abcDEF1234567890abcdefNN"
    rows = [pair(f"{row['prompt']} {key}", key) for row in CLEAN]
    dataset, _ = prepare(tmp_path, rows)
    assert key not in str(dataset.shown) + str(dataset.findings)
    for name in ("ledger", "findings", "leaks"):
        assert key not in (tmp_path / "out" / f"{name}.jsonl").read_text(encoding="utf-8")


def test_train_and_test_from_one_file_are_told_as_what_they_are(tmp_path: Path) -> None:
    held = write_rows(tmp_path / "rows.jsonl", CLEAN)
    (problem,) = rejection(tmp_path, CLEAN, held_test=held).problems
    assert "400 are like a row of another part" in problem.what
    assert len(read_lines(tmp_path / "out" / "leaks.jsonl")) >= 400


def test_the_same_question_under_another_system_prompt_is_no_contradiction(tmp_path: Path) -> None:
    def chat(text: str, language: str) -> dict[str, Any]:
        system = {"role": "system", "content": f"Translate to {language}."}
        answer = {"role": "assistant", "content": f"{language}: {text}"}
        return {"messages": [system, {"role": "user", "content": text}, answer]}

    rows = [chat(text, language) for text in sentences(100) for language in ("French", "German")]
    assert {"data/contradictions", "data/duplicates"}.isdisjoint(codes(prepare(tmp_path, rows)[0]))


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    held = write_rows(tmp_path / "held" / "rows.jsonl", [pair(text) for text in sentences(60, seed=5)])
    dataset, ledger = prepare(tmp_path, [*CLEAN, pair(sentences(60, seed=5)[3], "copied")], held_test=held)
    assert {e.source.rpartition(":")[0] for e in dataset.test} == {"held/rows.jsonl"}
    assert "held/rows.jsonl:4" in ledger[400]["reason"]


# --- too many faults ------------------------------------------------------------------------------------------------


def test_like_reasons_are_counted_together_and_unlike_ones_apart(tmp_path: Path) -> None:
    def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    bad = [
        chat(("user", " "), ("assistant", "b")),
        chat(("user", "a"), ("assistant", "")),
        chat(("user", "a"), ("assistant", [7])),
        chat(("usr", "a"), ("assistant", "b")),
        chat(("user", "a"), ("assistent", "b")),
        {"a": 1},
        {"b": 1},
    ]
    good = [chat(("user", f"question {i}"), ("assistant", "yes")) for i in range(100)]
    dataset, _ = prepare(tmp_path, [*good, *bad], max_dropped_fraction=0.5)
    assert dataset.ledger.reasons == {
        "a message is empty": 2,
        "a message has a part that is not text": 1,
        "a role is not one of system, user, assistant, tool": 2,
        "no 'messages'": 2,
    }


@pytest.mark.parametrize(("num_bad", "allowed"), [(0, 0.0), (29, 0.29), (57, 0.57)])
def test_just_the_allowed_share_of_rows_may_be_dropped(tmp_path: Path, num_bad: int, allowed: float) -> None:
    rows: list[Any] = [*PAIRS[: 100 - num_bad], *([7] * num_bad)]
    assert prepare(tmp_path, rows, max_dropped_fraction=allowed)[0].ledger.dropped == num_bad
    rejection(tmp_path, [*rows[1:], 7], max_dropped_fraction=allowed)


def test_too_many_dropped_rows_are_told_with_their_places_and_all_are_in_the_ledger(tmp_path: Path) -> None:
    error = rejection(tmp_path, [*PAIRS[:20], *range(12)], max_dropped_fraction=0.02)
    *shown, total = error.problems
    path = tmp_path / "rows.jsonl"
    assert [str(problem.where) for problem in shown] == [f"{path}:{n}" for n in range(21, 31)]
    assert {problem.what for problem in shown} == {"The row is not a JSON object."}
    assert total.what == (
        "12 of 32 rows cannot be used, more than the allowed 2 %; the first 10 are shown above: "
        "the row is not a JSON object (12)."
    )
    ledger = read_lines(tmp_path / "out" / "ledger.jsonl")
    assert str(tmp_path / "out" / "ledger.jsonl") in total.fix
    assert [entry["outcome"] for entry in ledger] == ["kept"] * 20 + ["dropped"] * 12


def test_data_without_one_usable_row_is_rejected_however_many_may_be_dropped(tmp_path: Path) -> None:
    error = rejection(tmp_path, [pair(" ")] * 3, max_dropped_fraction=1)
    assert error.problems[-1].what == "3 of 3 rows cannot be used: a message is empty (3)."


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
    assert shares == {} or f"The {part} part" in problem.what
    assert "only 5 questions or groups" in problem.what or "only 1 questions or groups" in problem.what


@pytest.mark.parametrize(
    ("extra", "code", "what"),
    [
        ([PAIRS[3]], "data/duplicates", "in 1 of 201 rows (0.5 %) (rows.jsonl:201)."),
        ([pair("QUESTION  number 3")], "data/duplicates", "in 1 of 201 rows (0.5 %) (rows.jsonl:201)."),
        ([pair("question number 3", "no")], "data/contradictions", "in 2 of 201 rows (1.0 %)"),
        (PAIRS[:4], "data/duplicates", "in 4 of 204 rows (2.0 %) (rows.jsonl:201, :202, :203 ...)."),
    ],
)
def test_repeated_and_contradicting_questions_are_found(tmp_path: Path, extra: list[Any], code: str, what: str) -> None:
    assert {"data/duplicates", "data/contradictions"}.isdisjoint(codes(prepare(tmp_path, PAIRS)[0]))
    dataset, _ = prepare(tmp_path, [*PAIRS, *extra])
    (finding,) = [f for f in dataset.findings if f.code in ("data/duplicates", "data/contradictions")]
    assert finding.code == code and what in finding.what
    (listed,) = [row for row in read_lines(tmp_path / "out" / "findings.jsonl") if row["code"] == code]
    assert listed["count"] == len(listed["rows"])


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
    alone = [prepare_plan(plan_for(path), tmp_path) for path in (short, long)]
    both = prepare_plan(plan_for(short, long), tmp_path)
    assert both.train_tokens == sum(dataset.train_tokens for dataset in alone)
    copy = write_rows(tmp_path / "c" / "rows.jsonl", PAIRS)
    twice = prepare_plan(plan_for(short, copy), tmp_path)
    assert twice.tokens.total == 2 * alone[0].tokens.total
    assert [source.num_rows for source in twice.ledger.sources] == [200, 200]


@pytest.mark.parametrize("name", ["quickstart.yaml", "brand-voice.yaml"])
def test_the_shipped_data_is_clean(tmp_path: Path, name: str) -> None:
    plan = make_plan(load_manifest(MANIFESTS / name), SMALL)
    dataset = prepare_plan(plan, tmp_path)
    assert dataset.ledger.num_faulty == dataset.ledger.repaired == 0
    assert dataset.split.num_withheld == 0
    assert [f for f in dataset.findings if f.severity != "note"] == []
