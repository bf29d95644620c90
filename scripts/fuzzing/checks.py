"""What must hold of every case, whatever it held."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fuzzing.hostile import SECRET
from runner.errors import EXIT_CODES, Exit

MB = 1 << 20
BOUNDS = {  # processor seconds, bytes of resident memory beyond those at the start
    "validate": (1.0, 200 * MB),
    "manifest": (5.0, 300 * MB),
    "data": (30.0, 2000 * MB),
}
VALIDATE = {Exit.DONE, Exit.INPUT_MISSING, Exit.MANIFEST}
PLAN = {
    Exit.DONE,
    Exit.SAID_NO,
    Exit.USAGE,
    Exit.DATA_REJECTED,
    Exit.INPUT_MISSING,
    Exit.UNAVAILABLE,
    Exit.CREDENTIALS,
    Exit.MANIFEST,
}
LINELESS = {"manifest/unreadable", "manifest/too-large"}
MOVES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what moves a cursor, colours a terminal or ends a line


def faults(result: Mapping[str, Any]) -> Iterator[str]:
    """What does not hold of one command of a case."""
    code, output, verb = result["code"], result["output"], result["arguments"][0]
    if code not in set(EXIT_CODES) & (VALIDATE if verb == "validate" else PLAN):
        yield f"exit code {code}"
    if "Traceback (most recent call last)" in output:
        yield f"a traceback: {output.strip().splitlines()[-2:][0][:200]}"
    if found := MOVES.search(output):
        yield f"a control character was printed: {output[max(0, found.start() - 60) : found.end() + 10]!a}"
    if SECRET in output:
        yield "what lies outside the roots was shown"
    yield from (f"escape: {escape}" for escape in result["escapes"])
    seconds, num_bytes = BOUNDS[verb if verb == "validate" else result["kind"]]
    if result["seconds"] > seconds:
        yield f"slow: {result['seconds']:.1f} s"
    if result["num_bytes"] > num_bytes:
        yield f"large: {result['num_bytes'] / MB:.0f} MB"
    if code == Exit.USAGE and output.startswith("usage: "):
        return  # the command line itself, such as a value that looks like an option
    if code not in (Exit.DONE, Exit.SAID_NO, Exit.BUG):
        yield from _unclear(result["problems"], code)


def _unclear(problems: list[Mapping[str, Any]], code: int) -> Iterator[str]:
    errors = [problem for problem in problems if problem["severity"] == "error"]
    if not errors:
        yield "a rejection without a problem"
    for problem in errors:
        where, name = problem["where"], problem["code"]
        if not re.fullmatch(r"[a-z]+/[a-z0-9-]+", name):
            yield f"an odd code: {name}"
        if not problem["what"].strip() or not problem["fix"].strip():
            yield f"{name}: without words or without a cure"
        if not where["path"] and not where["key"]:
            yield f"{name}: without a place"
        if code == Exit.MANIFEST and name not in LINELESS and where["path"] != "--set" and where["line"] is None:
            yield f"{name}: without a line"
