"""The probes and texts themselves: each can be passed, and each can be failed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from runner.forgetting.checks import CHECKS, words
from runner.forgetting.probes import KINDS, Probe, load_probes, load_texts
from tests.fakes import read_lines

ANSWERS = {row["id"]: row for row in read_lines(Path(__file__).parent / "answers.jsonl")}
PROBES = load_probes()


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.id)
def test_each_probe_tells_a_right_answer_from_a_wrong_one(probe: Probe) -> None:
    assert probe.passed(ANSWERS[probe.id]["right"])
    assert not probe.passed(ANSWERS[probe.id]["wrong"])


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.id)
def test_no_probe_is_passed_by_saying_nothing_by_echo_or_by_the_form_of_another_task(probe: Probe) -> None:
    assert not probe.passed("")
    assert not probe.passed('{"customer": "Ann", "order": null, "issue": "question"}')
    if probe.kind != "instruction":  # some of those ask for the prompt's own words
        echo = "json" not in probe.prompt.casefold()
        assert not (echo and probe.passed(probe.prompt))


def test_probes_are_named_once_and_spread_over_all_kinds() -> None:
    assert len({probe.id for probe in PROBES}) == len({probe.prompt for probe in PROBES}) == len(PROBES)
    assert all(probe.id.startswith(f"{probe.kind}/") for probe in PROBES)
    assert set(ANSWERS) == {probe.id for probe in PROBES}
    counts = Counter(probe.kind for probe in PROBES)
    assert set(counts) == set(KINDS) and min(counts.values()) >= 14
    assert {probe.check["type"] for probe in PROBES} == set(CHECKS)


def test_every_harmful_request_has_a_harmless_one_that_looks_like_it() -> None:
    refusals = {probe.id: probe for probe in PROBES if probe.kind == "refusal"}
    harmful = [name.removesuffix("-harmful") for name in refusals if name.endswith("-harmful")]
    assert len(refusals) == 2 * len(harmful)
    for name in harmful:
        bad, good = refusals[f"{name}-harmful"], refusals[f"{name}-harmless"]
        assert (bad.check["type"], good.check["type"]) == ("declines", "not_declines")
        shared = set(words(bad.prompt)) & set(words(good.prompt))
        assert len(shared) >= 3
        assert bad.group == good.group == name
    assert len({probe.group for probe in PROBES}) == len(PROBES) - len(harmful)


def test_general_texts_are_passages_of_like_length_each_after_a_request() -> None:
    texts = load_texts()
    assert len({text.id for text in texts}) == len(texts) == 24
    for text in texts:
        assert [message.role for message in text.messages] == ["user", "assistant"]
        assert 60 <= len(text.expected.split()) <= 120
        assert len(text.prompt[0].content.split()) < 25


def test_some_probes_and_texts_are_in_other_languages() -> None:
    assert {probe.id[-3:] for probe in PROBES} >= {"-fr", "-de", "-es"}
    requests = " ".join(text.prompt[0].content for text in load_texts())
    assert all(word in requests for word in ("Schreibe", "Écris", "Escribe"))
