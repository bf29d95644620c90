"""Base beside tuned on the probes and texts, with answers that a test wrote down."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from runner.backends.base import Side
from runner.forgetting import Forgetting, measure_forgetting
from runner.forgetting.probes import load_probes, load_texts
from runner.stats import mean_interval
from tests.fakes import FakeSession, FakeWatch, make_test_plan, read_lines

PROBES = load_probes()
RIGHT = {
    probe.prompt: row["right"]
    for probe, row in zip(PROBES, read_lines(Path(__file__).parent / "answers.jsonl"), strict=True)
}
REQUESTS = [text.prompt[0].content for text in load_texts()]
MUMBLE = "mumble"


def first(num: int) -> dict[str, str]:
    """Right answers to the first probes only; each wrong one opens in its own way."""
    wrong = {probe.prompt: f"{i} {MUMBLE}" for i, probe in enumerate(PROBES, start=10_000)}
    return wrong | dict(list(RIGHT.items())[:num])


def measure(
    folder: Path,
    *,
    base: Mapping[str, str] = RIGHT,
    tuned: Mapping[str, str] = RIGHT,
    losses: Mapping[Side, Mapping[str, float]] | None = None,
    overrides: tuple[str, ...] = (),
) -> Forgetting:
    session = FakeSession(answers={"base": base, "tuned": tuned}, losses=losses or {})
    found = measure_forgetting(make_test_plan(*overrides), session, folder, FakeWatch())
    assert found is not None
    return found


def test_nothing_is_asked_when_the_plan_asks_for_no_measure(tmp_path: Path) -> None:
    session = FakeSession()
    plan = make_test_plan("eval.forgetting.measure=false")
    assert measure_forgetting(plan, session, tmp_path, FakeWatch()) is None
    assert session.samplings == [] and list(tmp_path.iterdir()) == []


def test_base_against_itself_forgets_nothing(tmp_path: Path) -> None:
    found = measure(
        tmp_path, base=first(30), tuned=first(30), overrides=("eval.forgetting={max_drop: 0, max_loss_rise: 0}",)
    )
    assert (found.difference.mean, found.base, found.exceeded) == (0, found.tuned, False)
    assert found.base.mean == pytest.approx(30 / len(PROBES))
    assert found.loss_difference is not None and found.loss_difference.mean == 0
    assert found.findings == ()
    assert found.text.startswith("No loss of general abilities is shown: base passes 46.9 % of 64 probes, tuned 46.9 %")


def test_kinds_add_up_to_the_whole(tmp_path: Path) -> None:
    found = measure(tmp_path, tuned=first(20))
    assert found.num_probes == sum(kind.num for kind in found.kinds.values()) == len(PROBES)
    assert found.tuned.mean == pytest.approx(sum(k.tuned * k.num for k in found.kinds.values()) / found.num_probes)
    assert (found.kinds["instruction"].tuned, found.kinds["fact"].tuned) == (1, 0)
    assert {kind.base for kind in found.kinds.values()} == {1}


@pytest.mark.parametrize(
    ("num_right", "max_drop", "exceeded", "codes"),
    [
        (32, "0.1", True, ["eval/forgot"]),
        (32, "0.45", False, ["eval/forgot-perhaps"]),
        (32, "0.5", False, []),
        (32, "null", False, []),
        (64, "0", False, []),
    ],
)
def test_a_budget_is_broken_by_the_whole_interval_of_the_drop(
    tmp_path: Path, num_right: int, max_drop: str, exceeded: bool, codes: list[str]
) -> None:
    found = measure(tmp_path, tuned=first(num_right), overrides=(f"eval.forgetting.max_drop={max_drop}",))
    assert (found.exceeded, [finding.code for finding in found.findings]) == (exceeded, codes)
    assert [finding.severity for finding in found.findings] == (["error"] if exceeded else ["warning"] * len(codes))
    assert found.max_drop == json.loads(max_drop)


@pytest.mark.parametrize(("num_right", "codes"), [(6, ["eval/nothing-to-forget"]), (7, [])])
def test_a_base_that_passes_too_little_for_the_budget_is_told(tmp_path: Path, num_right: int, codes: list[str]) -> None:
    few = first(num_right)
    found = measure(tmp_path, base=few, tuned=few, overrides=("eval.forgetting.max_drop=0.1",))
    assert [finding.code for finding in found.findings] == codes
    assert measure(tmp_path, base=few, tuned=few).findings == ()


def test_a_rise_is_no_drop(tmp_path: Path) -> None:
    found = measure(tmp_path, base=first(32), overrides=("eval.forgetting.max_drop=0.1",))
    assert (found.difference.mean, found.exceeded, found.findings) == (0.5, False, ())


@pytest.mark.parametrize(
    ("limit", "exceeded", "codes"),
    [("0.2", True, ["eval/forgot"]), ("0.49", False, ["eval/forgot-perhaps"]), ("0.6", False, [])],
)
def test_the_loss_on_general_text_has_a_budget_of_its_own(
    tmp_path: Path, limit: str, exceeded: bool, codes: list[str]
) -> None:
    losses = {request: 1.5 + 0.2 * (i % 3 - 1) for i, request in enumerate(REQUESTS)}
    found = measure(tmp_path, losses={"tuned": losses}, overrides=(f"eval.forgetting.max_loss_rise={limit}",))
    assert found.loss_difference is not None
    assert (found.base_loss, found.tuned_loss) == (1, pytest.approx(1.5))
    assert found.loss_difference.mean == pytest.approx(0.5)
    assert (found.exceeded, [finding.code for finding in found.findings]) == (exceeded, codes)
    assert [finding.where.key for finding in found.findings] == ["eval.forgetting.max_loss_rise"] * len(codes)


def test_a_broken_budget_says_by_how_much(tmp_path: Path) -> None:
    (finding,) = measure(tmp_path, tuned=first(32), overrides=("eval.forgetting.max_drop=0.1",)).findings
    assert finding.what == (
        "The share of general probes passed fell by 50.0 points, more than the 10.0 points allowed; "
        "the whole 95 % interval lies beyond that."
    )
    assert finding.where.key == "eval.forgetting.max_drop"


def test_the_sentence_says_both_measures(tmp_path: Path) -> None:
    found = measure(tmp_path, tuned=first(32), losses={"tuned": dict.fromkeys(REQUESTS, 1.25)})
    assert found.text.startswith("General abilities were lost: base passes 100.0 % of 64 probes, tuned 50.0 % (-50.0")
    assert "the loss on 24 general texts went from 1.000 to 1.250 nats per token (+0.250 nats" in found.text
    assert found.text.endswith(").")


def test_a_drop_that_may_be_chance_is_not_called_a_loss(tmp_path: Path) -> None:
    found = measure(tmp_path, tuned=first(63))
    assert found.difference.mean == pytest.approx(-1 / 64)
    assert found.text.startswith("No loss of general abilities is shown: ")


def test_a_text_without_a_finite_loss_is_left_out_on_both_sides_and_told(tmp_path: Path) -> None:
    found = measure(tmp_path, losses={"base": {REQUESTS[0]: 9.0}, "tuned": {REQUESTS[0]: math.nan}})
    assert (found.num_texts, found.base_loss, found.tuned_loss) == (23, 1, 1)
    (finding,) = found.findings
    assert finding.what == "The loss on 1 of 24 general texts is not a finite number and they are left out."


def test_a_loss_that_could_not_be_taken_leaves_its_budget_unchecked_and_says_so(tmp_path: Path) -> None:
    losses: dict[Side, dict[str, float]] = {"tuned": dict.fromkeys(REQUESTS, math.inf)}
    found = measure(tmp_path, losses=losses, overrides=("eval.forgetting.max_loss_rise=0.1",))
    assert (found.num_texts, found.base_loss, found.tuned_loss, found.loss_difference) == (0, None, None, None)
    (finding,) = found.findings
    assert finding.what.endswith("so eval.forgetting.max_loss_rise is not checked.")
    assert found.text.endswith("; the loss on general text could not be taken.")


@pytest.mark.parametrize("form", ['{"customer": null, "issue": "question"}', "billing", ""])
def test_a_model_that_answers_everything_in_the_trained_form_is_found(tmp_path: Path, form: str) -> None:
    (finding,) = measure(tmp_path, tuned=dict.fromkeys(RIGHT, form)).findings
    assert (finding.code, finding.severity) == ("eval/trained-form", "warning")
    assert f"64 of 64 answers to general probes {'begin with' if form else 'are empty'}" in finding.what


def test_a_form_that_base_has_too_is_not_the_trained_one(tmp_path: Path) -> None:
    same = dict.fromkeys(RIGHT, "Certainly! Here it is.")
    assert measure(tmp_path, base=same, tuned=same).findings == ()


def test_each_probe_is_asked_alone_and_briefly(tmp_path: Path) -> None:
    asked: list[int] = []

    class Listening(FakeSession):
        def complete(self, side, prompts, sampling, watch, tools=()):  # type: ignore[no-untyped-def]
            asked.extend(len(prompt) for prompt in prompts)
            return super().complete(side, prompts, sampling, watch, tools)

    session = Listening()
    measure_forgetting(make_test_plan("eval.batch_size=5"), session, tmp_path, FakeWatch())
    assert asked == [1] * 2 * len(PROBES)
    assert [(s.max_new_tokens, s.batch_size) for s in session.samplings] == [(32, 5)] * 2


def test_every_answer_is_kept_with_whether_it_passed(tmp_path: Path) -> None:
    found = measure(tmp_path / "evaluation", tuned=first(1))
    base, tuned = (read_lines(tmp_path / "evaluation" / f"forgetting-{side}.jsonl") for side in ("base", "tuned"))
    assert [record["id"] for record in base] == [probe.id for probe in PROBES]
    assert sum(record["passed"] for record in tuned) / len(tuned) == found.tuned.mean
    assert tuned[1] == {
        "id": PROBES[1].id,
        "kind": "instruction",
        "prompt": PROBES[1].prompt,
        "output": "10001 mumble",
        "passed": False,
        "seconds": 0.5,
        "tokens": 3,
    }


def test_intervals_are_bounded_paired_and_clustered_by_pair_of_requests(tmp_path: Path) -> None:
    plan = make_test_plan()
    found = measure(tmp_path, base=first(48), tuned=first(32))
    groups = [probe.group for probe in PROBES]
    options = {"groups": groups, "seed": plan.seed, "resamples": plan.eval.resamples}
    base, tuned = ([float(i < num) for i in range(len(PROBES))] for num in (48, 32))
    changes = [t - b for b, t in zip(base, tuned, strict=True)]
    assert found.difference == mean_interval(changes, bounds=(-1, 1), **options)
    assert (found.base, found.tuned) == tuple(mean_interval(side, bounds=(0, 1), **options) for side in (base, tuned))
