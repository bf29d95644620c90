"""Stand-ins for the edge alone: a model that says what a test wrote down, and a plan made without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from runner.answerer import Answerer
from runner.arms import sampling_of
from runner.backends.base import (
    CurvePoint,
    Endpoint,
    Form,
    HeldOutLoss,
    Hyperparameters,
    MemoryUse,
    ModelFacts,
    Progress,
    Reply,
    Sampling,
    Saved,
    Segment,
    Session,
    Side,
    TokenCounts,
    TrainedModel,
    TrainJob,
    Watch,
)
from runner.conversation import Completion, Example, Message
from runner.data.ledger import Ledger
from runner.data.prepare import Dataset, SplitReport, TokenReport
from runner.data.review import Diversity, Review
from runner.evaluate import Comparison, Evaluation
from runner.gate.decide import Decision
from runner.manifest import Manifest, load_manifest
from runner.plan import Plan, make_plan
from runner.scoring import SideResult
from runner.stats import Interval

QUICKSTART = Path(__file__).parents[1] / "manifests" / "quickstart.yaml"
SMALL = ModelFacts(
    name="small", revision="r1", family="llama", num_parameters=135_000_000, context_tokens=2048, license="apache-2.0"
)
UNKNOWN = ModelFacts(name="unknown", revision=None, family=None, num_parameters=None, context_tokens=None, license=None)

LARGE = Endpoint(base_url="http://large.test/v1", model="large")


def facts_of_size(num_parameters: int | None) -> ModelFacts:
    """A model of that many parameters."""
    return replace(SMALL, num_parameters=num_parameters)


@cache
def quickstart(*overrides: str) -> Manifest:
    """The real quickstart manifest, with `--set` assignments."""
    return load_manifest(QUICKSTART, overrides)


def make_test_plan(*overrides: str, facts: ModelFacts = SMALL, train: Sequence[Path] = ()) -> Plan:
    """The plan of the quickstart manifest; `train` replaces the data files."""
    plan = make_plan(quickstart("eval.resamples=1000", *overrides), facts)
    sources = tuple(replace(plan.data.train[0], source=str(path)) for path in train)
    return replace(plan, data=replace(plan.data, train=sources)) if train else plan


def question(prompt: str, answer: str, *, system: str | None = None, source: str = "rows.jsonl:1") -> Example:
    """One question with its answer."""
    turns = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
    if system is not None:
        turns.insert(0, Message(role="system", content=system))
    return Example(messages=tuple(turns), source=source)


@cache
def questions(num_rows: int, answer: str = "yes") -> tuple[Example, ...]:
    """Different questions with the same answer."""
    return tuple(question(f"question {i}", answer, source=f"rows.jsonl:{i + 1}") for i in range(num_rows))


def make_dataset(num_train: int = 400, num_test: int = 60, **changes: Any) -> Dataset:
    """A dataset of made-up questions, 100 tokens a row."""
    examples = questions(num_train + 30 + num_test)
    num_rows = len(examples)
    dataset = Dataset(
        train=examples[:num_train],
        own=examples[:num_train],
        dev=examples[num_train : num_train + 30],
        test=examples[num_train + 30 :],
        ledger=make_ledger(num_rows),
        tokens=TokenReport(
            total=100 * num_rows,
            labelled=20 * num_rows,
            median=100,
            p90=100,
            p99=100,
            longest=100,
            longest_answer=20,
            max_length=512,
            num_counted=num_rows,
            num_over=0,
            band=None,
            histogram=((100, num_rows),),
        ),
        train_tokens=100 * num_train,
        split=SplitReport(
            train=num_train,
            dev=30,
            test=num_test,
            num_own=num_train,
            num_groups=num_rows,
            num_pairs=0,
            num_withheld=0,
            num_mixed=0,
            classes={},
        ),
        diversity=_diversity(),
        shown=(),
        findings=(),
    )
    return replace(dataset, **changes)


@cache
def _diversity() -> Diversity:
    """How varied some made-up questions are."""
    review = Review()
    for example in questions(20):
        review.add(example)
    return review.diversity()


def make_ledger(num_rows: int = 100, num_faulty: int = 0) -> Ledger:
    """The totals of that many rows; the faulty ones are not JSON."""
    return Ledger(
        num_rows=num_rows,
        kept=num_rows - num_faulty,
        repaired=0,
        truncated=0,
        dropped=num_faulty,
        num_faulty=num_faulty,
        reasons={"not JSON": num_faulty} if num_faulty else {},
        faults={"not JSON": num_faulty} if num_faulty else {},
        repairs={},
        sources=(),
    )


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """Writes values as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The values of a JSONL file; NaN and its like are refused."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


