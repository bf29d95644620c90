"""Near-duplicates and copies planted among 5,000 rows: they never cross the split, and clean rows are left alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from runner.data.prepare import prepare_data
from tests.fakes import FakeSession, FakeWatch, make_test_plan, read_lines, write_rows

TOPICS = (
    "kettle",
    "lamp",
    "jumper",
    "tent",
    "rug",
    "bicycle",
    "printer",
    "camera",
    "sofa",
    "blender",
    "guitar",
    "desk",
)
WISHES = ("refund", "exchange", "repair", "discount", "invoice", "manual", "voucher", "callback", "delivery", "pickup")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OPENINGS = (
    "I bought a {0} from your shop last {1} and {2}",
    "Could somebody tell me why my {0} {2} since {1}",
    "My neighbour recommended your {0}, yet on {1} {2}",
    "The {0} that arrived on {1} {2}",
)
NEAR, EXACT, ROWS = 100, 50, 5000


def clause(draw: random.Random, words: list[str]) -> str:
    return " ".join(draw.choices(words, k=draw.randint(4, 6)))


def clean_question(draw: random.Random, words: list[str]) -> str:
    opening = draw.choice(OPENINGS).format(draw.choice(TOPICS), draw.choice(DAYS), clause(draw, words))
    middle = ", ".join(clause(draw, words) for _ in range(draw.randint(1, 4)))
    return f"{opening}, {middle}; please arrange a {draw.choice(WISHES)}."


def swapped(text: str, draw: random.Random, words: list[str]) -> str:
    parts = text.split(" ")
    i, j = draw.sample(range(len(parts)), 2)
    parts[i], parts[j] = parts[j], parts[i]
    parts[draw.randrange(len(parts))] = draw.choice(words)
    return " ".join(parts)


def recased(text: str, draw: random.Random, words: list[str]) -> str:
    return draw.choice((str.upper, str.lower, str.title))(text)


def repunctuated(text: str, draw: random.Random, words: list[str]) -> str:
    return text.replace(",", " -").replace(";", "!").replace(".", "...") + draw.choice(("?", " :)", "!!"))


def one_clause_changed(text: str, draw: random.Random, words: list[str]) -> str:
    parts = text.split(", ")
    parts[draw.randrange(1, len(parts))] = clause(draw, words)
    return ", ".join(parts)


EDITS = (swapped, recased, repunctuated, one_clause_changed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_planted_pairs_never_cross_the_split_and_clean_rows_are_not_flagged(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnoprstuvw", k=draw.randint(3, 9))) for _ in range(2000)]
    rows = [{"prompt": clean_question(draw, words), "completion": f"answer {i}"} for i in range(ROWS)]
    chosen = draw.sample(range(ROWS), NEAR + EXACT)
    edits = [EDITS[i % len(EDITS)] for i in range(NEAR)] + [lambda text, *_: text] * EXACT
    twins = [
        {"prompt": edit(rows[i]["prompt"], draw, words), "completion": rows[i]["completion"]}
        for i, edit in zip(chosen, edits, strict=True)
    ]
    numbered = list(enumerate([*rows, *twins]))
    draw.shuffle(numbered)
    place = {number: row for row, (number, _) in enumerate(numbered, 1)}

    path = write_rows(tmp_path / "r.jsonl", [row for _, row in numbered])
    plan = make_test_plan("hyperparameters.max_length=2048", train=[path])
    plan = replace(plan, data=replace(plan.data, train=(replace(plan.data.train[0], system=None),)))
    dataset = prepare_data(plan, FakeSession(), tmp_path / "out", tmp_path / "cache", FakeWatch())

    part = {entry["row"]: entry["part"] for entry in read_lines(tmp_path / "out" / "ledger.jsonl")}
    pairs = [(place[i], place[ROWS + n]) for n, i in enumerate(chosen)]
    crossing = [pair for pair in pairs if len({part[row] for row in pair} - {None}) > 1]
    assert len(crossing) <= 0.01 * len(pairs)

    planted = {f"r.jsonl:{row}" for pair in pairs for row in pair}
    found = {row["code"]: row for row in read_lines(tmp_path / "out" / "findings.jsonl")}
    alike = set(found["data/near-duplicates"]["rows"])
    assert len(alike) == found["data/near-duplicates"]["count"]
    assert len(alike - planted) < 0.01 * ROWS
    assert found["data/duplicates"]["count"] >= EXACT
    told = alike | set(found["data/duplicates"]["rows"])  # case alone makes an exact repeat, told of its later row
    assert sum(bool(told & {f"r.jsonl:{row}" for row in pair}) for pair in pairs[:NEAR]) >= 0.98 * NEAR
    assert dataset.split.num_withheld < 0.02 * ROWS
