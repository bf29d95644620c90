"""The end of a run on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.console import Console, table
from runner.errors import Problem, Where
from runner.log_lines import LogConsole


def summarize(console: Console, report: Mapping[str, Any], path: Path, following: str) -> None:
    """Shows a report: verdict, scores, money, problems, where it all is, and what to type next (`following`)."""
    if isinstance(console, LogConsole):
        console.verdict(report)
        console.problems(_problems(report))
        return
    good = report["verdict"] == "improved"
    console.line(console.paint(report["verdict_text"], "good" if good else "bold"))
    evaluation, roi = report["evaluation"], report["roi"]
    if report["gate"] and report["gate"]["arms"]:
        console.line(table(list(_arms(report["gate"]))))
    if evaluation:
        console.line(table(list(_comparisons(evaluation))))
        if evaluation["forgetting"]:
            console.line(evaluation["forgetting"]["text"])
    if roi:
        console.line(f"Return: {roi['text']}")
    console.problems(_problems(report))
    for line in (report.get("delivery") or {}).get("serve", ()):
        console.line(f"serve   {line['command']}")
    if to := (report.get("delivery") or {}).get("to"):
        console.line(f"sent    {to['url']}" if to["pushed_at"] else f"unsent  not all of it is at {to['url']}")
        for line in to["serve"]:
            console.line(f"there   {line['command']}")
    console.line(f"report  {path / 'report.json'}")
    console.line(f"look    {path / 'report.html'}")
    console.line(f"next    {following}")


def _problems(report: Mapping[str, Any]) -> Iterator[Problem]:
    """The report's problems but for notes."""
    for values in report["problems"]:
        if values["severity"] != "note":
            yield Problem(**{**values, "where": Where(**values["where"])})


def _arms(gate: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The un-tuned arms on the dev rows, by the metric that the gate's target is of."""
    metric = gate["target"]["metric"] if gate["target"] else None
    head = f"un-tuned arm, {gate['num_dev']} dev rows"
    yield (head, metric or "score", "95 % interval", "tokens in", "tokens out", "s/answer", "$/1,000")
    for arm in gate["arms"]:
        side = arm["side"]
        score = side["scores"].get(metric) if side else None
        if score is None:
            yield (arm["name"], "-", arm["left_out"] or "no score", "", "", "", "")
            continue
        ends = "-" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f}"
        figures = (side["prompt_tokens"], side["output_tokens"], side["seconds_per_answer"], arm["usd_per_1000"])
        shown = ("-" if v is None else f"{v:,.{places}f}" for v, places in zip(figures, (0, 0, 2, 4), strict=True))
        yield (arm["name"], f"{score['mean']:.3f}", ends, *shown)


def _comparisons(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Tuned against every other side on the test rows."""
    head = f"{evaluation['num_rows']} test rows"
    yield (head, "against", "un-tuned", "tuned", "difference", "95 % interval", "p", "verdict")
    for c in evaluation["comparisons"]:
        interval = "-" if c["ci_low"] is None else f"{c['ci_low']:+.3f} to {c['ci_high']:+.3f}"
        p_value = c["p_value"] if c["p_holm"] is None else c["p_holm"]
        scores = (f"{c['untuned']:.3f}", f"{c['tuned']:.3f}", f"{c['difference']:+.3f}")
        p_shown = "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
        yield (c["metric"], c["against"], *scores, interval, p_shown, c["verdict"])


def next_command(report: Mapping[str, Any], path: Path, again: str) -> str:
    """What to type now: the same again, the tracker's upload, or a look at the answers."""
    sent = (report.get("delivery") or {}).get("to")
    if report["status"] == "interrupted" or (sent and sent["pushed_at"] is None):
        return again
    if report["status"] == "refused" and report["gate"] and report["gate"]["enough"]:
        prompt = path / "gate" / f"{report['gate']['enough']}.prompt.json"
        return f"less {prompt if prompt.exists() else path / 'report.html'}"
    if report["status"] in ("refused", "failed"):
        return f"mend what is named above, then: {again}"
    sync: str | None = report["tracking"].get("sync")
    return sync or f"less {path / 'evaluation' / 'tuned.jsonl'}"
