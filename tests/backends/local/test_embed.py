"""Embeddings of a tiny encoder with random weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from runner.backends.base import Progress
from runner.backends.local.embed import Embedder
from runner.errors import Exit, Interrupted, RunnerError
from tests.fakes import FakeProgress, FakeWatch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = ["a", "the parcel is late", "parcels", "late late late late", "it is on its way, by Friday at the latest", ""]
MAX_TOKENS = 64


def tokenizer(**given: Any) -> PreTrainedTokenizerFast:
    """Every character is a token."""
    alphabet = [*"abcdefghijklmnopqrstuvwxyz,.", "\u2581"]
    core = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*SPECIAL, *alphabet])}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Split("", "isolated")])
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", **given)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=MAX_TOKENS + 2, initializer_range=0.5,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def plain_cosine(folder: Path, one: str, other: str) -> float:
    """One text at a time, without padding."""
    model = AutoModel.from_pretrained(folder).eval()

    def embed(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer()(text)["input_ids"][:MAX_TOKENS]])
        with torch.inference_mode():
            return model(input_ids=ids).last_hidden_state[0].mean(0)

    return torch.nn.functional.cosine_similarity(embed(one), embed(other), dim=0).item()


def test_equal_texts_have_one_and_different_ones_less(encoder: Path) -> None:
    embedder = Embedder(str(encoder))
    assert embedder.similarities(TEXTS, TEXTS, FakeWatch()) == [1.0] * len(TEXTS)
    others = embedder.similarities(TEXTS[:1] * 4, TEXTS[1:5], FakeWatch())
    assert all(0 <= value < 0.999 for value in others)
    assert len(set(others)) == 4


def test_a_similarity_is_the_cosine_of_mean_embeddings(encoder: Path) -> None:
    pairs = [(one, other) for one in TEXTS for other in TEXTS if one != other]
    found = Embedder(str(encoder)).similarities(*zip(*pairs, strict=True), FakeWatch())
    wanted = [plain_cosine(encoder, one, other) for one, other in pairs]
    assert min(wanted) < 0.9
    assert found == pytest.approx([max(value, 0) for value in wanted], abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 30, 100, 10_000])
def test_neither_batches_nor_padding_nor_order_change_a_similarity(encoder: Path, batch_tokens: int) -> None:
    embedder = Embedder(str(encoder), batch_tokens=batch_tokens)
    alone = [Embedder(str(encoder)).similarities([a], [b], FakeWatch())[0] for a, b in pairwise(TEXTS)]
    found = embedder.similarities(TEXTS[:-1], TEXTS[1:], FakeWatch())
    assert found == pytest.approx(alone, abs=1e-5)
    backwards = embedder.similarities(TEXTS[:-1][::-1], TEXTS[1:][::-1], FakeWatch())
    assert backwards[::-1] == pytest.approx(alone, abs=1e-5)
    assert embedder.similarities(TEXTS[1:], TEXTS[:-1], FakeWatch()) == pytest.approx(alone, abs=1e-5)


def test_a_text_longer_than_the_model_reads_is_cut(encoder: Path) -> None:
    embedder = Embedder(str(encoder))
    assert embedder.max_tokens == MAX_TOKENS
    start = "late " * 40
    (value,) = embedder.similarities([start + "a"], [start + "b"], FakeWatch())
    assert value == pytest.approx(1)


def test_the_tokenizers_own_limit_counts_too(encoder: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(encoder).save_pretrained(tmp_path)
    tokenizer(model_max_length=10).save_pretrained(tmp_path)
    embedder = Embedder(str(tmp_path))
    assert embedder.max_tokens == 10
    (value,) = embedder.similarities(["the parcel is late"], ["the parcel is on its way"], FakeWatch())
    assert value == pytest.approx(1)


def test_a_decoder_without_a_padding_token_embeds_too(tmp_path: Path, tiny_tokenizer: Any) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=0.5,
    )  # fmt: skip
    LlamaModel(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    embedder = Embedder(str(tmp_path))
    embedder._tokenizer.pad_token = None
    texts = ["a", "the parcel is late", ""]
    together = embedder.similarities(texts, texts[1:] + texts[:1], FakeWatch())
    alone = [embedder.similarities([a], [b], FakeWatch())[0] for a, b in zip(texts, texts[1:] + texts[:1], strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together[1:] == [0, 0]
    assert embedder.similarities([""], [""], FakeWatch()) == [1]


def test_weights_that_are_not_used_may_be_missing(encoder: Path, tmp_path: Path) -> None:
    BertModel.from_pretrained(encoder, add_pooling_layer=False).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    wanted = Embedder(str(encoder)).similarities(TEXTS[:2], TEXTS[1:3], FakeWatch())
    assert Embedder(str(tmp_path)).similarities(TEXTS[:2], TEXTS[1:3], FakeWatch()) == pytest.approx(wanted)


def test_no_texts_have_no_similarities(encoder: Path) -> None:
    assert Embedder(str(encoder)).similarities([], [], FakeWatch()) == []


def test_each_different_text_is_embedded_once_and_the_person_can_stop(encoder: Path) -> None:
    class Counting(FakeWatch):
        def progress(self, label: str, total: int) -> Progress:
            self.say(f"{label} {total}")
            return FakeProgress()

    watch = Counting()
    Embedder(str(encoder)).similarities(["a", "a", "b"], ["a", "b", "a"], watch)
    assert watch.lines == ["similarity 2"]

    class Stopping(FakeWatch):
        def progress(self, label: str, total: int) -> Progress:
            raise Interrupted(label)

    with pytest.raises(Interrupted):
        Embedder(str(encoder)).similarities(["a"], ["b"], Stopping())


def _spoil(folder: Path, kind: str) -> None:
    if kind == "no weights":
        (folder / "model.safetensors").unlink()
    elif kind == "rubbish weights":
        (folder / "model.safetensors").write_bytes(b"rubbish" * 10)
    elif kind == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif kind == "half the weights":
        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if "layer.1" not in name}
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
    elif kind == "unknown architecture":
        (folder / "config.json").write_text('{"model_type": "brand-new"}')


@pytest.mark.parametrize(
    "kind", ["no weights", "rubbish weights", "no tokenizer", "half the weights", "unknown architecture"]
)
def test_a_model_that_cannot_be_used_is_a_problem(encoder: Path, tmp_path: Path, kind: str) -> None:
    AutoModel.from_pretrained(encoder).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    _spoil(tmp_path, kind)
    with pytest.raises(RunnerError) as caught:
        Embedder(str(tmp_path))
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code) == (Exit.INPUT_MISSING, "eval/embedding")
    assert problem.where.key == "eval.embedding"
    assert str(tmp_path) in problem.what and "\n" not in problem.what


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(RunnerError) as caught:
        Embedder(str(tmp_path / "absent"))
    assert caught.value.exit_code == Exit.INPUT_MISSING


def test_a_hub_without_a_network_is_worth_another_try() -> None:
    with pytest.raises(RunnerError) as caught:
        Embedder("nobody/nothing@0123456789abcdef0123456789abcdef01234567")
    assert caught.value.exit_code == Exit.UNAVAILABLE
