"""One model in memory: trained, asked as base and as tuned, scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from runner.backends import local
from runner.backends.answers import KeptAnswers
from runner.backends.base import Hyperparameters, Sampling, Session, TrainJob
from runner.backends.local import generate
from runner.backends.local.encode import render
from runner.conversation import Example, Message
from runner.errors import Exit, Interrupted, RunnerError
from tests.fakes import FakeWatch

SAMPLING = Sampling(max_new_tokens=12, batch_size=3)


def examples(count: int, system: str | None = "Answer with one word, please.") -> list[Example]:
    opening = (Message(role="system", content=system),) if system else ()
    return [
        Example(
            messages=(
                *opening,
                Message(role="user", content=f"item {i} " + "x" * (i % 7)),
                Message(role="assistant", content=("tea", "milk")[i % 2]),
            ),
            source=f"rows.jsonl:{i + 1}",
        )
        for i in range(count)
    ]


def hyperparameters(**changes: Any) -> Hyperparameters:
    usual: dict[str, Any] = {
        "epochs": 2,
        "learning_rate": 1e-2,
        "batch_size": 4,
        "max_length": 256,
        "schedule": "cosine",
        "warmup": 0.1,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "rank": 4,
        "alpha": 8,
        "dropout": 0.0,
        "target_modules": None,
    }
    return Hyperparameters(**{**usual, **changes})


def job(folder: Path, method: str = "lora", **changes: Any) -> TrainJob:
    rows = examples(24)
    return TrainJob(
        method=method,
        hyperparameters=hyperparameters(**changes),
        train=rows[:20],
        dev=rows[20:],
        work_dir=folder / "train",
        model_dir=folder / "model",
        seed=3,
    )


def open_session(model: Path, tmp_path: Path, method: str = "lora") -> Session:
    return local.open_session(str(model), method, tmp_path / "cache", FakeWatch())


class StoppingWatch(FakeWatch):
    """Asks to stop at the given look."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def check(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Interrupted("test")


def prompts(rows: Sequence[Example]) -> list[tuple[Message, ...]]:
    return [row.prompt for row in rows]


def texts(session: Any, side: Any, rows: Sequence[Example]) -> list[str]:
    return [answer.text for answer in session.complete(side, prompts(rows), SAMPLING, FakeWatch())]


@pytest.mark.parametrize("method", ["lora", "full", pytest.param("qlora", marks=pytest.mark.slow)])
def test_training_lowers_the_loss_and_leaves_the_base_as_it_was(tiny_model: Path, tmp_path: Path, method: str) -> None:
    session = open_session(tiny_model, tmp_path, method)
    rows = examples(6)
    before, base_loss = texts(session, "base", rows), session.held_out_loss("base", rows, FakeWatch()).mean
    rate = 3e-3 if method == "full" else 1e-2
    outcome = session.train(job(tmp_path, method, learning_rate=rate, epochs=4), FakeWatch())
    tuned_loss = session.held_out_loss("tuned", rows, FakeWatch()).mean
    assert tuned_loss < base_loss - 0.5
    assert outcome.num_steps == 20
    assert outcome.moved_adapters == 1.0
    assert outcome.dev_loss is not None
    assert outcome.curve[0].dev_loss is not None, "the validation loss before training starts the curve"
    assert texts(session, "base", rows) == before
    assert session.held_out_loss("base", rows, FakeWatch()).mean == pytest.approx(base_loss, abs=1e-4)


@pytest.mark.slow
def test_answering_does_not_put_quantised_weights_into_a_form_without_gradient(
    tiny_model: Path, tmp_path: Path
) -> None:
    session: Any = open_session(tiny_model, tmp_path, "qlora")
    texts(session, "base", examples(3))
    states = [getattr(getattr(m, "weight", None), "quant_state", None) for m in session._model.modules()]
    quantised = [state for state in states if state is not None]
    assert len(quantised) == 14
    assert not any(getattr(state, "packing_format_for_cpu", False) for state in quantised)


