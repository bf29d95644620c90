"""Training that can stop at any moment and go on as if it had not; what its length and its batches mean; what it says
of its own curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.backends.base import CheckpointPlan, CurvePoint, TrainedModel, TrainJob
from runner.backends.local import loop
from runner.backends.local.checkpoints import Checkpoints, Quarantined
from runner.backends.local.deliver import weights_hash
from runner.backends.local.findings import resumed, training_findings
from runner.errors import Exit, Interrupted, RunnerError
from tests.backends.local.test_session import StoppingWatch, job, open_session
from tests.fakes import FakeWatch

NOISY = {"dropout": 0.1, "neftune_alpha": 5.0}  # every step draws random numbers
EVERY_STEP = CheckpointPlan(every_steps=1, keep=3)


class CountingWatch(FakeWatch):
    """Counts the looks at whether to stop, and keeps the curves."""

    def __init__(self) -> None:
        super().__init__()
        self.checks = 0
        self.logged: list[tuple[int, str, float]] = []

    def check(self) -> None:
        self.checks += 1

    def log(self, values: Any, step: int) -> None:
        self.logged += [(step, name, value) for name, value in values.items()]


@pytest.fixture
def train(tiny_model: Path, tmp_path: Path) -> Callable[..., TrainedModel]:
    """Trains in a folder of the test, in a session of its own, as a new process would."""

    def trained(name: str = "run", watch: FakeWatch | None = None, **changes: Any) -> TrainedModel:
        made = make_job(tmp_path / name, **changes)
        return open_session(tiny_model, tmp_path, made.method).train(made, watch or FakeWatch())

    return trained


def make_job(folder: Path, **changes: Any) -> TrainJob:
    of_job = {key: changes.pop(key) for key in ("checkpoint", "seed", "train", "dev", "processes") if key in changes}
    return replace(job(folder, **changes), **of_job)


def dev_losses(trained: TrainedModel) -> dict[int, float]:
    return {point.step: point.dev_loss for point in trained.curve if point.dev_loss is not None}


def train_losses(trained: TrainedModel) -> list[float]:
    return [point.loss for point in trained.curve if point.loss is not None]


def stop_at(run: Callable[..., TrainedModel], check: int, **changes: Any) -> None:
    with pytest.raises(Interrupted):
        run(watch=StoppingWatch(check), **changes)


class StoppingAfter(FakeWatch):
    """Asks to stop once so many steps are done."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step
        self._asked = False

    def log(self, values: Any, step: int) -> None:
        self._asked = self._asked or ("train/loss" in values and step >= self._step)

    def check(self) -> None:
        if self._asked:
            raise Interrupted("test")


def stop_after(run: Callable[..., TrainedModel], step: int, **changes: Any) -> None:
    with pytest.raises(Interrupted):
        run(watch=StoppingAfter(step), **changes)


CHECKS = [1, 2, 8, 13, pytest.param(None, marks=pytest.mark.slow)]


@pytest.mark.parametrize("check", CHECKS)
def test_an_interruption_at_any_check_changes_nothing(train: Callable[..., TrainedModel], check: int | None) -> None:
    watch = CountingWatch()
    whole = train("whole", watch, **NOISY)
    assert watch.checks >= 10 + 6, "one for each micro-batch and each look"
    for at in [check] if check else range(1, watch.checks + 1):
        stop_at(train, at, name=f"stopped-{at}", **NOISY)
        again = CountingWatch()
        went_on = train(f"stopped-{at}", again, **NOISY)
        assert len(went_on.resumed_from) == 1
        assert went_on.weights_sha256 == whole.weights_sha256
        assert went_on.curve == whole.curve
        assert sorted(again.logged) == sorted(watch.logged), "the tracker of the second attempt has the whole curve"
        assert "train/resumed" in {finding.code for finding in went_on.findings}


