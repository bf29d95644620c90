"""What is delivered is proven to be what was evaluated, or said not to be."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runner.backends.base import HeldOutLoss
from runner.delivery import Check, Delivery, _agrees, check_delivery
from runner.delivery import deliver as deliver_stage
from runner.errors import Exit, Interrupted, RunnerError
from runner.report import to_json
from runner.rundir import RunDirectory
from runner.schema import read_schema
from runner.scoring import read_scoring
from tests.fakes import (
    FakeSession,
    FakeWatch,
    make_answerer,
    make_dataset,
    make_evaluation,
    make_test_plan,
    trained_model,
)

FAR = 0.5


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    opened = RunDirectory(tmp_path / "out")
    model = opened.folder("model")
    (model / "adapter_model.safetensors").write_bytes(b"weights")
    (model / "adapter_config.json").write_text("{}")
    yield opened
    opened.close()


def weights_sha256(*contents: bytes) -> str:
    return hashlib.sha256("".join(hashlib.sha256(c).hexdigest() for c in contents).encode()).hexdigest()


def answering(loss: float = 1.0, **changed: str) -> FakeSession:
    """Right answers, but for those to the test rows that are named by their number."""
    rows = make_dataset().test
    written = {row.prompt[-1].content: row.expected for row in rows}
    written |= {rows[int(number[1:])].prompt[-1].content: text for number, text in changed.items()}
    losses = {row.prompt[-1].content: loss for row in rows}
    return FakeSession(answers={"tuned": written}, losses={"tuned": losses})


def deliver(run: RunDirectory, session: FakeSession, *overrides: str, **more: Any) -> Delivery:
    plan = make_test_plan("eval.batch_size=32", *overrides)
    dataset = make_dataset()
    watch = more.pop("watch", FakeWatch())
    answerer = make_answerer(plan, dataset, session)
    answerer.watch = watch
    usual: dict[str, Any] = {"model_dir": str(run.path / "model"), "weights_sha256": weights_sha256(b"weights")}
    trained = trained_model(**{**usual, **more})
    return deliver_stage(plan, dataset, trained, make_evaluation(), answerer, read_scoring(plan), run, "r1")


def test_what_answers_as_it_was_evaluated_is_delivered(run: RunDirectory) -> None:
    session = answering()
    delivery = deliver(run, session)
    assert session.opened == [("adapter", run.path / "model")]
    (check,) = delivery.checks
    assert check == Check(
        form="adapter",
        num_rows=60,
        loss_evaluated=1.0,
        loss_delivered=1.0,
        num_answers=32,
        same_answers=32,
        score_evaluated=1.0,
        score_delivered=1.0,
        unscored=None,
        agrees=True,
    )
    names = [file.name for file in delivery.files]
    assert names == ["model/adapter_config.json", "model/adapter_model.safetensors", "model/README.md"]
    for file in delivery.files:
        data = (run.path / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert delivery.card == str(run.path / "model/README.md")
    assert [line.name for line in delivery.serve] == ["vLLM with the adapter"]
    assert f"quickstart={run.path / 'model'}" in delivery.serve[0].command
    check_delivery(delivery)


def test_the_report_takes_it(run: RunDirectory) -> None:
    schema = read_schema("report")
    held = {"$defs": schema["$defs"], **schema["properties"]["delivery"]}
    for delivery in (deliver(run, answering()), deliver(run, answering(math.nan))):
        Draft202012Validator(held).validate(json.loads(json.dumps(to_json(delivery), allow_nan=False)))
    assert set(asdict(delivery)) == set(held["properties"])


def test_a_merged_model_is_checked_by_itself(run: RunDirectory) -> None:
    session = answering()
    delivery = deliver(run, session, "delivery.merge=true")
    assert session.opened == [("adapter", run.path / "model"), ("merged", run.path / "merged")]
    assert delivery.merged_dir == str(run.path / "merged")
    assert {"merged/model.safetensors", "merged/README.md"} <= {file.name for file in delivery.files}
    assert "merge" in (run.path / "merged/README.md").read_text()
    assert f"transformers serve {run.path / 'merged'}" in [line.command for line in delivery.serve]


def test_a_full_tune_is_opened_as_one(run: RunDirectory) -> None:
    session = answering()
    delivery = deliver(run, session, "approach.kind=full", "hyperparameters={}", method="full")
    assert session.opened == [("full", run.path / "model")]
    assert delivery.merged_dir is None and not (run.path / "merged").exists()


@pytest.mark.parametrize("form", ["adapter", "merged"])
@pytest.mark.parametrize("changes", [{"loss": 1 + FAR}, {"r57": "x", "r58": "x", "r59": "x"}, {"loss": math.nan}])
def test_what_does_not_answer_as_it_was_evaluated_is_refused(
    run: RunDirectory, form: Any, changes: dict[str, Any]
) -> None:
    session = replace(answering(), reopened={form: answering(**changes)})
    delivery = deliver(run, session, "delivery.merge=true")
    assert {check.form: check.agrees for check in delivery.checks}[form] is False
    assert (delivery.serve, delivery.card) == ((), None)
    assert not (run.path / "model/README.md").exists()
    with pytest.raises(RunnerError) as caught:
        check_delivery(delivery)
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code) == (Exit.BUG, "delivery/differs")
    assert form in problem.what and "evaluated 1.0000" in problem.what


def test_files_that_changed_meanwhile_are_the_disks_fault(run: RunDirectory) -> None:
    delivery = deliver(run, replace(answering(), reopened={"adapter": answering(loss=2)}))
    (run.path / "model/adapter_config.json").write_text('{"r": 1}')
    with pytest.raises(RunnerError) as caught:
        check_delivery(delivery)
    assert caught.value.exit_code == Exit.IO
    assert "model/adapter_config.json" in caught.value.problems[0].what
    (run.path / "model/adapter_config.json").unlink()
    with pytest.raises(RunnerError) as caught:
        check_delivery(delivery)
    assert caught.value.exit_code == Exit.IO


@pytest.mark.parametrize("harm", ["changed", "missing", "more"])
def test_weights_that_are_not_those_that_were_trained_are_not_even_loaded(run: RunDirectory, harm: str) -> None:
    weights = run.path / "model/adapter_model.safetensors"
    if harm == "missing":
        weights.unlink()
    else:
        (weights if harm == "changed" else weights.with_name("b.safetensors")).write_bytes(b"other")
    session = answering()
    with pytest.raises(RunnerError) as caught:
        deliver(run, session)
    assert (caught.value.exit_code, caught.value.problems[0].code) == (Exit.IO, "delivery/damaged")
    assert not session.opened and not session.asked


def test_the_weights_hash_is_that_of_several_files_in_their_order(run: RunDirectory) -> None:
    (run.path / "model/b.safetensors").write_bytes(b"more")
    assert deliver(run, answering(), weights_sha256=weights_sha256(b"weights", b"more")).checks[0].agrees


def test_a_judge_is_not_asked_again(run: RunDirectory) -> None:
    judge = "eval.judge={endpoint: {base_url: 'http://x/v1', model: m}, rubric: r}"
    (check,) = deliver(run, answering(), "eval.metrics=[judge]", judge).checks
    assert (check.score_evaluated, check.score_delivered, check.agrees) == (None, None, True)
    assert check.unscored and "judge" in check.unscored


def test_a_loss_as_primary_metric_is_compared_on_the_same_rows(run: RunDirectory) -> None:
    losses = {row.prompt[-1].content: i / 10 for i, row in enumerate(make_dataset().test)}
    session = replace(answering(), losses={"tuned": losses})
    (check,) = deliver(run, session, "eval.metrics=[loss]").checks
    assert check.score_evaluated == check.score_delivered == pytest.approx((2.8 + 5.9) / 2), "of the last 32 rows"


def test_answers_are_compared_row_by_row(run: RunDirectory) -> None:
    changed = replace(answering(r40="x", r59="x", r0="x"), reopened={"adapter": answering(r40="x", r58="x", r0="x")})
    (check,) = deliver(run, changed).checks
    assert (check.num_answers, check.same_answers) == (32, 30)
    assert check.score_evaluated == check.score_delivered == pytest.approx(30 / 32)


def test_a_second_delivery_lists_each_file_once(run: RunDirectory) -> None:
    first, second = (deliver(run, answering()) for _ in range(2))
    assert first == second


def test_a_request_to_stop_is_heard_before_a_model_is_loaded(run: RunDirectory) -> None:
    class Stopping(FakeWatch):
        def check(self) -> None:
            raise Interrupted("delivery")

    session = answering()
    with pytest.raises(Interrupted):
        deliver(run, session, watch=Stopping())
    assert not session.opened


def test_the_evaluated_loss_is_taken_before_the_weights_are_let_go_of(run: RunDirectory) -> None:
    order: list[str] = []

    class Ordered(FakeSession):
        def held_out_loss(self, *args: Any) -> HeldOutLoss:
            order.append("loss")
            return super().held_out_loss(*args)

        def merge(self, *args: Any) -> None:
            order.append("merge")
            super().merge(*args)

        def reopen(self, *args: Any) -> Any:
            order.append("reopen")
            return super().reopen(*args)

    deliver(run, Ordered(answers=answering().answers), "delivery.merge=true")
    assert order == ["loss", "merge", "reopen", "loss", "reopen", "loss"]


AGREEING = Check(
    form="adapter",
    num_rows=60,
    loss_evaluated=1.0,
    loss_delivered=1.0,
    num_answers=40,
    same_answers=40,
    score_evaluated=0.5,
    score_delivered=0.5,
    unscored=None,
    agrees=False,
)


@pytest.mark.parametrize(
    ("changes", "agrees"),
    [
        ({}, True),
        ({"loss_delivered": 1.0009}, True),
        ({"loss_delivered": 1.0011}, False),
        ({"loss_delivered": 0.9989}, False),
        ({"form": "full", "loss_delivered": 1.0011}, False),
        ({"form": "merged", "loss_delivered": 1.019}, True),
        ({"form": "merged", "loss_delivered": 1.021}, False),
        ({"loss_evaluated": 0.01, "loss_delivered": 0.0105}, True),
        ({"loss_evaluated": 0.01, "loss_delivered": 0.0115}, False),
        ({"loss_evaluated": 5.0, "loss_delivered": 5.004}, True),
        ({"score_delivered": 0.55}, True),
        ({"score_delivered": 0.45}, True),
        ({"score_delivered": 0.575}, False),
        ({"num_answers": 20, "score_delivered": 0.6}, True),
        ({"num_answers": 20, "score_delivered": 0.65}, False),
        ({"score_evaluated": None, "score_delivered": None}, True),
        ({"score_delivered": None}, False),
        ({"score_delivered": math.nan}, False),
    ],
)
def test_agreement_is_of_the_loss_and_of_the_score(changes: dict[str, Any], agrees: bool) -> None:
    assert _agrees(replace(AGREEING, **changes), margin=0.05) is agrees