def test_the_same_seed_trains_the_same_weights(tiny_model: Path, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        open_session(tiny_model, tmp_path).train(job(tmp_path / name), FakeWatch())
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        found.append(PeftModel.from_pretrained(base, tmp_path / name / "model").state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_the_delivered_files_answer_like_the_model_that_was_evaluated(tiny_model: Path, tmp_path: Path) -> None:
    session: Any = open_session(tiny_model, tmp_path)
    session.train(job(tmp_path), FakeWatch())
    rows = examples(5)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    delivered = PeftModel.from_pretrained(base, tmp_path / "model")
    again = generate.complete(
        delivered,
        session.tokenizer,
        [render(session.tokenizer, prompt, answer_next=True) for prompt in prompts(rows)],
        SAMPLING,
        session.stop_ids,
        FakeWatch(),
        label="x",
        kept=KeptAnswers(tmp_path / "elsewhere", "delivered"),
    )
    assert [answer.text for answer in again] == texts(session, "tuned", rows)
    assert all((path.stat().st_mode & 0o777) == 0o644 for path in (tmp_path / "model").iterdir())


def test_answers_do_not_depend_on_batch_size_order_or_shared_prefix(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = examples(7)

    def anew(name: str, asked: Sequence[Example]) -> list[str]:
        return texts(open_session(tiny_model, tmp_path / name), "base", asked)

    together = anew("together", rows)
    assert anew("reversed", rows[::-1]) == together[::-1]
    alone = open_session(tiny_model, tmp_path / "alone")
    assert [texts(alone, "base", [row])[0] for row in rows] == together
    monkeypatch.setattr(generate, "_prefix_cache", lambda *_: None)
    assert anew("whole", rows) == together


def test_a_batch_has_so_many_rows_and_tokens_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generate.BATCH_TOKENS, "cpu", 100)
    lengths = [5, 5, 10, 15, 15, 40, 95, 200]
    batches = generate._batches(range(8), lengths, Sampling(max_new_tokens=10, batch_size=4), "cpu")
    assert batches == [[0, 1, 2, 3], [4, 5], [6], [7]], "a row that is too long stands alone"


def test_long_prompts_are_read_in_pieces_and_answered_the_same(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = examples(7)
    whole = texts(open_session(tiny_model, tmp_path / "whole"), "base", rows)
    read: list[int] = []
    session: Any = open_session(tiny_model, tmp_path / "pieces")
    session._use("base")
    session._weights().register_forward_pre_hook(
        lambda module, _, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    monkeypatch.setattr(generate, "PREFILL_TOKENS", 16)
    monkeypatch.setattr(generate, "_prefix_cache", lambda *_: None)
    assert texts(session, "base", rows) == whole
    assert max(read) <= 16


def test_where_memory_runs_out_half_as_many_are_answered_at_a_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = examples(7)
    usual = texts(open_session(tiny_model, tmp_path / "usual"), "base", rows)
    really, sizes = generate._continue, []

    def cramped(model: Any, some: list[list[int]], *rest: Any) -> list[list[int]]:
        sizes.append(len(some))
        if len(some) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return really(model, some, *rest)

    monkeypatch.setattr(generate, "_continue", cramped)
    watch = FakeWatch()
    session = open_session(tiny_model, tmp_path / "cramped")
    answers = session.complete("base", prompts(rows), Sampling(max_new_tokens=12, batch_size=7), watch)
    assert [answer.text for answer in answers] == usual
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert sum("Memory ran out with" in line for line in watch.lines) == 3


def test_a_single_answer_that_does_not_fit_is_not_tried_for_ever(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(generate, "_continue", full)
    with pytest.raises(torch.OutOfMemoryError):
        texts(open_session(tiny_model, tmp_path), "base", examples(3))


class CountingGenerate:
    """Counts the rows that a model is asked to continue, batch by batch, and can be killed before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, killed_at: int | None = None):
        self.batches: list[list[list[int]]] = []
        self.killed_at = killed_at
        self._really = generate._generate
        monkeypatch.setattr(generate, "_generate", self)

    def __call__(self, model: Any, rows: list[list[int]], *rest: Any) -> list[list[int]]:
        if len(self.batches) == self.killed_at:
            raise KeyboardInterrupt
        self.batches.append(rows)
        return self._really(model, rows, *rest)

    @property
    def num_rows(self) -> int:
        return sum(map(len, self.batches))


def test_what_was_answered_once_is_not_answered_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = CountingGenerate(monkeypatch)
    rows = examples(7)
    session = open_session(tiny_model, tmp_path)
    first = session.complete("base", prompts(rows), SAMPLING, FakeWatch(), label="zero_shot")
    assert (counting.num_rows, len(counting.batches)) == (7, 3)
    assert session.complete("base", prompts(rows[::-1]), SAMPLING, FakeWatch(), label="base") == first[::-1]
    assert open_session(tiny_model, tmp_path).complete("base", prompts(rows), SAMPLING, FakeWatch()) == first
    assert counting.num_rows == 7, "an equal session reuses what another one kept, seconds and all"
    longer = Sampling(max_new_tokens=13, batch_size=3)
    session.complete("base", prompts(rows), longer, FakeWatch())
    assert counting.num_rows == 14, "another length is another question"


def test_only_batches_with_something_new_are_answered(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(tiny_model, tmp_path)
    session.complete("base", prompts(examples(6)), SAMPLING, FakeWatch())
    counting = CountingGenerate(monkeypatch)
    texts(session, "base", examples(6, system="Be brief, and answer with a single word."))
    assert counting.num_rows == 6, "another prompt is another question"
    texts(session, "base", [*examples(6), examples(8)[7]])
    assert counting.num_rows <= 9


def test_equal_prompts_are_answered_once(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = CountingGenerate(monkeypatch)
    rows = examples(4)
    found = texts(open_session(tiny_model, tmp_path), "base", [*rows, *rows[::-1], rows[0]])
    assert found[4:8] == found[3::-1] and found[8] == found[0]
    assert counting.num_rows == 4


@pytest.mark.parametrize("killed_at", [1, 2])
def test_answering_that_was_killed_goes_on_to_the_same_answers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    rows = examples(8)
    whole = texts(open_session(tiny_model, tmp_path / "whole"), "base", rows)
    counting = CountingGenerate(monkeypatch, killed_at=killed_at)
    with pytest.raises(KeyboardInterrupt):
        texts(open_session(tiny_model, tmp_path / "killed"), "base", rows)
    assert len(counting.batches) == killed_at
    counting.killed_at = None
    assert texts(open_session(tiny_model, tmp_path / "killed"), "base", rows) == whole
    assert counting.num_rows == 8, "no row was answered twice"
    asked = [tuple(row) for batch in counting.batches for row in batch]
    assert len(set(asked)) == 8
    assert [len(batch) for batch in counting.batches] == [3, 3, 2], "the batches of a run that was not killed"


def test_an_answer_torn_by_a_kill_is_answered_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = examples(6)
    whole = texts(open_session(tiny_model, tmp_path), "base", rows)
    (kept,) = (tmp_path / "cache" / "answers").glob("base-*.jsonl")
    kept.write_bytes(kept.read_bytes()[:-25])
    counting = CountingGenerate(monkeypatch)
    assert texts(open_session(tiny_model, tmp_path), "base", rows) == whole
    assert len(counting.batches) == 1


@pytest.mark.slow
def test_another_training_is_another_model_and_the_same_base(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, counts, answers = examples(5), [], []
    counting = CountingGenerate(monkeypatch)
    for name, rate in (("one", 1e-2), ("other", 3e-2), ("again", 1e-2)):
        session = open_session(tiny_model, tmp_path)
        session.train(job(tmp_path / name, learning_rate=rate), FakeWatch())
        before = counting.num_rows
        base = texts(session, "base", rows)
        middle = counting.num_rows
        tuned = texts(session, "tuned", rows)
        counts.append((middle - before, counting.num_rows - middle))
        answers.append((base, tuned))
    assert counts == [(5, 5), (0, 5), (0, 0)], "equal weights by content are one model, wherever they lie"
    assert answers[0] == answers[2] and answers[1][0] == answers[0][0]


def test_token_counts_are_those_of_the_template(tiny_model: Path, tmp_path: Path) -> None:
    session: Any = open_session(tiny_model, tmp_path)
    row = examples(1)[0]
    counts = session.count_tokens([row], FakeWatch())
    turns = [{"role": m.role, "content": m.content} for m in row.messages]
    assert counts.total.tolist() == [len(session.tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"])]
    assert (counts.labelled.tolist(), counts.problems) == ([len("tea") + 1], {})


def test_the_loss_of_the_first_step_is_the_held_out_loss_of_the_same_rows(tiny_model: Path, tmp_path: Path) -> None:
    session = open_session(tiny_model, tmp_path)
    asked = job(tmp_path, batch_size=20, epochs=1)
    expected = session.held_out_loss("base", asked.train, FakeWatch()).mean
    outcome = session.train(asked, FakeWatch())
    assert outcome.num_steps == 1
    assert outcome.final_loss == pytest.approx(expected, abs=2e-3)


def test_a_learning_rate_that_destroys_the_model_ends_in_a_clear_error(tiny_model: Path, tmp_path: Path) -> None:
    session = open_session(tiny_model, tmp_path, "full")
    with pytest.raises(RunnerError) as raised:
        session.train(job(tmp_path, "full", learning_rate=1e6, epochs=20, schedule="constant_with_warmup"), FakeWatch())
    assert raised.value.problems[0].code == "train/diverged"
    assert raised.value.exit_code == Exit.MANIFEST


def test_only_the_top_layers_are_adapted_when_told_so(tiny_model: Path, tmp_path: Path) -> None:
    session: Any = open_session(tiny_model, tmp_path)
    outcome = session.train(job(tmp_path, top_layers=1), FakeWatch())
    adapted = [name for name, parameter in session._model.named_parameters() if parameter.requires_grad]
    assert len(adapted) == 14
    assert all(".layers.1." in name for name in adapted)
    assert outcome.moved_adapters == 1.0


def test_target_modules_that_the_model_lacks_are_a_problem_with_a_cure(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunnerError) as raised:
        open_session(tiny_model, tmp_path).train(job(tmp_path, target_modules=("c_attn",)), FakeWatch())
    assert raised.value.problems[0].code == "hyperparameters/target-modules"


def test_being_asked_to_stop_ends_training_and_answering_at_once(tiny_model: Path, tmp_path: Path) -> None:
    session = open_session(tiny_model, tmp_path)
    with pytest.raises(Interrupted):
        session.train(job(tmp_path), StoppingWatch(at=2))
    with pytest.raises(Interrupted):
        session.complete("base", prompts(examples(4)), SAMPLING, StoppingWatch(at=3))


@pytest.mark.parametrize(
    ("model", "code"),
    [("/nowhere/model", "model/missing"), ("some-model", "model/unknown"), ("a/b/c", "model/unknown")],
)
def test_a_model_that_is_none_is_found_out_before_loading(model: str, code: str) -> None:
    assert [problem.code for problem in local.check(model)] == [code]


def test_a_hub_model_without_network_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(RunnerError) as raised:
        local.open_session("acme/no-such-model@main", "lora", tmp_path, FakeWatch())
    assert raised.value.problems[0].code == "model/unavailable"
    assert raised.value.exit_code == Exit.UNAVAILABLE
