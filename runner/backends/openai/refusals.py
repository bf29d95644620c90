"""What a server's refusal means: a problem that ends the work, or a reason why one row has no answer."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import openai

from runner.backends.base import Endpoint
from runner.errors import Exit, Problem, RunnerError

# A refusal of one prompt: too long, filtered, not to be processed. All other refusals would meet every prompt.
OF_ONE_ROW = (400, 413, 422)
TUNABLE = ("max_tokens", "temperature", "response_format")
REFUSAL = re.compile(r"unsupported|not support|unrecognized|unknown|unexpected|not permitted|not allowed|extra", re.I)
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")


def shown_url(base_url: str) -> str:
    """The address without what may be secret in it: user, password, query."""
    try:
        parts = urlsplit(base_url)
    except ValueError:
        return "(no web address)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def sound_url(endpoint: Endpoint) -> SplitResult:
    """The address in its parts; raises RunnerError (78) when it is none."""
    try:
        parts = urlsplit(endpoint.base_url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError as error:  # the port, or half of a bracket
        raise no_chat(endpoint, "it is no web address") from error
    raise no_chat(endpoint, "it is no web address (http:// or https://)")


def words_of(error: openai.APIError, key: str | None) -> str:
    """What the server says, on one line, without the key, which some servers repeat."""
    said: Any = error.body
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail") or said
    text = " ".join(str(said or error.message).split())
    return (text.replace(key, "***") if key else text)[:300]


def refused_parameter(error: openai.APIStatusError) -> str | None:
    """The one of TUNABLE that the server does not know or not take; None when it refuses something else.

    A name alone is not enough: "reduce max_tokens" is how servers answer a prompt that is too long.
    """
    if error.status_code not in OF_ONE_ROW:
        return None
    said = f"{error.code} {error.body}"
    if not REFUSAL.search(said):
        return None
    named = error.param if isinstance(error.param, str) else said
    return next((name for name in TUNABLE if re.search(rf"\b{name}\b", named)), None)


def fatal(error: openai.APIError, endpoint: Endpoint, key: str | None) -> RunnerError | None:
    """The end of the work that this error means; None when it is about one prompt only."""
    server, said = f"The server {shown_url(endpoint.base_url)}", words_of(error, key)
    if isinstance(error, openai.APITimeoutError):
        what = f"{server} did not answer within {endpoint.timeout_seconds:g} seconds."
        return _unavailable("endpoint/unreachable", what, "Try again later, or correct base_url.")
    if isinstance(error, openai.APIConnectionError):
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        what = f"{server} cannot be reached{cause.replace(key, '***') if key else cause}."
        return _unavailable("endpoint/unreachable", what, "Start it, or correct base_url; then run the same again.")
    if not isinstance(error, openai.APIStatusError):
        return None
    status = error.status_code
    if status in (401, 403):
        return _key_refused(server, said, endpoint, status)
    if status == 402 or error.code in NO_CREDIT:
        return _unavailable("endpoint/no-credit", f"{server} wants to be paid first: {said}", "Add credit there.")
    if status == 429:
        wait = error.response.headers.get("retry-after")
        what = f"{server} refuses more requests{f' for {wait} seconds' if wait else ''}: {said}"
        return _unavailable("endpoint/rate-limited", what, "Run the same again later, or lower max_parallel.")
    if status in (404, 405, 410) or error.code in ("model_not_found", "invalid_model"):
        return _not_found(server, said, endpoint, error)
    if status in (408, 409) or status >= 500:
        what = f"{server} keeps failing ({status}): {said}"
        return _unavailable("endpoint/failing", what, "Run the same again later: what was answered is kept.")
    return None


def reason_of(error: openai.APIError, key: str | None) -> str:
    """Why this prompt has no answer."""
    if not isinstance(error, openai.APIStatusError):
        return f"the request failed: {words_of(error, key)}"
    if refused_parameter(error) == "response_format":
        return f"the server does not take response_format (JSON by a schema): {words_of(error, key)}"
    return f"the server refused the request ({error.status_code}): {words_of(error, key)}"


def key_missing(endpoint: Endpoint) -> RunnerError:
    """The key's environment variable is not set."""
    problem = Problem(
        code="endpoint/key-missing",
        what=f"The key for {shown_url(endpoint.base_url)} is not there: {endpoint.api_key_env} is not set.",
        fix=f"Set the environment variable {endpoint.api_key_env}.",
    )
    return RunnerError(problem, Exit.CREDENTIALS)


def key_unusable(endpoint: Endpoint) -> RunnerError:
    """The key cannot be sent; checked here, as the libraries below would show it in their message."""
    problem = Problem(
        code="endpoint/key-refused",
        what=f"The key in {endpoint.api_key_env} holds characters that no key has (not printable ASCII).",
        fix=f"Put the key alone into {endpoint.api_key_env}.",
    )
    return RunnerError(problem, Exit.CREDENTIALS)


def no_chat(endpoint: Endpoint, said: str) -> RunnerError:
    """There is a server, and it does not speak the protocol at this address."""
    problem = Problem(
        code="endpoint/no-chat",
        what=f"{shown_url(endpoint.base_url)} does not answer chat requests: {said}",
        fix="Correct base_url: the part before /chat/completions, which most often ends in /v1.",
    )
    return RunnerError(problem, Exit.MANIFEST)


def _key_refused(server: str, said: str, endpoint: Endpoint, status: int) -> RunnerError:
    name = endpoint.api_key_env
    held = f"the key in {name}" if name else "a request without a key"
    fix = f"Put a key that may use '{endpoint.model}' into {name}." if name else "Name the key's variable: api_key_env."
    what = f"{server} refuses {held} ({status}): {said}"
    return RunnerError(Problem(code="endpoint/key-refused", what=what, fix=fix), Exit.CREDENTIALS)


def _not_found(server: str, said: str, endpoint: Endpoint, error: openai.APIStatusError) -> RunnerError:
    if "model" not in f"{error.code} {said}".lower() and endpoint.model not in said:
        return no_chat(endpoint, f"{error.status_code}, {said}")
    what = f"{server} does not know the model '{endpoint.model}': {said}"
    fix = "Correct the model's name; the server lists those that it knows under /models."
    return RunnerError(Problem(code="endpoint/unknown-model", what=what, fix=fix), Exit.MANIFEST)


def _unavailable(code: str, what: str, fix: str) -> RunnerError:
    return RunnerError(Problem(code=code, what=what, fix=fix), Exit.UNAVAILABLE)