class FakeProgress:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.amount = 0

    def advance(self, amount: int = 1, **facts: float | str) -> None:
        self.amount += amount

    def __enter__(self) -> FakeProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FakeWatch:
    """Remembers what it is told, and is never asked to stop."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def progress(self, label: str, total: int) -> Progress:
        return FakeProgress()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def log(self, values: Mapping[str, float], step: int) -> None:
        pass

    def send_curves_to(self, sink: Callable[[Mapping[str, float], int], None]) -> None:
        pass

    def saved(self, what: Saved, amount: int) -> None:
        pass

    def note_saved_with(self, note: Callable[[Saved, int], None]) -> None:
        pass

    def check(self) -> None:
        pass

    def interruptible(self, grace_seconds: float = 0.0) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass(kw_only=True)
class FakeSession:
    """A model whose answers and losses are written down, by side and by the last turn of the prompt; a question that
    is not written down is answered with `otherwise`. A token is a word. An arm's answers may be written down under
    its name, and are then its own; `asked` are the prompts of each call, by arm or side. What its files give when they
    are opened again is this session, unless `reopened` says something else of the form."""

    answers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    losses: Mapping[Side, Mapping[str, float]] = field(default_factory=dict)
    otherwise: str = "no"
    unfinished: frozenset[Side] = frozenset()
    has_tokenizer: bool = True
    facts: ModelFacts = SMALL
    samplings: list[Sampling] = field(default_factory=list)
    asked: list[tuple[str, list[tuple[Message, ...]]]] = field(default_factory=list)
    jobs: list[TrainJob] = field(default_factory=list)
    folder: str = "org/small"
    reopened: Mapping[Form, FakeSession] = field(default_factory=dict)
    opened: list[tuple[Form, Path]] = field(default_factory=list)

    def count_tokens(self, examples: Sequence[Example], watch: Watch) -> TokenCounts | None:
        if not self.has_tokenizer:
            return None
        total = [sum(len(m.content.split()) for m in example.messages) for example in examples]
        labelled = [len(example.expected.split()) for example in examples]
        return TokenCounts(total=np.array(total, np.int32), labelled=np.array(labelled, np.int32), problems={})

    def shorten(self, example: Example, max_length: int) -> Example | None:
        *prompt, answer = example.messages
        room = max_length - sum(len(m.content.split()) for m in prompt)
        if room < 1:
            return None
        cut = replace(answer, content=" ".join(answer.content.split()[:room]), complete=False)
        return replace(example, messages=(*prompt, cut))

    def mark(self, example: Example) -> list[Segment]:
        asked = " ".join(m.content for m in example.prompt)
        return [Segment(text=asked, trained=False), Segment(text=example.expected, trained=True)]

    def expected_memory(self, hyper: Hyperparameters, examples: Sequence[Example]) -> MemoryUse | None:
        return None

    def train(self, job: TrainJob, watch: Watch) -> TrainedModel:
        self.jobs.append(job)
        return trained_model(model_dir=str(job.model_dir))

    def complete(
        self,
        side: Side,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        tools: Sequence[str | None] = (),
        label: str | None = None,
    ) -> list[Completion]:
        self.samplings.append(sampling)
        self.asked.append((label or side, [tuple(prompt) for prompt in prompts]))
        written = self.answers.get(label or side, self.answers.get(side, {}))
        return [
            Completion(
                text=(text := written.get(prompt[-1].content, self.otherwise)),
                prompt_tokens=sum(len(m.content.split()) for m in prompt),
                output_tokens=len(text.split()) + 1,
                seconds=0.5,
                finish="length" if side in self.unfinished else "stop",
            )
            for prompt in prompts
        ]

    def answer_anew(
        self,
        side: Side,
        prompts: Sequence[Sequence[Message]],
        num_rows: int,
        sampling: Sampling,
        watch: Watch,
        tools: Sequence[str | None] = (),
    ) -> Mapping[int, Completion]:
        batches = -(-min(num_rows, len(prompts)) // sampling.batch_size)
        first = range(len(prompts))[::-1][: batches * sampling.batch_size]  # not in the order in which prompts come
        found = self.complete(side, [prompts[i] for i in first], sampling, watch, label=side)
        return dict(zip(first, found, strict=True))

    def merge(self, folder: Path, watch: Watch) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"merged")

    def reopen(self, form: Form, folder: Path) -> Session:
        self.opened.append((form, folder))
        return self.reopened.get(form, self)

    def held_out_loss(self, side: Side, examples: Sequence[Example], watch: Watch) -> HeldOutLoss:
        written = self.losses.get(side, {})
        rows = tuple(written.get(example.prompt[-1].content, 1.0) for example in examples)
        return HeldOutLoss(rows=rows, mean=sum(rows) / len(rows), num_tokens=len(rows))


@dataclass(kw_only=True)
class FakeChat:
    """A model behind an endpoint, whose answers are written down by the last turn of the prompt; what is not written
    down is not answered. With `failure`, it fails after having been asked."""

    answers: Mapping[str, str] = field(default_factory=dict)
    failure: Exception | None = None
    knows_tokens: bool = True
    endpoint: Endpoint = LARGE
    asked: list[tuple[Message, ...]] = field(default_factory=list)
    schemas: list[Mapping[str, object] | None] = field(default_factory=list)

    def check(self) -> None:
        pass

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        *,
        label: str,
        schema: Mapping[str, object] | None = None,
    ) -> list[Reply]:
        self.asked += [tuple(prompt) for prompt in prompts]
        self.schemas.append(schema)
        if self.failure:
            raise self.failure
        return [self._reply(prompt) for prompt in prompts]

    def _reply(self, prompt: Sequence[Message]) -> Reply:
        text = self.answers.get(prompt[-1].content)
        if text is None:
            return Reply(completion=None, reason="the server refused it")
        read = sum(len(m.content.split()) for m in prompt) if self.knows_tokens else None
        written = len(text.split()) + 1 if self.knows_tokens else None
        return Reply(
            completion=Completion(text=text, prompt_tokens=read, output_tokens=written, seconds=0.1, finish="stop")
        )


def trained_model(**changes: Any) -> TrainedModel:
    """What a short training leaves behind."""
    trained = TrainedModel(
        method="lora",
        model_dir="model",
        num_parameters=135_000_000,
        trainable_parameters=1_000_000,
        dtype="float32",
        device="cpu",
        num_steps=2,
        best_step=2,
        stopped_early=False,
        epochs=1.0,
        train_tokens=1000,
        labelled_tokens=200,
        train_seconds=1.0,
        tokens_per_second=1000.0,
        final_loss=0.5,
        dev_loss=0.6,
        curve=(
            CurvePoint(step=0, dev_loss=1.1),
            CurvePoint(step=1, loss=1.0),
            CurvePoint(step=2, loss=0.5, dev_loss=0.6),
        ),
        moved_adapters=1.0,
        num_processes=1,
        strategy="alone",
        memory=MemoryUse(
            available_bytes=8_000_000_000,
            estimate_bytes=1_100_000_000,
            peak_bytes=1_000_000_000,
            measured=True,
            micro_batch_tokens=2048,
            activation_checkpointing=False,
        ),
        resumed_from=(),
        weights_sha256="5e" * 32,
        findings=(),
    )
    return replace(trained, **changes)


def make_side(**changes: Any) -> SideResult:
    """One side's exact match on 60 rows."""
    side = SideResult(
        num_rows=60,
        num_unanswered=0,
        scores={"exact_match": Interval(mean=0.5, low=0.4, high=0.6)},
        unscored={"exact_match": 0},
        prompt_tokens=200.0,
        output_tokens=40.0,
        seconds_per_answer=0.5,
        stopped_share=1.0,
    )
    return replace(side, **changes)


