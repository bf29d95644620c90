"""The checkpoint store: exact, and no damage, kill or full disk costs more than the newest checkpoint."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from runner.backends.local import committed
from runner.backends.local.checkpoints import MARGIN_BYTES, Checkpoint, Checkpoints
from runner.errors import Exit, RunnerError

JOB = "job-1"
STATE = {"step": 7, "loss": 0.1 + 0.2, "tiny": 5e-324, "curve": [[1, 2.5], [2, None]], "words": "größer \u2028"}
CHECKPOINT_FILES = ("weights.safetensors", "optimizer.safetensors", "state.json", "COMMIT.json")
WEIGHTS_FILES = ("weights.safetensors", "COMMIT.json")


def some_weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "fp32": torch.randn(7, 5, generator=generator),
        "bf16": torch.randn(33, generator=generator).bfloat16(),
        "fp16": torch.randn(3, generator=generator).half(),
        "scalar": torch.tensor(2**62 + seed),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "empty": torch.zeros(0, 4),
    }


def some_parts(seed: int) -> dict[str, dict[str, torch.Tensor]]:
    weights = some_weights(seed)
    return {"weights": weights, "optimizer": {"step": torch.tensor(float(seed)), "exp_avg": weights["fp32"] * 1e-30}}


def save(store: Checkpoints, step: int, needs: str | None = None) -> Path:
    return store.save(step, some_parts(step), {"step": step}, needs=needs)


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[Any, ...]]:
    """What must not change: also the bits of NaN and of minus zero."""
    return {
        name: (t.dtype, tuple(t.shape), t.contiguous().reshape(-1).view(torch.uint8).tolist())
        for name, t in tensors.items()
    }


def assert_whole(found: Checkpoint | None, step: int) -> None:
    assert found is not None and found.step == step and found.state == {"step": step}
    for name, tensors in some_parts(step).items():
        assert bits(found.tensors(name)) == bits(tensors)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1
    path.write_bytes(content)


def shorten(path: Path, keep: Callable[[int], int]) -> None:
    os.truncate(path, keep(path.stat().st_size))


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


def supplant(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: shorten(path, lambda size: 0),
    "halved": lambda path: shorten(path, lambda size: size // 2),
    "without its last byte": lambda path: shorten(path, lambda size: size - 1),
    "longer": lengthen,
    "flipped at the start": lambda path: flip(path, 0),
    "flipped in the middle": lambda path: flip(path, 0.5),
    "flipped at the end": lambda path: flip(path, 1),
    "a folder": supplant,
}


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test outlives a power cut, so none waits for the disk; that and when it is asked to sync is tested apart."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


def test_a_checkpoint_comes_back_bit_for_bit(folder: Path) -> None:
    parts = some_parts(7)
    odd = torch.tensor([float("nan"), -0.0, 5e-324, float("inf")])
    parts["optimizer"]["odd"] = odd
    path = Checkpoints(folder, JOB).save(7, parts, STATE)
    found = Checkpoints(folder, JOB).latest()
    assert found is not None and path == folder / "checkpoint-000007"
    assert found.step == 7 and found.state == STATE and repr(found.state["loss"]) == repr(0.1 + 0.2)
    for name, tensors in parts.items():
        assert bits(found.tensors(name)) == bits(tensors)


def test_an_empty_folder_has_no_checkpoint(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    assert store.latest() is None and store.quarantined == [] and names(folder) == set()


def test_tensors_that_share_memory_or_are_no_plain_blocks_come_back_equal(folder: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "tied": base,
        "twin": base,
        "view": base[1:3],
        "turned": base.t(),
        "column": base[:, 2],
        "parameter": torch.nn.Parameter(base.clone()),
        "wide": torch.ones(1).expand(5),
    }
    Checkpoints(folder, JOB).save(1, {"weights": tensors}, {})
    found = Checkpoints(folder, JOB).latest()
    assert found is not None and bits(found.tensors("weights")) == bits(tensors)


def test_what_was_read_stays_when_its_file_goes_or_changes(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    path = save(store, 3)
    found = store.latest()
    assert found is not None
    tensors = found.tensors("weights")
    file = path / "weights.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    store.clear()
    assert bits(tensors) == bits(some_weights(3))


def test_a_state_that_json_would_change_is_refused_before_anything_is_written(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    for state, error in (({1: 2}, AssertionError), ({"a": (1,)}, AssertionError), ({"a": float("nan")}, ValueError)):
        with pytest.raises(error):
            store.save(1, {}, state)
    assert names(folder) == set()


def test_others_may_read_every_file(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    store.save_weights("best-000001", some_weights(1))
    before = os.umask(0o077)
    try:
        save(store, 1, needs="best-000001")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert len(modes) == 6 and set(modes.values()) == {0o644}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", CHECKPOINT_FILES)
def test_a_damaged_file_costs_only_the_newest_checkpoint(folder: Path, file: str, damage: str) -> None:
    store = Checkpoints(folder, JOB)
    save(store, 20)
    DAMAGES[damage](save(store, 40) / file)
    restarted = Checkpoints(folder, JOB)
    assert_whole(restarted.latest(), 20)
    assert [entry.name for entry in restarted.quarantined] == ["checkpoint-000040"]
    assert file in restarted.quarantined[0].reason
    assert "checkpoint-000040" not in names(folder)
    notes = [json.loads(line) for line in (folder / "quarantine" / "notes.jsonl").read_text().splitlines()]
    assert notes == [{"name": entry.name, "reason": entry.reason} for entry in restarted.quarantined]
    unfinished = file == "COMMIT.json" and damage == "deleted"
    assert (folder / "quarantine" / "checkpoint-000040").exists() is not unfinished
    save(restarted, 40)
    assert_whole(Checkpoints(folder, JOB).latest(), 40)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", WEIGHTS_FILES)
def test_damaged_best_weights_cost_only_the_checkpoints_that_need_them(folder: Path, file: str, damage: str) -> None:
    store = Checkpoints(folder, JOB)
    store.save_weights("best-000020", some_weights(20))
    save(store, 20, needs="best-000020")
    store.save_weights("best-000040", some_weights(40))
    save(store, 40, needs="best-000040")
    DAMAGES[damage](folder / "best-000040" / file)
    restarted = Checkpoints(folder, JOB)
    found = restarted.latest()
    assert_whole(found, 20)
    assert found is not None and found.needs == "best-000020"
    assert [entry.name for entry in restarted.quarantined] == ["best-000040", "checkpoint-000040"]
    assert "best-000040" in restarted.quarantined[1].reason
    assert names(folder) == {"best-000020", "checkpoint-000020", "quarantine"}
    assert restarted.weights("best-000040") is None
    assert bits(restarted.weights("best-000020") or {}) == bits(some_weights(20))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", WEIGHTS_FILES)
def test_damaged_weights_are_not_given_out(folder: Path, file: str, damage: str) -> None:
    store = Checkpoints(folder, JOB)
    store.save_weights("best-000005", some_weights(5))
    DAMAGES[damage](folder / "best-000005" / file)
    assert store.weights("best-000005") is None
    assert [entry.name for entry in store.quarantined] == ["best-000005"] and "best-000005" not in names(folder)
    store.save_weights("best-000005", some_weights(5))
    assert bits(store.weights("best-000005") or {}) == bits(some_weights(5))


def test_missing_weights_are_named(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    assert store.weights("best-000005") is None
    assert [(entry.name, entry.reason) for entry in store.quarantined] == [("best-000005", "it is missing")]


def test_when_every_checkpoint_is_damaged_each_is_named_and_none_is_used(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    for step in (20, 40):
        flip(save(store, step) / "weights.safetensors", 0.5)
    assert store.latest() is None
    assert [entry.name for entry in store.quarantined] == ["checkpoint-000040", "checkpoint-000020"]


def test_the_same_name_can_be_set_aside_again_and_again(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    for _ in range(3):
        flip(save(store, 5) / "state.json", 0)
        assert store.latest() is None
    kept = {"checkpoint-000005", "checkpoint-000005-2", "checkpoint-000005-3", "notes.jsonl"}
    assert names(folder / "quarantine") == kept


def test_a_folder_that_cannot_be_moved_is_still_passed_over_and_named(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    save(store, 20)
    flip(save(store, 40) / "weights.safetensors", 0.5)
    (folder / "quarantine").write_text("in the way")
    assert_whole(store.latest(), 20)
    assert_whole(store.latest(), 20)
    assert len(store.quarantined) == 1 and "cannot be moved" in store.quarantined[0].reason


def test_a_checkpoint_of_another_job_is_never_resumed(folder: Path) -> None:
    theirs = Checkpoints(folder, "job-0")
    theirs.save_weights("best-000060", some_weights(60))
    save(theirs, 60, needs="best-000060")
    mine = Checkpoints(folder, JOB)
    save(mine, 20)
    assert_whole(mine.latest(), 20)
    assert {entry.name for entry in mine.quarantined} == {"best-000060", "checkpoint-000060"}
    assert all("another job (job-0)" in entry.reason for entry in mine.quarantined)


def test_a_copied_checkpoint_does_not_pass_for_another_step(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    shutil.copytree(save(store, 20), folder / "checkpoint-000090")
    assert_whole(store.latest(), 20)
    assert store.quarantined[0].reason == "COMMIT.json is that of checkpoint-000020"


def test_the_newest_checkpoints_and_the_weights_they_need_are_kept(folder: Path) -> None:
    store = Checkpoints(folder, JOB, keep=2)
    seen = []
    for step in (10, 20, 30, 1_000_000):
        if step != 30:
            store.save_weights(f"best-{step:06d}", some_weights(step))
        save(store, step, needs="best-000020" if step == 30 else f"best-{step:06d}")
        seen.append(names(folder))
    assert seen[1] == {"checkpoint-000010", "checkpoint-000020", "best-000010", "best-000020"}
    assert seen[2] == {"checkpoint-000020", "checkpoint-000030", "best-000020"}
    assert seen[3] == {"checkpoint-000030", "checkpoint-1000000", "best-000020", "best-1000000"}
    assert_whole(store.latest(), 1_000_000)


def test_a_newer_checkpoint_that_went_bad_pushes_out_none_that_is_whole(folder: Path) -> None:
    store = Checkpoints(folder, JOB, keep=2)
    save(store, 30)
    flip(save(store, 60) / "weights.safetensors", 0.5)
    flip(save(store, 40) / "weights.safetensors", 0.5)
    assert_whole(store.latest(), 30)


def test_saving_a_step_again_keeps_the_one_that_is_whole(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    before = {path: path.stat().st_ino for path in save(store, 20).iterdir()}
    Checkpoints(folder, JOB).save(20, some_parts(99), {"step": 99})
    assert {path: path.stat().st_ino for path in (folder / "checkpoint-000020").iterdir()} == before
    assert_whole(store.latest(), 20)


def test_saving_a_damaged_step_again_replaces_it(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    flip(save(store, 20) / "optimizer.safetensors", 0.5)
    save(store, 20)
    assert_whole(store.latest(), 20)
    assert [entry.name for entry in store.quarantined] == ["checkpoint-000020"]


def test_a_checkpoint_cannot_need_weights_that_are_not_there_or_not_whole(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    save(store, 20)
    store.save_weights("best-000040", some_weights(40))
    shorten(folder / "best-000040" / "weights.safetensors", lambda size: size - 1)
    with pytest.raises(RunnerError):
        save(store, 40, needs="best-000040")
    store.weights("best-000040")
    with pytest.raises(RunnerError) as caught:
        save(store, 40, needs="best-000040")
    assert caught.value.exit_code == Exit.IO and caught.value.problems[0].code == "train/checkpoint-damaged"
    assert_whole(store.latest(), 20)


def test_a_checkpoint_that_goes_between_proof_and_reading_is_a_problem_with_a_cure(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    path = save(store, 20)
    found = store.latest()
    assert found is not None
    (path / "weights.safetensors").write_bytes(b"abc")
    with pytest.raises(RunnerError) as caught:
        found.tensors("weights")
    assert caught.value.exit_code == Exit.IO and caught.value.problems[0].fix


def test_strange_things_in_the_folder_are_survived_and_nothing_outside_is_touched(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in ("weights.safetensors", "state.json", "COMMIT.json"):
        (outside / file).write_text("{}")
    store = Checkpoints(folder, JOB)
    path = save(store, 20)
    (folder / "checkpoint-000080").symlink_to(outside, target_is_directory=True)
    (folder / "best-000080").symlink_to(outside, target_is_directory=True)
    (folder / "checkpoint-000070").write_text("a file")
    (folder / "checkpoint-000060").mkdir()
    (folder / "checkpoint-000060" / "linked.safetensors").symlink_to(outside / "weights.safetensors")
    (folder / "checkpoint-000050").mkdir()
    (folder / "checkpoint-000050" / "thesis.txt").write_text("somebody's")
    for name in ("checkpoint-xyz", "checkpoint-40", "checkpoint-0000020", "best-model", "notes"):
        (folder / name).mkdir()
    (path / "link").symlink_to(outside, target_is_directory=True)
    assert_whole(store.latest(), 20)
    assert {entry.name for entry in store.quarantined} == {
        *(f"checkpoint-0000{step}" for step in (50, 60, 70, 80)),
        "best-000080",
    }
    assert (folder / "quarantine" / "checkpoint-000050" / "thesis.txt").read_text() == "somebody's"
    (folder / "checkpoint-000090").symlink_to(outside, target_is_directory=True)
    for step in (30, 40, 50):
        save(store, step)
    store.clear()
    assert names(outside) == {"weights.safetensors", "state.json", "COMMIT.json"}
    left = {"checkpoint-xyz", "checkpoint-40", "checkpoint-0000020", "best-model", "notes", "quarantine"}
    assert names(folder) == {*left, "checkpoint-000090"}


def test_a_file_replaced_by_a_link_to_an_equal_one_does_not_count(folder: Path, tmp_path: Path) -> None:
    store = Checkpoints(folder, JOB)
    file = save(store, 20) / "weights.safetensors"
    shutil.move(file, tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert store.latest() is None and "no plain file" in store.quarantined[0].reason


def test_a_link_to_a_whole_checkpoint_elsewhere_does_not_count(folder: Path, tmp_path: Path) -> None:
    store = Checkpoints(folder, JOB)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(save(store, 20), elsewhere)
    (folder / "checkpoint-000020").symlink_to(elsewhere, target_is_directory=True)
    assert store.latest() is None and len(names(elsewhere)) == 4


def test_a_foreign_commit_file_is_damage_and_no_crash(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    texts = ("", "[]", "7", "{}", '{"files": 3}', '{"files": {"a": 1}}', "\xff", "[" * 100_000)
    for text in texts:
        path = save(store, 20)
        (path / "COMMIT.json").write_text(text, encoding="latin-1")
        assert store.latest() is None
    assert {entry.reason for entry in store.quarantined} == {"COMMIT.json is damaged"}


def test_after_training_nothing_is_left_but_the_quarantine(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    flip(save(store, 20) / "state.json", 0)
    assert store.latest() is None
    store.save_weights("best-000040", some_weights(40))
    save(store, 40, needs="best-000040")
    store.clear()
    assert names(folder) == {"quarantine"} and store.latest() is None
    assert names(folder / "quarantine") == {"checkpoint-000020", "notes.jsonl"}


class Spy(NamedTuple):
    owner: Any
    name: str


WRITES = {
    "replace": Spy(os, "replace"),
    "fsync": Spy(os, "fsync"),
    "save_file": Spy(committed, "save_file"),
    "mkdir": Spy(Path, "mkdir"),
    "chmod": Spy(os, "chmod"),
    "unlink": Spy(Path, "unlink"),
    "rmtree": Spy(shutil, "rmtree"),
    "rmdir": Spy(os, "rmdir"),
}


class Killed(KeyboardInterrupt):
    """The process is gone: nothing of ours cleans up after it."""


def kill_at(patch: pytest.MonkeyPatch, spy: Spy, call: int, *, after: bool) -> None:
    """From now on the call of that number (from 1) ends in a kill, before or after it did its work."""
    real, calls = getattr(spy.owner, spy.name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not after:
            raise Killed
        result = real(*args, **kwargs)
        if calls[0] == call:
            raise Killed
        return result

    patch.setattr(spy.owner, spy.name, counted)


def save_with_new_best(store: Checkpoints, step: int) -> None:
    store.save_weights(f"best-{step:06d}", some_weights(step))
    save(store, step, needs=f"best-{step:06d}")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", WRITES)
def test_a_kill_at_any_write_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path, write: str, after: bool) -> None:
    call, killed, found_steps = 0, True, []
    while killed:
        call += 1
        folder = tmp_path / str(call)
        for step in (10, 20):
            save_with_new_best(Checkpoints(folder, JOB), step)
        store, killed = Checkpoints(folder, JOB), False
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, WRITES[write], call, after=after)
            try:
                save_with_new_best(store, 30)
            except Killed:
                killed = True
        restarted = Checkpoints(folder, JOB)
        found = restarted.latest()
        assert found is not None and found.step in (20, 30) and found.needs is not None
        assert_whole(found, found.step)
        assert bits(restarted.weights(found.needs) or {}) == bits(some_weights(found.step))
        unfinished = [path for path in folder.glob("*-0*") if not (path / "COMMIT.json").exists()]
        assert unfinished == []
        save_with_new_best(restarted, 30)
        assert_whole(Checkpoints(folder, JOB).latest(), 30)
        found_steps.append(found.step)
    assert found_steps[-1] == 30 and found_steps == sorted(found_steps)
    assert call > 1, "nothing was ever killed"


def test_a_kill_in_the_middle_of_a_file_leaves_nothing_but_a_note(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Checkpoints(folder, JOB)
    save(store, 20)

    def half(tensors: Any, path: Path) -> None:
        path.with_name(".tmpAb12Cd").write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(committed, "save_file", half)
    with pytest.raises(Killed):
        save(store, 40)
    assert names(folder / "checkpoint-000040") == {".tmpAb12Cd"}
    restarted = Checkpoints(folder, JOB)
    assert_whole(restarted.latest(), 20)
    assert names(folder) == {"checkpoint-000020", "quarantine"} and names(folder / "quarantine") == {"notes.jsonl"}
    assert [entry.name for entry in restarted.quarantined] == ["checkpoint-000040"]


def test_the_commit_is_written_when_all_else_is_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace, rmtree = os.fsync, os.replace, shutil.rmtree

    def synced(handle: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def replaced(source: Path, target: Path) -> None:
        events.append("commit")
        replace(source, target)

    def removed(path: Path, *args: Any, **kwargs: Any) -> None:
        events.append(f"remove {path.name}")
        rmtree(path, *args, **kwargs)

    store = Checkpoints(folder, JOB, keep=1)
    save(store, 10)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(shutil, "rmtree", removed)
    save(store, 20)
    files = ["weights.safetensors", "optimizer.safetensors", "state.json", "checkpoint-000020", ".COMMIT.json.partial"]
    assert events == [*files, "commit", "checkpoint-000020", "checkpoints", "remove checkpoint-000010"]


def refused_save(store: Checkpoints, step: int) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        save(store, step)
    assert caught.value.exit_code == Exit.IO and caught.value.problems[0].code == "train/disk-full"
    assert f"'checkpoint-{step:06d}'" in caught.value.problems[0].what
    return caught.value


def iostream_error(tensors: Any, path: Path) -> None:
    path.write_bytes(b"half")
    raise RuntimeError("basic_ios::clear: iostream error")


def no_space(tensors: Any, path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def too_short(tensors: Any, path: Path) -> None:
    path.write_bytes(b"half")


@pytest.mark.parametrize("fault", [iostream_error, no_space, too_short])
def test_a_write_that_fails_leaves_the_earlier_checkpoint_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any, Path], None]
) -> None:
    store, real = Checkpoints(folder, JOB), committed.save_file
    save(store, 20)

    def second_fails(tensors: Any, path: Path) -> None:
        (fault if path.name == "optimizer.safetensors" else real)(tensors, path)

    monkeypatch.setattr(committed, "save_file", second_fails)
    refused_save(store, 40)
    assert names(folder) == {"checkpoint-000020"}
    assert_whole(store.latest(), 20)
    monkeypatch.undo()
    save(store, 40)
    assert_whole(store.latest(), 40)


def test_a_bug_while_saving_is_no_full_disk_and_leaves_nothing_either(folder: Path) -> None:
    store = Checkpoints(folder, JOB)
    with pytest.raises(KeyError):
        store.save(1, {"weights": {"odd": torch.zeros(3, dtype=torch.complex128)}}, {})  # safetensors knows it not
    assert names(folder) == set()


def pretend_free(patch: pytest.MonkeyPatch, free: Callable[[], int], total: int = 10**12) -> None:
    patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(total, total - free(), free()))  # type: ignore[attr-defined]


def test_too_little_room_is_told_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(folder, JOB)
    save(store, 20)
    size = sum(t.nbytes for part in some_parts(40).values() for t in part.values())
    pretend_free(monkeypatch, lambda: MARGIN_BYTES + size - 1)
    problem = refused_save(store, 40).problems[0]
    assert "it needs 1.0 MB, and 1.0 MB are free" in problem.what and problem.fix and problem.where.path == str(folder)
    assert names(folder) == {"checkpoint-000020"}
    pretend_free(monkeypatch, lambda: MARGIN_BYTES + size)
    save(store, 40)
    assert_whole(store.latest(), 40)


def test_short_of_room_only_the_newest_whole_checkpoint_and_its_weights_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Checkpoints(folder, JOB, keep=5)
    for step in (10, 20, 30):
        save_with_new_best(store, step)
    flip(folder / "checkpoint-000030" / "weights.safetensors", 0.5)
    store.save_weights("best-000040", some_weights(40))
    pretend_free(monkeypatch, lambda: 0 if (folder / "checkpoint-000010").exists() else 10**9)
    save(store, 40, needs="best-000040")
    assert names(folder) == {
        *("checkpoint-000020", "best-000020", "checkpoint-000040", "best-000040"),
        "quarantine",
    }
    assert [entry.name for entry in store.quarantined] == ["checkpoint-000030"]
    assert_whole(store.latest(), 40)


@pytest.mark.parametrize("total", [0, None], ids=["no size", "no answer"])
def test_a_mount_that_cannot_tell_its_room_is_written_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, total: int | None
) -> None:
    def unknown(_: Path) -> Any:
        raise OSError(errno.ENOSYS, "unknown")

    if total is None:
        monkeypatch.setattr(shutil, "disk_usage", unknown)
    else:
        pretend_free(monkeypatch, lambda: 0, total)
    store = Checkpoints(folder, JOB)
    save(store, 20)
    assert_whole(store.latest(), 20)


def test_a_mount_that_can_neither_sync_folders_nor_set_modes_will_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def no_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "folders cannot be synced")
        fsync(handle)

    def no_modes(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "no modes")

    monkeypatch.setattr(os, "fsync", no_folders)
    monkeypatch.setattr(os, "chmod", no_modes)
    store = Checkpoints(folder, JOB)
    save(store, 20)
    assert_whole(store.latest(), 20)


@pytest.mark.parametrize("number", range(1, 7))
def test_a_sync_that_fails_is_a_save_that_failed(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    store, fsync, calls = Checkpoints(folder, JOB), os.fsync, [0]
    save(store, 20)

    def failing(handle: int) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(errno.EIO, "Input/output error")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    refused_save(store, 40)
    assert_whole(store.latest(), 20)
    assert names(folder) == {"checkpoint-000020"}


def test_a_rotation_that_fails_does_not_undo_a_save(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EBUSY, "busy")

    store = Checkpoints(folder, JOB, keep=1)
    save(store, 20)
    monkeypatch.setattr(shutil, "rmtree", refused)
    save(store, 40)
    assert_whole(store.latest(), 40)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 3 MB, where the machine lets us have one."""
    path = tmp_path / "disk"
    path.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)]
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command here: a really full disk was not tried")
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here, so a really full disk was not tried: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("foreseen", [True, False], ids=["foreseen", "while writing"])
@pytest.mark.parametrize("free_pages", [0, 1, 4, 9, 60, 150])
def test_a_really_full_disk_leaves_the_earlier_checkpoint_and_room_cures_it(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, foreseen: bool, free_pages: int
) -> None:
    folder = small_disk / "checkpoints"
    store = Checkpoints(folder, JOB)
    big = {name: {"tensor": torch.randn(90, 1000)} for name in ("weights", "optimizer")}  # 360 kB each
    store.save(20, big, {"step": 20})
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - free_pages * 4096))
    if not foreseen:
        pretend_free(monkeypatch, lambda: 10**9)
    with pytest.raises(RunnerError) as caught:
        store.save(40, big, {"step": 40})
    assert caught.value.exit_code == Exit.IO and caught.value.problems[0].code == "train/disk-full"
    assert names(folder) == {"checkpoint-000020"}
    found = Checkpoints(folder, JOB).latest()
    assert found is not None and found.step == 20
    assert all(bits(found.tensors(name)) == bits(tensors) for name, tensors in big.items())
    filler.unlink()
    store.save(40, big, {"step": 40})
    found = Checkpoints(folder, JOB).latest()
    assert found is not None and found.step == 40
