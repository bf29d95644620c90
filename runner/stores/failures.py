"""What a client of a store or of a web server meant by its error; its own words may hold a URL with its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def in_short(error: BaseException) -> str:
    """What happened, in words of the system's own; a client's words may hold the URL with its secrets."""
    status = status_of(error)
    if status is not None:
        return f"the server answered {status}"
    reason = getattr(error, "reason", error)
    said = getattr(reason, "strerror", None) or (str(reason) if type(reason) is ConnectionError else "")
    return str(said or type(reason).__name__)


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, however the client keeps it."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        answer = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        kept = (getattr(link, "code", None), getattr(link, "status", None), getattr(response, "status_code", None))
        for status in (*kept, answer.get("HTTPStatusCode")):
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None


def _chain(error: Any) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
