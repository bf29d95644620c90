"""Which ends of an attempt are worth another one: our own codes, from their one table, and those of the killed."""

from __future__ import annotations

from runner.errors import EXIT_CODES

KILLED = {137: "SIGKILL, for example out of memory", 143: "SIGTERM, before Python ran"}
RETRIED = (*(int(code) for code, meaning in EXIT_CODES.items() if meaning.retry), *KILLED)
FINAL = tuple(int(code) for code, meaning in EXIT_CODES.items() if code and not meaning.retry)
GRACE_SECONDS = 120  # from the request to stop to the kill; we need ten
