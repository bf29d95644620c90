"""The data stage: every row accounted for, tokens counted, and a split that nothing leaks across."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runner.backends.base import Segment, Session, Watch
from runner.conversation import Example, Message
from runner.data.division import ROLES, Division, Entry, column, divide_rows, first_parts, spread
from runner.data.leaks import Places, leak_sample, leaks, near_finding, split_findings
from runner.data.ledger import Fate, Ledger, check_dropped, ledger_findings, write_ledger
from runner.data.reading import fetch
from runner.data.review import Diversity, Finding, Review, repeats
from runner.data.review.private import HIDDEN, hide
from runner.data.split import PARTS, TRAIN
from runner.data.store import Examples, store_file
from runner.data.tokens import Lengths, TokenReport, length_findings, measure, refusal, report_tokens
from runner.errors import Exit, Problem, RunnerError, Where
from runner.plan import DataPlan, Plan

MAX_CLASSES = 1000
FEW_GROUPS = 10


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """How the rows were divided: rows of each part as trained on and scored, different own rows among those trained on
    (neither general nor repeated by weight), groups of like questions, pairs of near-duplicates, rows withheld because
    their like is in another part, general rows mixed into training, and each class's rows by part where there are
    classes."""

    train: int
    dev: int
    test: int
    num_own: int
    num_groups: int
    num_pairs: int
    num_withheld: int
    num_mixed: int
    classes: Mapping[str, Mapping[str, int]]

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, part):,} {part}" for part in PARTS)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One training row as the model sees it."""

    source: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What will be trained on and measured with, and what became of every row.

    A row of `train` stands there as often as its source's weight says; `train_tokens` counts it as often. `own` are
    the different training rows without general ones, from which prompts may take examples.
    """

    train: Sequence[Example]
    own: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
    ledger: Ledger
    tokens: TokenReport
    train_tokens: int
    split: SplitReport
    diversity: Diversity
    shown: tuple[Shown, ...]
    findings: tuple[Problem, ...]


def prepare_data(plan: Plan, session: Session, folder: Path, cache: Path, watch: Watch) -> Dataset:
    """Reads, checks, counts and splits; writes the ledger, the findings and the three parts into `folder`.

    Raises RunnerError: 66 when a source is missing, 65 when rows cannot be used beyond the allowed share, or when a
    part of the split would be empty.
    """
    entries = list(_read(plan.data, cache, watch))
    files = [entry.file for entry in entries]
    first = first_parts(entries, plan.data.split, plan.seed)
    lengths = measure(Examples(files), first == TRAIN, plan, session, watch)
    usable = np.ones(len(first), bool)
    usable[list(lengths.unfit)] = False
    division = divide_rows(entries, first, usable, plan.data.split, plan.seed, cache, watch)
    place = Places(entries)
    ledger = _account(entries, division, lengths, plan.data, folder / "ledger.jsonl", place)

    examples = Examples(files, groups=division.groups, changed=lengths.cut)
    parts = {name: examples.select(division.members(i)) for i, name in enumerate(PARTS)}
    _write_lines(folder / "leaks.jsonl", leaks(division, place))
    for name, members in parts.items():
        if not members:
            raise RunnerError(_empty_part(name, division, place), Exit.DATA_REJECTED)
    given = spread(entries, [entry.role in ("dev", "test") for entry in entries]) > 0
    mixed = spread(entries, [entry.role == "mix" for entry in entries]) > 0
    review, classes = _write_parts(folder, examples, division, usable & ~mixed, watch)
    seen = [
        *review.findings(),
        *_repeats(entries, usable & ~mixed, place),
        *near_finding(division, place),
    ]
    _write_lines(folder / "findings.jsonl", map(asdict, seen))
    own = np.flatnonzero((division.times > 0) & (division.parts == TRAIN) & ~mixed)
    split = SplitReport(
        **{name: len(members) for name, members in parts.items()},
        num_own=len(own),
        num_groups=len(np.unique(division.groups[division.times > 0])),
        num_pairs=len(division.pairs),
        num_withheld=int((division.partners >= 0).sum()),
        num_mixed=int(division.times[mixed].sum()),
        classes={name: classes.get(name, {}) for name in review.classes()},
    )
    return Dataset(
        train=parts["train"],
        own=examples.select(own),
        dev=parts["dev"],
        test=parts["test"],
        ledger=ledger,
        tokens=report_tokens(lengths, np.flatnonzero(division.times > 0)),
        train_tokens=int(lengths.total[division.members(TRAIN)].sum()),
        split=split,
        diversity=review.diversity(),
        shown=tuple(_shown(parts["train"], lengths, session)),
        findings=(
            *ledger_findings(ledger),
            *length_findings(lengths),
            *split_findings(given, division, split.classes, place),
            *map(_problem, seen),
        ),
    )


def _read(plan: DataPlan, cache: Path, watch: Watch) -> Iterator[Entry]:
    """Every file of the manifest, read and stored, with what it is given for."""
    named = [(role, source, None) for role in ROLES[:3] for source in getattr(plan, role)]
    for role, source, mix in [*named, *(("mix", mix.source, mix) for mix in plan.mix)]:
        file = fetch(source.source, cache, watch.say, key=f"data.{role}")
        yield Entry(role=role, source=source, mix=mix, file=store_file(source, file, cache, watch))


def _account(
    entries: Sequence[Entry], division: Division, lengths: Lengths, plan: DataPlan, path: Path, place: Places
) -> Ledger:
    """Writes the ledger; raises RunnerError (65) when too many rows cannot be used."""

    def fate(number: int) -> Fate:
        if number in lengths.unfit:
            return Fate(part=None, reason=lengths.unfit[number], faulty=True)
        part = PARTS[division.parts[number]]
        partner = int(division.partners[number])
        if partner >= 0:
            other = PARTS[division.parts[partner]]
            like = "of one group with" if division.by_group[number] else "like"
            return Fate(part=None, reason=f"{like} a row of the {other} part (not used in {part}: {place(partner)})")
        if division.times[number] == 0:
            return Fate(part=None, reason="not drawn (by its source's weight, fraction or number of rows)")
        return Fate(part=part, truncated=number in lengths.cut)

    files = [(entry.role, entry.file) for entry in entries]
    ledger, faults, share = write_ledger(path, files, map(fate, range(len(division.parts))))
    if lengths.refused:
        raise RunnerError(refusal(lengths, path), Exit.DATA_REJECTED)
    check_dropped(ledger, faults, share, plan.max_dropped_fraction, path)
    return ledger


def _empty_part(name: str, division: Division, place: Places) -> Problem:
    used, groups = int((division.times > 0).sum()), len(np.unique(division.groups))
    withheld = int((division.partners >= 0).sum())
    what = f"The {name} part of the split is empty: {used:,} rows can be used"
    fix = "Add rows, or raise data.split.dev and data.split.test."
    if withheld:
        what += f", and {withheld:,} are like a row of another part ({leak_sample(division, place)})"
        fix = "Take out of one part what stands in the other; raise data.split.similarity where they only look alike."
    elif groups < FEW_GROUPS:
        what += f", but they are only {groups:,} questions or groups, and each of these stays in one part"
        fix = "Put what differs into the prompt, or give the held-out rows yourself as data.dev and data.test."
    return Problem(code="data/empty-part", what=f"{what}.", where=Where(key="data.split"), fix=fix)


def _write_parts(
    folder: Path, examples: Examples, division: Division, seen: np.ndarray, watch: Watch
) -> tuple[Review, dict[str, Counter[str]]]:
    """Writes train, dev and test; reviews every row that is `seen` (N,), used or not, and counts answers by part."""
    review = Review()
    answers: dict[str, Counter[str]] = {}
    numbers = np.flatnonzero(seen | (division.times > 0))
    with ExitStack() as stack:
        out = [stack.enter_context((folder / f"{name}.jsonl").open("w", encoding="utf-8")) for name in PARTS]
        progress = stack.enter_context(watch.progress("review rows", len(numbers)))
        for number, example in zip(numbers.tolist(), examples.select(numbers), strict=True):
            part, times = division.parts[number], int(division.times[number])
            if times:
                out[part].write(json.dumps(_as_chat(example, times), ensure_ascii=False) + "\n")
            progress.advance()
            if not seen[number]:
                continue
            name = review.add(example)
            if times and (name in answers or len(answers) < MAX_CLASSES):
                answers.setdefault(name, Counter())[PARTS[part]] += 1
    return review, answers


def _as_chat(example: Example, times: int) -> dict[str, Any]:
    messages = [_as_openai(message) for message in example.messages]
    tools = json.loads(example.tools) if example.tools else None
    optional = {"tools": tools, "label": example.label, "times": times if times > 1 else None}
    known = {key: value for key, value in optional.items() if value is not None}
    return {"messages": messages, "source": example.source, "id": example.id, "group": example.group, **known}


def _as_openai(message: Message) -> dict[str, Any]:
    """The turn in OpenAI's shape, so that the written files can be read as data again."""
    turn = {"role": message.role, "content": message.content, **message.extras}
    if "tool_calls" in turn:
        turn["tool_calls"] = json.loads(turn["tool_calls"])
    if turn.pop("trained", True) is False:
        turn["weight"] = 0
    return turn


def _repeats(entries: Sequence[Entry], used: np.ndarray, place: Places) -> tuple[Finding, ...]:
    rows = np.flatnonzero(used)
    questions, answers = (column(entries, name)[rows] for name in ("question_key", "answer_key"))
    return repeats(questions, answers, lambda i: place(int(rows[i])))


def _shown(train: Examples, lengths: Lengths, session: Session) -> Iterator[Shown]:
    """The first training row, and those of median and of largest length."""
    order = np.argsort(lengths.total[train.numbers], kind="stable").tolist()
    for i in dict.fromkeys([0, order[len(order) // 2], order[-1]]):
        segments = session.mark(train[i])
        if any(hide(segment.text) != segment.text for segment in segments):
            segments = [Segment(text=HIDDEN, trained=False)]
        yield Shown(source=train[i].source, segments=tuple(segments))


def _problem(finding: Finding) -> Problem:
    return Problem(code=finding.code, what=finding.what, fix=finding.fix, severity=finding.severity)


def _write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
