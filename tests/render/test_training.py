"""How training went, at a glance and in figures, and its memory as a bar."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.render import render_html
from runner.render.training import LATER, glance, memory_bar, processes
from tests.render.pages import Report, assert_sound, problem, section, words

BYTES = st.integers(0, 10**12)


def told(report: Report, **changes: Any) -> str:
    """What a reader sees of the section on training."""
    page = render_html(report | {"training": report["training"] | changes})
    assert_sound(page)
    return words(section(page, "training"))


def memory(report: Report, **changes: Any) -> str:
    return told(report, memory=report["training"]["memory"] | changes)


def test_a_training_that_ran_through_and_helped_says_only_that(report: Report) -> None:
    report["training"] |= {"resumed_from": [], "findings": []}
    assert list(glance(report["training"])) == [("✓ dev loss fell from 2.187 to 0.250", "good")]


def test_a_training_that_did_all_at_once_says_all_of_it(classes: Report) -> None:
    assert list(glance(classes["training"])) == [
        ("✓ dev loss fell from 2.941 to 0.410", "good"),
        ("best step kept: 80 of 160", "good"),
        ("stopped early, at step 160", "calm"),
        ("interrupted twice, and went on where it was", "calm"),
        ("1 damaged checkpoint set aside, nothing lost but time", "calm"),
    ]
    text = told(classes)
    assert "stopped early, at step 160" in text
    assert "Training ended at step 160, because the dev loss had stopped falling." in text
    assert "lowest dev loss: step 80 is used" in text and "Weights used those of step 80 Epochs 2.67" in text


def test_a_dev_loss_that_did_not_fall_is_a_warning(report: Report) -> None:
    (first, *_) = glance(report["training"] | {"dev_loss": 2.1873})
    assert first == ("✗ dev loss did not fall: it went from 2.187 to 2.187", "warn")


@pytest.mark.parametrize(
    ("steps", "word"),
    [([3], "interrupted once,"), ([3, 3], "interrupted twice,"), ([1] * 1200, "interrupted 1,200 times,")],
)
def test_interruptions_are_counted_and_told_kindly(report: Report, steps: list[int], word: str) -> None:
    assert f"{word} and went on where it was" in told(report, resumed_from=steps)


def test_damaged_checkpoints_are_counted_and_named_below(report: Report) -> None:
    damaged = [problem(f"'step-{i}' was set aside.", code="train/checkpoint-damaged") for i in (1, 2)]
    text = told(report, findings=damaged)
    assert "2 damaged checkpoints set aside" in text and "'step-2' was set aside." in text


@pytest.mark.parametrize(
    ("number", "strategy", "text"),
    [
        (1, "alone", "1"),
        (2, "replicated", "2, each with the whole model"),
        (1024, "sharded", "1,024, each with a part of the model"),
    ],
)
def test_processes_say_what_each_had_of_the_model(report: Report, number: int, strategy: str, text: str) -> None:
    training = report["training"] | {"num_processes": number, "strategy": strategy}
    assert processes(training) == text
    shown = told(report, num_processes=number, strategy=strategy)
    assert f"Processes {text} " in shown
    assert ("Memory of the first process" in shown) is (number > 1)


@given(BYTES, BYTES, BYTES)
def test_the_bar_has_all_three_on_one_scale(available: int, peak: int, estimate: int) -> None:
    bar = memory_bar({"available_bytes": available, "peak_bytes": peak, "estimate_bytes": estimate})
    drawn, full = (bar.available, bar.peak, bar.estimate), max(available, peak, estimate)
    assert drawn == pytest.approx([100 * n / (full or 1) for n in (available, peak, estimate)], abs=0.006)
    assert bar.free_bytes == available - peak
    assert bar.error == (pytest.approx((estimate - peak) / peak) if peak else None)


def test_the_page_draws_the_bar_that_was_computed(classes: Report) -> None:
    part, bar = section(render_html(classes), "training"), memory_bar(classes["training"]["memory"])
    (svg,) = re.findall(r'<svg class="plot memory".*?</svg>', part, flags=re.DOTALL)
    widths = {kind: float(width) for kind, width in re.findall(r'class="(room|peak)".*? width="([\d.]+)%"', svg)}
    assert widths == {"room": 100.0, "peak": bar.peak}
    assert re.findall(r'class="mark estimate" x1="([\d.]+)%"', svg) == [str(bar.estimate)]
    assert 'aria-label="Memory: peak 22.4 GiB, estimate 21.6 GiB, available 78.5 GiB"' in svg


def test_memory_says_where_it_is_and_how_far_off_the_estimate_was(report: Report, classes: Report) -> None:
    text = told(classes)
    assert "Estimate 21.6 GiB, 3.4 % below the peak" in text and "Left free at the peak 56.2 GiB" in text
    assert "Memory of the GPU." in text and "Activation checkpointing on: slower, in less memory" in text
    assert "Memory of the machine." in told(report)
    assert "Estimated by a formula alone" in memory(report, measured=False)


def test_memory_beyond_what_there_seemed_to_be_is_said_outright(report: Report) -> None:
    text = memory(report, available_bytes=1024**3, peak_bytes=3 * 1024**3)
    assert "Left free at the peak nothing: it took 2.0 GiB more than there seemed to be" in text


@pytest.mark.parametrize("unknown", [("peak_bytes",), ("available_bytes",), ("peak_bytes", "available_bytes")])
def test_unknown_memory_is_called_so_and_not_drawn(report: Report, unknown: tuple[str, ...]) -> None:
    report["training"]["memory"] |= dict.fromkeys(unknown)
    text = told(report)
    assert "Left free at the peak unknown" in text
    for key, label in (("peak_bytes", "Peak"), ("available_bytes", "Available")):
        assert (f"{label} unknown" in text) is (key in unknown)
    assert (" the peak Peak" in text) is ("peak_bytes" not in unknown), "no error of the estimate without a peak"
    part = section(render_html(report), "training")
    assert ('class="peak" x="0"' in part) is ("peak_bytes" not in unknown)
    assert ('class="room" x="0"' in part) is ("available_bytes" not in unknown)
    assert ("plot memory" in part) is (len(unknown) < 2)


def test_the_whole_hash_is_there_to_be_copied_and_hovered_over(report: Report) -> None:
    digest = report["training"]["weights_sha256"]
    assert f'<code class="hash" title="{digest}">{digest}</code>' in section(render_html(report), "training")


@pytest.mark.parametrize("dropped", [*([key] for key in LATER), list(LATER)])
def test_an_older_report_that_tells_less_is_still_drawn(classes: Report, dropped: list[str]) -> None:
    classes["training"] = {key: value for key, value in classes["training"].items() if key not in dropped}
    page = render_html(classes)
    assert_sound(page)
    assert "Dev loss of the result 0.410 nats" in words(section(page, "training"))
    assert ("Weights used" in page) is ("best_step" not in dropped)
    assert (">Memory" in page) is ("memory" not in dropped)
    assert ("damaged checkpoint set aside" in page) is ("findings" not in dropped)
