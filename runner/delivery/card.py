"""The model card: what the weights are, what they come from, how good they are, and how to serve them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner import __version__
from runner.backends.base import Form, TrainedModel
from runner.data.prepare import Dataset
from runner.delivery.parts import Check
from runner.delivery.serve import serve_lines
from runner.evaluate import Evaluation
from runner.plan import Plan
from runner.stats import Interval

BASE = "BASE"
RELATIONS: dict[Form, str] = {"adapter": "adapter", "full": "finetune", "merged": "merge"}
WHAT: dict[Form, str] = {
    "adapter": "an adapter for the base model, to be loaded on top of it",
    "full": "the whole model, trained in all that was open to training",
    "merged": "the whole model: the base model with the adapter folded into its weights",
}


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card tells; it is the same text for the same facts. `base` is the base model as a server takes it."""

    plan: Plan
    dataset: Dataset
    trained: TrainedModel
    evaluation: Evaluation
    checks: Sequence[Check]
    base: str
    run_id: str


def make_card(facts: CardFacts, form: Form) -> str:
    """The card for a folder with this form of the model, as Markdown that the Hugging Face hub reads too; no path of
    this machine stands in it."""
    plan = facts.plan
    head = [f"# {plan.name}", "", _plain(plan.description)] if plan.description else [f"# {plan.name}"]
    sections = {
        "": [f"This folder holds {WHAT[form]}."],
        "Base model": list(_base(facts, form)),
        "Data": list(_data(facts.dataset)),
        "Training": list(_training(facts)),
        "Scores": list(_scores(facts)),
        "Serving": list(_serving(facts, form)),
        "Limits": list(_limits(facts)),
        "Origin": list(_origin(facts)),
    }
    text = [*_front_matter(facts, form), *head]
    for title, lines in sections.items():
        text += ["", *([f"## {title}", ""] if title else []), *lines]
    return "\n".join(text) + "\n"


def data_fingerprint(dataset: Dataset) -> str:
    """A name for the data: the files by content, what was kept of each, and how the rows were divided."""
    sources = sorted([s.part, s.sha256, s.num_rows, s.kept] for s in dataset.ledger.sources)
    split = dataset.split
    text = json.dumps([sources, split.train, split.dev, split.test, dataset.train_tokens])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _front_matter(facts: CardFacts, form: Form) -> Iterator[str]:
    plan, known = facts.plan, facts.plan.model_facts
    yield "---"
    yield f"base_model: {json.dumps(_base_name(facts))}"
    yield f"base_model_relation: {RELATIONS[form]}"
    yield f"license: {json.dumps(known.license or 'unknown')}"
    yield f"library_name: {'peft' if form == 'adapter' else 'transformers'}"
    yield "pipeline_tag: text-generation"
    yield f"tags: {json.dumps(['runner', plan.approach, plan.gate.task])}"
    yield "---"
    yield ""


def _base_name(facts: CardFacts) -> str:
    """The base model's name; of a folder, its last part alone."""
    name = facts.plan.model_facts.name
    return Path(name).name if Path(name).is_absolute() else name


def _base(facts: CardFacts, form: Form) -> Iterator[str]:
    known, name = facts.plan.model_facts, _base_name(facts)
    yield f"- Model: {_plain(name)}" + (f", revision {known.revision}" if known.revision else "")
    licence = known.license or "unknown: look it up before you pass these weights on"
    yield f"- Licence of the base model: {_plain(licence)}"
    if known.num_parameters:
        yield f"- Parameters: {known.num_parameters:,}"
    if form == "adapter" and _is_path(facts):
        yield ""
        yield f"`{BASE}` below stands for the folder of the base model: {_how_to_get(facts)}."
        yield "`adapter_config.json` names the folder where it was trained, which is of no use on another machine."


def _is_path(facts: CardFacts) -> bool:
    return Path(facts.base).is_absolute()


def _how_to_get(facts: CardFacts) -> str:
    name = facts.plan.model_facts.name
    if Path(name).is_absolute():
        return f"the folder `{_plain(Path(name).name)}` that it was trained from"
    return f"`runner prepare {_plain(name)}` makes it, in the runner's cache under `models/`"


