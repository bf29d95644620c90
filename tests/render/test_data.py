"""What became of the rows, as the page tells it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import Any

from runner.render import render_html
from runner.render.words import count, percent
from tests.render.data import FROM_SHOP, SHOWN
from tests.render.pages import Report, assert_sound, section, words


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every text and number, keys of counts among them, with the name it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            if key in ("reasons", "repairs", "classes"):
                yield key, name
            yield from leaves(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, key)
    elif value is not None and not isinstance(value, bool):
        yield key, value


def test_every_number_and_every_text_of_the_data_is_on_the_page(report: Report) -> None:
    shown = words(section(render_html(report), "data"))
    as_shown: dict[str, Callable[[Any], str]] = {
        "distinct_ngrams": percent,
        "sha256": lambda digest: digest[:12],
        "part": lambda part: {"mix": "general rows"}.get(part, part),
        "evidence": lambda evidence: evidence.removeprefix("prompt_completion: "),
    }
    missing = []
    for key, value in leaves(report["data"]):
        text = as_shown.get(key, count if isinstance(value, int | float) else str)(value)
        if not re.search(rf"(?<![\d,.]){re.escape(' '.join(text.split()))}(?![\d,]*\d)", shown):
            missing.append((key, text))
    assert missing == []


def test_the_whole_digest_of_a_file_is_there_to_be_copied(report: Report) -> None:
    assert f'<code title="{FROM_SHOP.sha256}">' in render_html(report)


def test_a_single_file_needs_no_sum(report: Report) -> None:
    ledger = report["data"]["ledger"]
    assert "All files" in render_html(report)
    ledger["sources"] = ledger["sources"][:1]
    assert "All files" not in render_html(report)


def test_without_a_list_of_files_the_sum_stands_alone(report: Report) -> None:
    report["data"]["ledger"]["sources"] = []
    page = render_html(report)
    assert_sound(page)
    assert "All files 2,100 1,986 57 21 36" in words(page)


def test_rows_that_went_missing_are_told_first(report: Report) -> None:
    report["data"]["ledger"]["kept"] -= 1200
    text = words(section(render_html(report), "data"))
    assert text.startswith("Data ✗ 1,200 of 2,100 rows not accounted for")
    assert "every one of" not in text


def test_only_rows_that_count_more_than_once_are_explained(report: Report) -> None:
    words_of_weight = "Train counts a row as often as the weight of its source says; the rows in use are 2,064."
    assert words_of_weight not in words(render_html(report))
    report["data"]["split"]["train"] += 500
    assert words_of_weight in words(render_html(report))


def test_a_split_without_general_rows_or_withheld_ones_does_not_speak_of_them(report: Report) -> None:
    report["data"]["split"] |= {"num_mixed": 0, "num_withheld": 0, "num_own": 1702}
    text = words(section(render_html(report), "data"))
    assert "Train 1,702 rows Dev" in text and "✓ no like questions found in two parts ✓" in text


def test_twenty_classes_are_shown_and_the_others_counted(report: Report) -> None:
    classes = {f"class-{i:02}": {"train": 900 - i, "test": 3} for i in range(20)}
    report["data"]["split"]["classes"] = classes
    assert "more class" not in render_html(report)
    report["data"]["split"]["classes"] = classes | {f"late-{i}": {"train": 1} for i in range(1007)}
    page = render_html(report)
    assert re.findall(r"<td>(class-\d+)</td>", page) == list(classes)
    assert "late-0" not in page and "and 1,007 more classes" in page


def test_a_class_without_rows_in_a_part_has_none_there(report: Report) -> None:
    report["data"]["split"]["classes"] = {"rare": {"train": 12}}
    assert "rare 12 0 0 12" in words(render_html(report))


def test_exact_counts_are_called_exact_and_an_estimate_an_estimate(report: Report) -> None:
    exact = words(section(render_html(report), "data"))
    assert "tokens counted exactly" in exact and "estimate" not in exact.lower() and "about" not in exact
    report["data"]["tokens"]["band"] = 1.6
    estimate = words(section(render_html(report), "data"))
    assert "tokens counted exactly" not in estimate
    for words_of_caution in (
        "≈ tokens estimated within a factor of 1.6",
        "expected within a factor of 1.6 either way",
        "An estimate: the model's tokenizer was not at hand",
        "in all between 131,867 and 337,579 tokens",
        "In all about 210,987 tokens",
        "Longest answer about 58 tokens",
        "Rows by estimated length",
    ):
        assert words_of_caution in estimate


def seen_row(page: str) -> str:
    found = re.search(r'<div class="seen"[^>]*>(.*?)</div>', page, flags=re.DOTALL)
    assert found
    return found.group(1)


def as_text(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


def test_a_row_is_shown_to_the_letter_with_its_white_space(report: Report) -> None:
    page = render_html(report)
    row = seen_row(page)
    assert as_text(row) == "".join(segment.text for segment in SHOWN.segments)
    assert row.startswith("<span>")  # a leading newline would be dropped otherwise
    assert re.search(r"\.seen \{[^}]*white-space: pre-wrap", page)


def test_what_is_trained_on_is_marked_by_colour_and_by_a_line_and_nothing_else_is(report: Report) -> None:
    page = render_html(report)
    assert re.findall(r'<mark class="trained">(.*?)</mark>', seen_row(page), flags=re.DOTALL) == ["late &lt;|end|&gt;"]
    (rule,) = re.findall(r"^\.trained \{(.*)\}$", page, flags=re.MULTILINE)
    assert "background:" in rule and "underline" in rule
    assert '<mark class="trained">trained on</mark>: coloured and underlined' in page


def test_a_row_of_which_nothing_is_trained_on_stands_out(report: Report) -> None:
    assert "nothing of it is trained on" not in render_html(report)
    report["data"]["shown"][0]["segments"][1]["trained"] = False
    assert '<span class="chip bad">✗ nothing of it is trained on</span>' in render_html(report)


def test_a_very_long_row_keeps_both_ends_and_says_what_is_left_out(report: Report) -> None:
    segment = report["data"]["shown"][0]["segments"][0]
    segment["text"] = "a" * 4000 + "b" * 2000
    assert "more characters" not in seen_row(render_html(report))
    segment["text"] = "a" * 4000 + "-" * 1500 + "b" * 2000
    row = as_text(seen_row(render_html(report)))
    assert row.startswith("a" * 4000 + " … 1,500 more characters … " + "b" * 2000 + "late")