def make_comparison(**changes: Any) -> Comparison:
    """A clear improvement in exact match on 60 rows."""
    comparison = Comparison(
        metric="exact_match",
        against="base",
        untuned=0.5,
        tuned=0.75,
        difference=0.25,
        ci_low=0.15,
        ci_high=0.35,
        wins=20,
        losses=5,
        ties=35,
        p_value=0.004,
        p_holm=None,
        num_rows=60,
        unscored=0,
        higher_is_better=True,
        verdict="improved",
        rows_needed=None,
    )
    return replace(comparison, **changes)


def make_evaluation(**changes: Any) -> Evaluation:
    """An evaluation with one metric; `comparison` stands in `comparisons` too, and `base` and `tuned` in `sides`."""
    comparison = changes.get("comparison", make_comparison())
    sides = {side: changes.pop(side, make_side()) for side in ("base", "tuned")}
    evaluation = Evaluation(
        verdict=comparison.verdict,
        text="Tuning helped.",
        comparison=comparison,
        comparisons=(comparison,),
        sides=sides,
        best_arm=None,
        slices=(),
        confusion=None,
        judge=None,
        forgetting=None,
        num_rows=60,
        margin=0.05,
        identical_share=0.1,
        max_new_tokens=25,
        samples=(),
        findings=(),
    )
    return replace(evaluation, **changes)


def make_answerer(
    plan: Plan, dataset: Dataset, session: FakeSession, chats: Mapping[str, Any] | None = None
) -> Answerer:
    """Whom the gate and the evaluation ask: the session, and the chats by the model's name."""
    known = chats or {}
    return Answerer(
        session=session,
        open_chat=lambda endpoint: known[endpoint.model],
        open_embedder=lambda model: FakeEmbedder(),
        sampling=sampling_of(plan, dataset),
        schema=None,
        embedding=plan.eval.embedding,
        watch=FakeWatch(),
    )


class FakeEmbedder:
    """Texts are as alike as the share of their words that both have."""

    def similarities(self, first: Sequence[str], second: Sequence[str], watch: Watch) -> list[float]:
        pairs = [(set(a.split()), set(b.split())) for a, b in zip(first, second, strict=True)]
        return [len(a & b) / max(len(a | b), 1) for a, b in pairs]


def make_decision(**changes: Any) -> Decision:
    """A gate that found nothing against tuning, without having measured."""
    decision = Decision(
        verdict="fine_tune",
        says_no=False,
        text="No un-tuned arm reaches the target.",
        policy="enforce",
        reason="",
        task="format",
        target=None,
        detectable=None,
        num_dev=30,
        arms=(),
        best=None,
        enough=None,
        tuned_usd_per_1000=None,
        judge=None,
        findings=(),
    )
    return replace(decision, **changes)