def _data(dataset: Dataset) -> Iterator[str]:
    split = dataset.split
    yield f"- Fingerprint: `{data_fingerprint(dataset)}`"
    yield f"- Rows: {split.train:,} for training, {split.dev:,} for development, {split.test:,} for the test"
    yield f"- Tokens in a pass over the training rows: {dataset.train_tokens:,}"
    if dataset.ledger.sources:
        yield ""
        yield from _table(
            ["file", "for", "rows", "kept", "sha256"],
            [
                [Path(s.path).name, s.part, f"{s.num_rows:,}", f"{s.kept:,}", f"`{s.sha256}`"]
                for s in dataset.ledger.sources
            ],
        )


def _training(facts: CardFacts) -> Iterator[str]:
    trained, asked = facts.trained, facts.plan.values["hyperparameters"]
    yield (
        f"{trained.method}, {trained.trainable_parameters:,} of {trained.num_parameters:,} parameters trained, "
        f"{trained.num_steps:,} steps ({trained.epochs:.3g} times all rows), {trained.train_tokens:,} tokens of which "
        f"{trained.labelled_tokens:,} were learned, in {trained.dtype} on {trained.device}. "
        f"The weights are those of step {trained.best_step:,}, with a loss of {trained.dev_loss:.4f} on the "
        "development rows."
    )
    yield ""
    yield from _table(["hyperparameter", "value"], [[key, str(v)] for key, v in asked.items() if v is not None])
    yield ""
    yield f"Seed: {facts.plan.seed}"


def _scores(facts: CardFacts) -> Iterator[str]:
    evaluation = facts.evaluation
    sides = ["base", *([evaluation.best_arm] if evaluation.best_arm else []), "tuned"]
    names = {"base": "base model", "tuned": "this model"}
    yield f"On {evaluation.num_rows:,} test rows that it was not trained on, with 95 % intervals:"
    yield ""
    head = ["metric", *(names.get(side, f"best un-tuned ({side})") for side in sides)]
    metrics = evaluation.tuned.scores
    yield from _table(head, [[name, *(_score(evaluation.sides[s].scores[name]) for s in sides)] for name in metrics])
    yield ""
    yield _plain(evaluation.text)
    yield ""
    yield _plain(evaluation.forgetting.text) if evaluation.forgetting else "What it forgot was not measured."
    yield ""
    for check in facts.checks:
        yield (
            f"- Loaded again from its files ({check.form}): held-out loss {check.loss_delivered:.4f}, evaluated "
            f"{check.loss_evaluated:.4f}; {check.same_answers} of {check.num_answers} answers word for word the same."
        )


def _score(interval: Interval | None) -> str:
    if interval is None:
        return "no score"
    ends = "" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})"
    return f"{interval.mean:.3f}{ends}"


def _serving(facts: CardFacts, form: Form) -> Iterator[str]:
    plan = facts.plan
    base = BASE if _is_path(facts) else facts.base
    lines = serve_lines(plan, base, ".", "." if form == "merged" else None)
    shown = [line for line in lines if form != "merged" or "adapter" not in line.name]
    if shown:
        yield "In this folder:"
        yield ""
        yield "```sh"
        yield from (line.command for line in shown)
        yield "```"
    if form == "adapter":
        yield ""
        yield "`transformers serve` takes no adapter: `delivery.merge: true` in the manifest gives it a model."
        if plan.approach == "qlora":
            yield "The adapter was trained on the base model in 4 bits (nf4); on other weights it answers otherwise."


def _limits(facts: CardFacts) -> Iterator[str]:
    evaluation = facts.evaluation
    yield f"- Measured on {evaluation.num_rows:,} rows like those it was trained on, and on no others."
    yield f"- Answers were cut at {evaluation.max_new_tokens:,} tokens; rows were at most {_max_length(facts):,} long."
    if evaluation.forgetting is None:
        yield "- General abilities were not measured, before or after."
    yield "- It can be confidently wrong, like its base model, whose own limits it keeps."


def _max_length(facts: CardFacts) -> int:
    return facts.plan.hyperparameters.max_length


def _origin(facts: CardFacts) -> Iterator[str]:
    yield f"- Made by runner {__version__}, run {facts.run_id}"
    yield f"- sha256 of the trained weights: `{facts.trained.weights_sha256}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_plain, head))} |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _plain(text: str) -> str:
    """Text on one line that opens no tag, table cell or heading of its own."""
    line = " ".join(text.split())
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        line = line.replace(sign, safe)
    return f"\\{line}" if line[:1] in "#>-+=" and line else line