def test_every_step_draws_its_own_random_numbers(
    train: Callable[..., TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[list[int]] = [[], []]
    seed_torch = torch.manual_seed
    for seed, noted in zip((3, 4), seeds, strict=True):

        def note(value: int, noted: list[int] = noted) -> Any:
            noted.append(value)
            return seed_torch(value)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "manual_seed", note)
            train(str(seed), seed=seed, max_steps=4)
    of_steps = [noted[-4:] for noted in seeds]
    assert len({*of_steps[0], *of_steps[1]}) == 8


def test_dropout_and_noise_are_used_at_all(train: Callable[..., TrainedModel]) -> None:
    hashes = {train(name, max_steps=3, **NOISY | {name: 0.0}).weights_sha256 for name in NOISY}
    assert len({*hashes, train("both", max_steps=3, **NOISY).weights_sha256}) == 3


def test_an_interruption_at_every_step_changes_nothing(train: Callable[..., TrainedModel]) -> None:
    whole = train("whole", max_steps=4)
    attempts = 0
    while True:
        attempts += 1
        try:
            done = train("run", StoppingWatch(3), max_steps=4)
            break
        except Interrupted:
            assert attempts < 12
    assert attempts > 3
    assert done.weights_sha256 == whole.weights_sha256
    assert len(done.resumed_from) == attempts - 1


def test_the_time_of_all_attempts_counts(train: Callable[..., TrainedModel], monkeypatch: Any) -> None:
    clock = iter(range(1_000_000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    whole = train("whole").train_seconds
    stop_after(train, 5)
    assert train().train_seconds == pytest.approx(whole, rel=0.3)


def test_checkpoints_come_after_as_many_steps_as_asked_for(
    train: Callable[..., TrainedModel], monkeypatch: Any
) -> None:
    steps, keeps = [], set()
    save = Checkpoints.save

    def noted(self: Checkpoints, step: int, *given: Any, **options: Any) -> Any:
        steps.append(step)
        keeps.add(self._keep)
        return save(self, step, *given, **options)

    monkeypatch.setattr(Checkpoints, "save", noted)
    train("a", checkpoint=CheckpointPlan(every_steps=3, keep=5))
    assert (steps, keeps) == ([3, 6, 9], {5})
    steps.clear()
    train("b")
    assert steps == [], "a short training is not worth a checkpoint that only time asks for"


def damage(tmp_path: Path, step: int) -> None:
    path = tmp_path / "run" / "train" / "checkpoints" / f"checkpoint-{step:06d}" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_from_a_damaged_checkpoint_it_goes_back_to_the_one_before(
    train: Callable[..., TrainedModel], tmp_path: Path
) -> None:
    whole = train("whole", **NOISY)
    stop_after(train, 6, checkpoint=EVERY_STEP, **NOISY)
    damage(tmp_path, 6)
    went_on = train(**NOISY)
    assert went_on.resumed_from == (5,)
    assert (went_on.weights_sha256, went_on.curve) == (whole.weights_sha256, whole.curve)
    [found] = [finding for finding in went_on.findings if finding.code == "train/checkpoint-damaged"]
    assert found.severity == "warning" and "checkpoint-000006" in found.what


def test_where_no_checkpoint_is_whole_it_starts_again(train: Callable[..., TrainedModel], tmp_path: Path) -> None:
    whole = train("whole")
    stop_after(train, 6, checkpoint=EVERY_STEP)
    for step in (4, 5, 6):
        damage(tmp_path, step)
    went_on = train()
    assert went_on.resumed_from == ()
    assert went_on.weights_sha256 == whole.weights_sha256
    assert sum(finding.code == "train/checkpoint-damaged" for finding in went_on.findings) == 3


def test_a_finished_training_is_not_done_again(train: Callable[..., TrainedModel]) -> None:
    first = train(**NOISY)
    watch = FakeWatch()
    assert train(watch=watch, **NOISY) == first
    assert watch.lines == ["Trained by an earlier attempt; its files are as they were."]


@pytest.mark.parametrize("fault", ["changed", "missing", "other size"])
def test_a_model_whose_files_are_not_as_they_were_is_trained_again(
    train: Callable[..., TrainedModel], tmp_path: Path, fault: str
) -> None:
    first = train()
    path = tmp_path / "run" / "model" / "adapter_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if fault == "changed" else b""))
    if fault == "missing":
        path.unlink()
    watch = FakeWatch()
    again = train(watch=watch)
    assert watch.lines == [], "the outcome of the first attempt is not believed"
    assert weights_hash(tmp_path / "run" / "model") == again.weights_sha256 == first.weights_sha256


@pytest.mark.parametrize("change", [{"seed": 4}, {"learning_rate": 3e-3}, {"rank": 2}])
def test_what_is_trained_otherwise_does_not_go_on_from_there(
    train: Callable[..., TrainedModel], change: dict[str, Any]
) -> None:
    stop_after(train, 5)
    other = train(**change)
    assert other.resumed_from == ()
    assert other.weights_sha256 == train("fresh", **change).weights_sha256


def test_other_rows_are_another_job(train: Callable[..., TrainedModel], tmp_path: Path) -> None:
    stop_after(train, 5)
    rows = job(tmp_path).train
    other = train(train=[*rows[1:], rows[0]])
    assert other.resumed_from == ()


def overfitting(tmp_path: Path) -> dict[str, Any]:
    """Train rows that all say one thing and dev rows that say another: the dev loss falls until step 12, then rises."""
    rows = job(tmp_path).train
    options = {"learning_rate": 3e-3, "schedule": "constant_with_warmup", "batch_size": 2, "epochs": 12}
    return {"method": "full", "train": rows[0:8:2], "dev": rows[1:8:2], "eval_steps": 4, **options}


def test_the_best_weights_are_used_where_later_ones_are_worse(tiny_model: Path, tmp_path: Path) -> None:
    made = make_job(tmp_path / "run", **overfitting(tmp_path))
    session: Any = open_session(tiny_model, tmp_path, "full")
    trained = session.train(made, FakeWatch())
    losses = dev_losses(trained)
    assert list(losses) == [0, 4, 8, 12, 16, 20, 24]
    assert trained.best_step == 12 == min(losses, key=losses.__getitem__)
    assert trained.num_steps == 24 and not trained.stopped_early
    assert trained.dev_loss == losses[12]
    assert session.held_out_loss("tuned", made.dev, FakeWatch()).mean == pytest.approx(losses[12], abs=1e-5)
    delivered = open_session(tmp_path / "run" / "model", tmp_path, "full")
    assert delivered.held_out_loss("base", made.dev, FakeWatch()).mean == pytest.approx(losses[12], abs=1e-5)
    assert [finding.code for finding in trained.findings] == ["train/overfit"]


@pytest.mark.parametrize(("patience", "last"), [(1, 16), (2, 20)])
def test_training_stops_once_the_dev_loss_has_not_fallen_for_a_while(
    train: Callable[..., TrainedModel], tmp_path: Path, patience: int, last: int
) -> None:
    stopped = train(**overfitting(tmp_path), early_stopping_patience=patience)
    assert (stopped.num_steps, stopped.stopped_early, stopped.best_step) == (last, True, 12)
    assert list(dev_losses(stopped)) == list(range(0, last + 1, 4))
    assert stopped.epochs == last / 2
    assert "train/stopped-early" in {finding.code for finding in stopped.findings}


@pytest.mark.parametrize("step", [14, 18])
def test_the_best_weights_and_patience_survive_an_interruption(
    train: Callable[..., TrainedModel], tmp_path: Path, step: int
) -> None:
    options = overfitting(tmp_path) | {"early_stopping_patience": 2}
    whole = train("whole", **options)
    stop_after(train, step, **options)
    went_on = train(**options)
    assert went_on.resumed_from == (step,)
    assert (went_on.num_steps, went_on.best_step) == (20, 12)
    assert (went_on.weights_sha256, went_on.curve) == (whole.weights_sha256, whole.curve)


def test_without_its_best_weights_a_checkpoint_is_not_gone_on_from(
    train: Callable[..., TrainedModel], tmp_path: Path
) -> None:
    options = overfitting(tmp_path)
    whole = train("whole", **options)
    stop_after(train, 14, checkpoint=CheckpointPlan(every_steps=5, keep=4), **options)
    [best] = (tmp_path / "run" / "train" / "checkpoints").glob("best-*12/weights.safetensors")
    best.write_bytes(best.read_bytes()[:-1])
    went_on = train(**options)
    assert went_on.resumed_from == (10,)
    assert (went_on.weights_sha256, went_on.curve) == (whole.weights_sha256, whole.curve)


def test_max_steps_and_epochs_set_the_length(train: Callable[..., TrainedModel]) -> None:
    short = train("a", max_steps=3)
    assert (short.num_steps, short.epochs) == (3, pytest.approx(0.6))
    assert train("b", epochs=1).num_steps == 5


def test_the_tokens_that_were_trained_are_counted(train: Callable[..., TrainedModel]) -> None:
    one, two = train("a", epochs=1), train("b", epochs=2)
    assert two.train_tokens == 2 * one.train_tokens
    assert 0 < one.labelled_tokens < one.train_tokens
    assert two.labelled_tokens == 2 * one.labelled_tokens


def test_a_batch_can_be_set_in_tokens(train: Callable[..., TrainedModel]) -> None:
    in_rows = train("a", epochs=1, batch_size=5)
    in_tokens = train("b", epochs=1, batch_tokens=in_rows.train_tokens // 4 + 1)
    assert in_rows.num_steps == in_tokens.num_steps == 4
    assert in_rows.train_tokens == in_tokens.train_tokens


def test_packing_changes_nothing_but_the_speed(train: Callable[..., TrainedModel]) -> None:
    packed, single = train("a"), train("b", packing=False)
    assert train_losses(single) == pytest.approx(train_losses(packed), abs=1e-4)
    assert list(dev_losses(single).values()) == pytest.approx(list(dev_losses(packed).values()), abs=1e-4)


def test_the_dev_rows_are_looked_at_as_often_as_asked_for(train: Callable[..., TrainedModel]) -> None:
    assert list(dev_losses(train("a", eval_steps=4))) == [0, 4, 8, 10]
    assert list(dev_losses(train("b"))) == [0, 2, 4, 6, 8, 10]


def test_a_loss_that_is_no_number_ends_training_with_advice(train: Callable[..., TrainedModel]) -> None:
    with pytest.raises(RunnerError) as caught:
        train(learning_rate=1e30, max_grad_norm=1e30)
    assert caught.value.exit_code == Exit.MANIFEST
    assert caught.value.problems[0].code == "train/diverged"
    assert "learning_rate" in caught.value.problems[0].fix


@pytest.mark.parametrize(
    "options",
    [
        {"rslora": True},
        {"dora": True},
        {"top_layers": 1},
        {"method": "full", "learning_rate": 3e-3},
        {"method": "full", "learning_rate": 3e-3, "top_layers": 1},
        pytest.param({"method": "qlora"}, marks=pytest.mark.slow),
        pytest.param({"method": "qlora", "dora": True}, marks=pytest.mark.slow),
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_every_kind_of_training_lowers_the_loss_and_can_be_interrupted(
    train: Callable[..., TrainedModel], options: dict[str, Any]
) -> None:
    whole = train("whole", **options)
    looks = dev_losses(whole)
    assert looks[whole.best_step] < looks[0] - 0.05
    stop_after(train, 4, **options)
    went_on = train(**options)
    assert went_on.resumed_from == (4,)
    assert went_on.weights_sha256 == whole.weights_sha256


def test_the_switches_change_what_is_trained(train: Callable[..., TrainedModel]) -> None:
    plain, scaled, dora, top = (
        train(name, **change)
        for name, change in (("a", {}), ("b", {"rslora": True}), ("c", {"dora": True}), ("d", {"top_layers": 1}))
    )
    assert dora.trainable_parameters > plain.trainable_parameters == 2 * top.trainable_parameters
    assert plain.weights_sha256 != scaled.weights_sha256


def curve(dev: dict[int, float], train_loss: Callable[[int], float] = lambda step: 2 - step / 100) -> list[CurvePoint]:
    points = [CurvePoint(step=step, loss=train_loss(step), learning_rate=1e-4) for step in range(1, max(dev) + 1)]
    return [*points, *(CurvePoint(step=step, dev_loss=loss) for step, loss in dev.items())]


def codes(dev: dict[int, float], best: int, *, stopped: bool = False, **options: Any) -> set[str]:
    found = training_findings(curve(dev, **options), best_step=best, stopped_early=stopped, num_steps=100)
    return {finding.code for finding in found}


def test_a_dev_loss_that_rises_while_the_train_loss_falls_is_overfitting() -> None:
    rising = {0: 3.0, 10: 2.0, 20: 2.2}
    assert codes(rising, 10) == {"train/overfit"}
    assert codes(rising, 10, train_loss=lambda step: 2 + step / 100) == set(), "both got worse: that is no overfitting"
    assert codes({0: 3.0, 10: 2.0, 20: 2.03}, 10) == set(), "within the noise"
    assert codes({0: 3.0, 10: 2.0, 20: 2.05}, 10) == {"train/overfit"}


def test_training_that_never_helped_the_dev_rows_is_said() -> None:
    assert codes({0: 2.0, 10: 2.1, 20: 2.2}, 10) == {"train/no-better"}
    assert codes({0: 2.0, 10: 2.0}, 10) == {"train/no-better"}
    assert codes({0: 2.0, 10: 1.99, 20: 1.98}, 20) == set()


def test_stopping_early_and_falling_still_are_notes_that_exclude_each_other() -> None:
    assert codes({0: 3.0, 10: 2.5, 20: 2.0}, 20) == {"train/still-falling"}
    assert codes({0: 3.0, 10: 2.01, 20: 2.0}, 20) == set()
    assert codes({0: 3.0, 10: 2.0, 20: 2.01}, 10, stopped=True) == {"train/stopped-early"}
    assert codes({0: 3.0, 10: 2.0}, 10) == set(), "one look says nothing of a trend"


def test_interruptions_are_a_note_and_damage_a_warning() -> None:
    assert list(resumed([], [])) == []
    note, warning = resumed([1000, 2000], [Quarantined(name="checkpoint-000003", reason="its sha256 differs")])
    assert (note.severity, warning.severity) == ("note", "warning")
    assert "1,000, 2,000" in note.what
    assert "checkpoint-000003" in warning.what and "its sha256 differs" in warning.what


def test_weights_kept_in_float32_are_the_ones_computed_with_in_bf16(
    train: Callable[..., TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autocast keeps bf16 copies of weights unless told not to, and would go on with those of the first step."""
    full = {"method": "full", "learning_rate": 3e-3, "epochs": 4}
    exact = train_losses(train("exact", **full))
    monkeypatch.setattr(loop, "compute_dtype", lambda: torch.bfloat16)
    lower = train_losses(train("lower", **full))
    assert exact[-1] < exact[0] - 0.5
    assert lower == pytest.approx(exact, abs=0.1)


def test_another_number_of_threads_after_an_interruption_is_said(train: Callable[..., TrainedModel]) -> None:
    threads = torch.get_num_threads()
    stop_after(train, 5, name="moved")
    torch.set_num_threads(threads + 1)
    try:
        moved = train("moved")
    finally:
        torch.set_num_threads(threads)
    (finding,) = [finding for finding in moved.findings if finding.code == "train/other-computer"]
    assert f"{threads} threads" in finding.what and f"{threads + 1} threads" in finding.what
    stop_after(train, 5, name="stayed")
    assert "train/other-computer" not in {finding.code for finding in train("stayed").findings}
