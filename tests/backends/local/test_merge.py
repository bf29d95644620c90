"""The adapter folded into the base weights: the same model, in a folder that is whole or known not to be."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from runner.backends.base import Form
from runner.backends.local import load, merge
from runner.backends.local.deliver import weights_hash
from runner.backends.local.device import compute_dtype
from runner.delivery import TOLERANCE_NATS
from runner.errors import Exit, Interrupted, RunnerError
from tests.backends.local.test_session import SAMPLING, StoppingWatch, examples, job, open_session, prompts, texts
from tests.fakes import FakeWatch

Usage = namedtuple("Usage", "total used free")


def trained(model: Path, tmp_path: Path, method: str = "lora", **changes: Any) -> Any:
    session = open_session(model, tmp_path, method)
    session.train(job(tmp_path, method, **changes), FakeWatch())
    return session


def loss(session: Any, count: int = 10) -> float:
    return float(session.held_out_loss("tuned", examples(count), FakeWatch()).mean)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"rslora": True, "top_layers": 1}, marks=pytest.mark.slow),
        pytest.param({"dora": True}, marks=pytest.mark.slow),
        pytest.param({"target_modules": ("q_proj", "down_proj")}, marks=pytest.mark.slow),
    ],
)
def test_merged_weights_are_the_model_that_was_trained(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    session = trained(tiny_model, tmp_path, **changes)
    before, answers = loss(session), texts(session, "tuned", examples(6))
    base = float(session.held_out_loss("base", examples(10), FakeWatch()).mean)
    assert abs(before - base) > 0.1, "the adapter must matter for this test to mean something"
    session.merge(tmp_path / "merged", FakeWatch())
    again = session.reopen("merged", tmp_path / "merged")
    assert loss(again) == pytest.approx(before, abs=1e-4)
    assert texts(again, "tuned", examples(6)) == answers


def test_merging_in_bf16_rounds_by_less_than_the_delivery_stage_allows(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (load, merge):
        monkeypatch.setattr(module, "compute_dtype", lambda: torch.bfloat16)
    session = trained(tiny_model, tmp_path)
    before = loss(session)
    session.merge(tmp_path / "merged", FakeWatch())
    assert {value.dtype for value in load_file(tmp_path / "merged/model.safetensors").values()} == {torch.bfloat16}
    assert loss(session.reopen("merged", tmp_path / "merged")) == pytest.approx(before, abs=TOLERANCE_NATS["merged"])
    assert loss(session.reopen("adapter", tmp_path / "model")) == pytest.approx(before, abs=TOLERANCE_NATS["adapter"])


@pytest.mark.slow
def test_an_adapter_on_4_bit_weights_is_merged_into_the_values_that_they_stand_for(
    tiny_model: Path, tmp_path: Path
) -> None:
    session = trained(tiny_model, tmp_path, "qlora")
    before = loss(session)
    session.merge(tmp_path / "merged", FakeWatch())
    assert loss(session.reopen("merged", tmp_path / "merged")) == pytest.approx(before, abs=1e-3)
    assert loss(session.reopen("adapter", tmp_path / "model")) == pytest.approx(before, abs=1e-5)
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert "quantization_config" not in config
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert {p.dtype for p in plain.parameters()} == {compute_dtype()}
    assert load_file(tmp_path / "merged/model.safetensors").keys() == load_file(tiny_model / "model.safetensors").keys()


def test_a_merged_model_needs_nothing_but_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    session = trained(base, tmp_path)
    expected = texts(session, "tuned", examples(4))
    session.merge(tmp_path / "merged", FakeWatch())
    shutil.rmtree(base)
    moved = (tmp_path / "merged").rename(tmp_path / "elsewhere")
    model = AutoModelForCausalLM.from_pretrained(moved, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(moved)
    assert tokenizer.chat_template == session.tokenizer.chat_template
    assert set(model.generation_config.eos_token_id) == session.stop_ids
    for row, answer in zip(examples(4), expected, strict=True):
        turns = [{"role": m.role, "content": m.content} for m in row.prompt]
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**asked, do_sample=False, max_new_tokens=SAMPLING.max_new_tokens)
        said = out[0][asked["input_ids"].shape[1] :]
        assert tokenizer.decode(said, skip_special_tokens=True) == answer
    assert {path.stat().st_mode & 0o777 for path in moved.iterdir()} == {0o644}
    assert not any(str(tmp_path) in path.read_text() for path in moved.glob("*.json")), "no path of this machine"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_is_opened_again_comes_from_the_files_alone(tiny_model: Path, tmp_path: Path, method: str) -> None:
    session = trained(tiny_model, tmp_path, method)
    form: Form = "full" if method == "full" else "adapter"
    before, expected = loss(session), texts(session, "tuned", examples(4))
    (tmp_path / "cache/answers").rename(tmp_path / "gone")
    again = session.reopen(form, tmp_path / "model")
    assert session._model is None, "one copy of the weights at a time"
    assert loss(again) == pytest.approx(before, abs=1e-6)
    assert texts(again, "tuned", examples(4)) == expected
    weights = next((tmp_path / "model").glob("*.safetensors"))
    save_file({k: v * 1.5 for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    assert abs(loss(session.reopen(form, tmp_path / "model")) - before) > 0.01


def test_the_tokenizer_is_the_delivered_one(tiny_model: Path, tmp_path: Path) -> None:
    session = trained(tiny_model, tmp_path)
    before = loss(session)
    template = tmp_path / "model/chat_template.jinja"
    template.write_text("<|im_start|>system\nSay nothing of the kind to anybody.<|im_end|>\n" + template.read_text())
    assert abs(loss(session.reopen("adapter", tmp_path / "model")) - before) > 1e-3
    (tmp_path / "model/tokenizer.json").write_text("{")
    with pytest.raises(RunnerError) as caught:
        session.reopen("adapter", tmp_path / "model")
    assert caught.value.problems[0].code == "delivery/tokenizer"


def test_a_full_tune_says_where_an_answer_ends(tiny_model: Path, tmp_path: Path) -> None:
    session = trained(tiny_model, tmp_path, "full")
    settings = json.loads((tmp_path / "model/generation_config.json").read_text())
    ends = settings["eos_token_id"]
    assert set(ends if isinstance(ends, list) else [ends]) == session.stop_ids
    assert not settings.get("do_sample")


def test_answering_anew_is_answering_the_same_first_batches_and_nothing_kept(tiny_model: Path, tmp_path: Path) -> None:
    session = trained(tiny_model, tmp_path)
    rows = examples(11)
    kept = session.complete("tuned", prompts(rows), SAMPLING, FakeWatch())
    new = session.answer_anew("tuned", prompts(rows), 4, SAMPLING, FakeWatch())
    assert len(new) == 6, "two batches of three"
    assert {i: answer.text for i, answer in new.items()} == {i: kept[i].text for i in new}
    assert all(new[i].seconds != kept[i].seconds for i in new), "given anew"
    longest = max(new[i].prompt_tokens for i in new)
    assert all(kept[i].prompt_tokens >= longest for i in range(11) if i not in new)
    assert len(session.answer_anew("tuned", prompts(rows), 99, SAMPLING, FakeWatch())) == 11


@pytest.fixture(scope="module")
def one_merged(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("merged")
    session = trained(tiny_model, folder)
    session.merge(folder / "merged", FakeWatch())
    return session, folder


def test_a_merged_model_is_not_merged_again(one_merged: tuple[Any, Path]) -> None:
    session, folder = one_merged
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "merged").iterdir()}
    (folder / "merged/README.md").write_text("the card")
    watch = FakeWatch()
    session.merge(folder / "merged", watch)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "merged").iterdir()}.items() >= before.items()
    assert any("earlier attempt" in line for line in watch.lines)


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip", "note", "adapter"])
def test_a_merged_model_that_is_not_as_it_was_written_is_noticed(
    one_merged: tuple[Any, Path], tmp_path: Path, harm: str
) -> None:
    _, source = one_merged
    folder = tmp_path / "merged"
    shutil.copytree(source / "merged", folder)
    adapter = weights_hash(source / "model")
    assert merge.is_merged(folder, adapter)
    weights = folder / "model.safetensors"
    if harm == "delete":
        (folder / "tokenizer.json").unlink()
    elif harm == "truncate":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif harm == "flip":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    elif harm == "note":
        (folder / merge.NOTE).write_text('{"adapter": 1')
    assert not merge.is_merged(folder, "another" if harm == "adapter" else adapter)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_request_to_stop_leaves_nothing_that_counts_and_can_be_taken_up(
    one_merged: tuple[Any, Path], tmp_path: Path, at: int
) -> None:
    session, source = one_merged
    with pytest.raises(Interrupted):
        session.merge(tmp_path / "merged", StoppingWatch(at))
    assert not merge.is_merged(tmp_path / "merged", weights_hash(source / "model"))
    session.merge(tmp_path / "merged", FakeWatch())
    found, expected = (load_file(folder / "merged/model.safetensors") for folder in (tmp_path, source))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_no_room_is_said_before_anything_is_written(
    one_merged: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = one_merged
    monkeypatch.setattr(merge.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 64_000_000))
    with pytest.raises(RunnerError) as caught:
        session.merge(tmp_path / "merged", FakeWatch())
    assert (caught.value.exit_code, caught.value.problems[0].code) == (Exit.IO, "delivery/no-room")
    assert not (tmp_path / "merged").exists()


def test_a_disk_that_fills_up_while_writing_is_no_bug_of_ours(
    one_merged: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = one_merged

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(RunnerError) as caught:
        session.merge(tmp_path / "merged", FakeWatch())
    assert (caught.value.exit_code, caught.value.problems[0].code) == (Exit.IO, "delivery/no-room")
    assert "No space left" in caught.value.problems[0].what


def test_the_card_that_comes_later_does_not_make_the_trained_files_others(tiny_model: Path, tmp_path: Path) -> None:
    session = trained(tiny_model, tmp_path, max_steps=1)
    assert not (tmp_path / "model/README.md").exists(), "PEFT's empty form is no card"
    (tmp_path / "model/README.md").write_text("the card")
    watch = FakeWatch()
    session.train(job(tmp_path, max_steps=1), watch)
    assert any("earlier attempt" in line for line in watch.lines)
    assert (tmp_path / "model/README.md").read_text() == "the card"
