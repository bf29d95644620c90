"""What is delivered: that it was loaded again and agrees, how to serve it, and its files."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runner.render import render_html
from tests.render.data import DELIVERY
from tests.render.pages import Report, assert_sound, headings, section, words


def drawn(report: Report, **changes: Any) -> str:
    page = render_html(report | {"delivery": DELIVERY | changes})
    assert_sound(page)
    return section(page, "delivery")


def test_the_files_were_loaded_again_and_say_what_came_of_it(report: Report) -> None:
    text = words(drawn(report))
    assert "✓ loaded again and re-scored: agrees" in text
    assert "base and adapter 75 75 75 58.7 % evaluated 58.7 % 0.2313 evaluated 0.2312 ✓ yes" in text
    assert "the merged weights 75 75 74 57.3 % evaluated 58.7 % 0.2329 evaluated 0.2312 ✓ yes" in text
    assert "The score is of exact match" in text


@pytest.mark.parametrize("form", [0, 1])
def test_one_form_that_does_not_agree_is_said_above_all_else(report: Report, form: int) -> None:
    checks = [check | {"agrees": i != form} for i, check in enumerate(DELIVERY["checks"])]
    text = words(drawn(report, checks=checks))
    assert "✗ loaded again and re-scored: does not agree" in text and "agrees Loaded" not in text
    assert text.count("✗ no") == 1 and text.count("✓ yes") == 1


def test_what_was_not_loaded_again_does_not_read_as_fine(report: Report) -> None:
    text = words(drawn(report, checks=[], to=None))
    assert "not loaded again" in text and "✓" not in text and "The files were loaded again" not in text


def test_figures_that_are_unknown_are_called_so(report: Report) -> None:
    holes = dict.fromkeys(("loss_evaluated", "loss_delivered", "score_evaluated", "score_delivered", "same_answers"))
    text = words(drawn(report, checks=[DELIVERY["checks"][0] | holes]))
    assert "75 unknown unknown evaluated unknown unknown evaluated unknown ✓ yes" in text


def test_a_score_has_the_unit_of_its_metric(classes: Report, report: Report) -> None:
    report["evaluation"]["comparison"]["metric"] = "loss"
    assert "0.587 nats evaluated 0.587 nats" in words(drawn(report))
    assert "The score is of accuracy" in words(drawn(classes))


def test_each_serving_line_stands_whole_in_a_block_of_its_own(report: Report) -> None:
    blocks = re.findall(r'<pre class="command" tabindex="0"><code>(.*?)</code></pre>', drawn(report), flags=re.DOTALL)
    assert blocks == [line["command"] for line in (*DELIVERY["serve"], *DELIVERY["to"]["serve"])]
    assert "How to serve it vLLM vllm serve small" in words(drawn(report))
    assert "How to serve it" not in drawn(report, serve=[])


def test_files_are_listed_with_size_and_whole_hash(report: Report) -> None:
    text = words(drawn(report))
    assert "In all 18.7 MiB in 2 files" in text
    assert f"adapter_model.safetensors 18.7 MiB {'9c41f0e7a2b8d365' * 4}" in text
    assert "Merged weights runs/quickstart-3f9c1d27ab/merged Model card" in text
    assert "Merged weights" not in drawn(report, merged_dir=None, checks=[])
    assert "in 1 file " in words(drawn(report, files=DELIVERY["files"][:1]))
    assert_sound(render_html(report | {"delivery": DELIVERY | {"files": []}}))


def test_it_stands_after_training_and_only_where_something_was_delivered(report: Report) -> None:
    found = headings(render_html(report | {"delivery": DELIVERY}))
    assert found[found.index("training") + 1] == "delivery"
    assert "delivery" not in headings(render_html(report | {"delivery": None}))
    report.pop("delivery", None)
    assert "delivery" not in headings(render_html(report))


def test_where_it_was_sent_is_said_and_whether_all_of_it_is_there(report: Report) -> None:
    text = words(drawn(report))
    assert "✓ all of it is there Sent to hf://owner/quickstart" in text and "c0ffee" in text
    half = words(drawn(report, to=DELIVERY["to"] | {"pushed_at": None, "commit": None, "files": [], "serve": []}))
    assert "✗ not all of it is there" in half and "✓ all of it is there" not in half and "Commit" not in half
    assert "Where it is" not in drawn(report, to=None)
