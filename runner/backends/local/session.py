"""One model in memory: which folder, which number format, base or tuned."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from runner.backends.answers import KeptAnswers, key_of
from runner.backends.base import (
    Form,
    HeldOutLoss,
    Hyperparameters,
    MemoryUse,
    Sampling,
    Segment,
    Side,
    TokenCounts,
    TrainedModel,
    TrainJob,
    Watch,
)
from runner.backends.local import generate, train
from runner.backends.local.adapt import attach
from runner.backends.local.deliver import read_outcome, weights_hash
from runner.backends.local.device import compute_dtype
from runner.backends.local.embedded import EMBEDDED, converted_folder
from runner.backends.local.encode import mark, render, shorten
from runner.backends.local.encoded import EncodedRows, encode_rows
from runner.backends.local.load import delivered_tokenizer, load_tokenizer, load_weights, stop_ids
from runner.backends.local.merge import fold, is_merged, write_merged
from runner.backends.local.opening import describe_folder, split_revision
from runner.backends.local.ranks import ALONE, Ranks, placed
from runner.backends.local.ranks.job import RankJob
from runner.backends.local.ranks.launch import lead, spawn
from runner.backends.local.room import expect
from runner.conversation import Completion, Example, Message
from runner.files import known_sha256, sha256_of

WHOLE = ("full", "merged")  # whose tuned side is weights of its own; "merged" only answers


class LocalSession:
    """A model, loaded once. `base` and `tuned` share the weights: an adapter is switched, a full tune is swapped in
    place from disk, so there are never two copies."""

    def __init__(self, *, model: str, method: str, cache: Path, watch: Watch, trust_remote_code: bool):
        self.method = method
        self._trust = trust_remote_code
        self._reference = model
        name, self.revision = split_revision(model)
        self._watch = watch
        self.folder = str(converted_folder(name, cache, watch)) if name in EMBEDDED else name
        self.tokenizer, config = load_tokenizer(name, self.folder, self.revision, self._trust)
        self.stop_ids = stop_ids(self.folder, self.revision, self.tokenizer)
        self.facts = describe_folder(
            name, self.revision, config.to_dict(), EMBEDDED[name].license if name in EMBEDDED else None
        )
        self._cache = cache
        self._config = config
        self._commit = getattr(config, "_commit_hash", None)
        self._rows: EncodedRows | None = None
        self._model: Any = None
        self._side: Side = "base"
        self._tuned_dir: Path | None = None

    def count_tokens(self, examples: Sequence[Example], watch: Watch) -> TokenCounts:
        """Exact counts; the rows stay encoded in the cache for training and scoring."""
        rows = encode_rows(self.tokenizer, examples, self.stop_ids, self._cache, watch)
        self._rows = max(self._rows or rows, rows, key=len)  # a few rows that were cut come after all the others
        return rows.counts

    def shorten(self, example: Example, max_length: int) -> Example | None:
        """The example in at most `max_length` tokens, its earliest turns and the end of its answer left out."""
        return shorten(self.tokenizer, example, max_length, self.stop_ids)

    def mark(self, example: Example) -> list[Segment]:
        """The example as the model sees it, with what is trained on."""
        return mark(self._encoded([example])[0], self.tokenizer)

    def train(self, job: TrainJob, watch: Watch) -> TrainedModel:
        """Trains on the job's rows, or goes on where an earlier attempt was; afterwards the session answers as base
        and as tuned."""
        told = self._tell(job)
        outcome = read_outcome(job.work_dir, told.name, job.model_dir)
        if outcome:
            watch.say("Trained by an earlier attempt; its files are as they were.")
        else:
            outcome = self._train(told, watch)
        self._tuned_dir = job.model_dir
        return outcome

    def expected_memory(self, hyper: Hyperparameters, examples: Sequence[Example]) -> MemoryUse:
        """What training on the examples should take, by a formula."""
        counts = self._encoded(examples).counts
        return expect(self._config, self.method, hyper, counts.total, counts.labelled)

    def _tell(self, job: TrainJob) -> RankJob:
        rows, dev = self._encoded(job.train), self._encoded(job.dev)
        asked = (job.method, repr(job.hyperparameters), job.seed, *self._signature(), rows.fingerprint, dev.fingerprint)
        return RankJob(
            model=self._reference,
            method=self.method,
            cache=self._cache,
            trust_remote_code=self._trust,
            name=key_of(*asked)[:16],
            job=job,
            rows=rows,
            dev=dev,
        )

    def _train(self, told: RankJob, watch: Watch) -> TrainedModel:
        """Here, where one process is enough; else in processes of its own, or with those that were started with us."""
        ranks = placed()
        processes = told.job.processes or max(1, torch.cuda.device_count())
        if ranks.size == 1 and processes == 1:
            return self.train_rank(told, watch, ALONE)
        self._let_go()  # the ranks need its memory
        if ranks.size > 1:
            return lead(told.write(), ranks, watch, lambda agreed, stop: self.train_rank(told, agreed, ranks, stop))
        spawn(told.write(), processes, watch)
        outcome = read_outcome(told.job.work_dir, told.name, told.job.model_dir)
        assert outcome is not None, "ranks that end well leave what they trained"
        return outcome

    def train_rank(
        self, told: RankJob, watch: Watch, ranks: Ranks, is_stopped: Callable[[], bool] = lambda: False
    ) -> TrainedModel:
        """This process's part of the training."""
        self._use("base")
        model, outcome = train.train(self._weights(), self.tokenizer, told, watch, ranks, is_stopped)
        self._model = None if self.method == "full" else model  # it may be sharded, and is not what is delivered
        self._side = "tuned"
        return outcome

    def complete(
        self,
        side: Side,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        tools: Sequence[str | None] = (),
        label: str | None = None,
    ) -> list[Completion]:
        """One greedy answer for each prompt, in their order."""
        with self._answering_as(side) as model:
            texts = self._rendered(prompts, tools)
            kept = KeptAnswers(self._cache / "answers", f"{side}-{self._fingerprint(side)}")
            name = f"{label or side} answers"
            return generate.complete(model, self.tokenizer, texts, sampling, self.stop_ids, watch, name, kept)

    def answer_anew(
        self,
        side: Side,
        prompts: Sequence[Sequence[Message]],
        num_rows: int,
        sampling: Sampling,
        watch: Watch,
        tools: Sequence[str | None] = (),
    ) -> Mapping[int, Completion]:
        """Answers of the batches that `complete` begins with, given anew, by the prompts' numbers."""
        with self._answering_as(side) as model:
            texts = self._rendered(prompts, tools)
            name = f"{side} answers"
            return generate.answer_batches(
                model, self.tokenizer, texts, sampling, self.stop_ids, watch, name, None, num_rows
            )

    def _rendered(self, prompts: Sequence[Sequence[Message]], tools: Sequence[str | None]) -> list[str]:
        offered = tools or [None] * len(prompts)
        return [
            render(self.tokenizer, prompt, tools=offer, answer_next=True)
            for prompt, offer in zip(prompts, offered, strict=True)
        ]

    def held_out_loss(self, side: Side, examples: Sequence[Example], watch: Watch) -> HeldOutLoss:
        """How surprised the model is by the expected answers, without sampling."""
        with self._answering_as(side) as model:
            return generate.held_out_loss(model, self._encoded(examples), watch, label=f"{side} loss")

    def merge(self, folder: Path, watch: Watch) -> None:
        """Writes the base weights with the delivered adapter folded in, unless the folder holds them already; lets go
        of the weights. Raises RunnerError (74) when the disk has no room for them."""
        assert self._tuned_dir is not None, "only a trained session has something to merge"
        adapter = weights_hash(self._tuned_dir)
        if is_merged(folder, adapter):
            watch.say("Merged by an earlier attempt; its files are as they were.")
            return
        self._use("tuned")
        model, self._model = self._weights(), None  # merged in place
        merged = fold(model, self._tuned_dir, watch)
        write_merged(merged, self.tokenizer, folder, adapter, watch)

    def reopen(self, form: Form, folder: Path) -> LocalSession:
        """A session whose tuned side, weights and tokenizer, comes from the folder's files; lets go of the weights."""
        self._let_go()
        method = "merged" if form == "merged" else self.method
        again = LocalSession(
            model=self._reference, method=method, cache=self._cache, watch=self._watch, trust_remote_code=self._trust
        )
        again.tokenizer = delivered_tokenizer(folder, self._trust)
        source = (str(folder), None) if method in WHOLE else (again.folder, again.revision)
        again.stop_ids = stop_ids(*source, again.tokenizer)
        again._tuned_dir = folder
        return again

    def _fingerprint(self, side: Side) -> str:
        """A name for the weights as they answer: the model's files, the tuned ones by content, their numbers, and the
        machine, which is what an answer's seconds are of."""
        weights: list[object] = self._signature()
        if side == "tuned":
            assert self._tuned_dir is not None, "only a trained session has a tuned side"
            weights += [sha256_of(path) for path in sorted(self._tuned_dir.glob("*.safetensors"))]
        dtype = str(compute_dtype())
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        return key_of(*weights, dtype, device, torch.__version__, transformers.__version__)[:16]

    def _signature(self) -> list[object]:
        """The base weights by name and commit, or by what is in their files, wherever these lie."""
        folder = Path(self.folder)
        # An embedded model's folder is named after its contents, and lies in a cache that may be made anew.
        embedded = self.facts.name in EMBEDDED
        own = [folder.name] if embedded else _signature(folder, self._cache) or [self.folder]
        return [*own, self._commit, self.method == "qlora", *(["trusted code"] if self._trust else [])]

    def _encoded(self, examples: Sequence[Example]) -> EncodedRows:
        known = self._rows.select(examples) if self._rows else None
        rows = known or encode_rows(self.tokenizer, examples, self.stop_ids, self._cache, self._watch)
        problems = rows.counts.problems
        assert not problems, next(iter(problems.values()))  # the data stage has rejected such rows
        return rows

    def _weights(self) -> Any:
        """The one model in memory, of the side that is in use."""
        if self._model is None:
            self._watch.say(f"Loading {self.facts.name} ...")
            tuned = self._tuned_dir if self.method in WHOLE and self._side == "tuned" else None
            source = (str(tuned), None) if tuned else (self.folder, self.revision)
            with self._watch.interruptible():
                self._model = load_weights(
                    *source, self.method, self.stop_ids, self.tokenizer.pad_token_id, trust_remote_code=self._trust
                )
        if self._side == "tuned" and self.method not in WHOLE and not hasattr(self._model, "disable_adapter"):
            assert self._tuned_dir is not None, "only a trained session has a tuned side"
            self._model = attach(self._model, self._tuned_dir)
        return self._model

    @contextlib.contextmanager
    def _answering_as(self, side: Side) -> Iterator[Any]:
        self._use(side)
        model = self._weights()
        adapter_off = side == "base" and hasattr(model, "disable_adapter")
        with model.disable_adapter() if adapter_off else contextlib.nullcontext():
            yield model

    def _let_go(self) -> None:
        """Gives the memory of the weights back, before others come."""
        self._model = None
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)  # which else keeps what was freed, beside the weights that come
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _use(self, side: Side) -> None:
        """For a full tune, lets go of the other side's weights; an adapter is switched."""
        if self.method in WHOLE and side != self._side:
            self._let_go()
        self._side = side


def _signature(folder: Path, cache: Path) -> list[str]:
    """A local model's files by name and content; none for a model of the hub."""
    files = sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []
    return [f"{path.name} {known_sha256(path, cache)}" for path in files]
