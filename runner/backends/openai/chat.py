"""A chat with a server that speaks OpenAI's protocol: greedy answers, many at a time, each asked for once."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx2
import openai

from runner.backends.answers import KeptAnswers, key_of
from runner.backends.base import Endpoint, Reply, Sampling, Watch
from runner.backends.openai.refusals import (
    fatal,
    key_missing,
    key_unusable,
    no_chat,
    reason_of,
    refused_parameter,
    shown_url,
    sound_url,
)
from runner.backends.openai.threads import in_threads
from runner.backends.openai.wire import Dialect, NotAnAnswer, read_reply, wire_message
from runner.conversation import Message
from runner.errors import RunnerError

# The SDK waits 0.5, 1, 2, 4 and 8 seconds, or what Retry-After says up to 120: enough for a server that restarts, and
# for a limit by the minute, which names its wait. A request lasts at most six timeouts and ten minutes of such waits.
MAX_RETRIES = 5
CHECK_RETRIES = 2  # a person is waiting
CONNECT_SECONDS = 10.0
MAX_BODY_BYTES = 16_000_000
CHECK_TOKENS = 16  # some models that reason refuse fewer

Request = Callable[[Dialect], dict[str, Any]]


class ChatClient:
    """One model behind one endpoint; the threads of a call share it. See Chat for the contract."""

    def __init__(
        self, endpoint: Endpoint, folder: Path, environment: Mapping[str, str], *, max_retries: int = MAX_RETRIES
    ):
        self.endpoint = endpoint
        self._environment = environment
        self._max_retries = max_retries
        self._dialect = Dialect()
        self._has_told = False
        self._answers = KeptAnswers(folder, _file_name(endpoint))

    def check(self) -> None:
        """Raises RunnerError unless the key is there and taken and the model is known.

        GET /models/MODEL tells it for nothing; where a server or a key has no such route, a chat of a few tokens does.
        """
        self._require_key()
        with self._open(min(CHECK_RETRIES, self._max_retries)) as client:
            try:
                if not self._is_listed(client):
                    self._ask(client, self._request([Message(role="user", content="Say yes.")], CHECK_TOKENS))
            except NotAnAnswer as error:
                raise no_chat(self.endpoint, str(error)) from error
            except openai.APIError as error:
                raise self._fatal(error) or no_chat(self.endpoint, reason_of(error, self._key)) from error

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        watch: Watch,
        *,
        label: str,
        schema: Mapping[str, object] | None = None,
    ) -> list[Reply]:
        """One reply for each prompt, in their order; equal prompts are asked once, earlier ones not at all."""
        keys = [self._key_of(prompt, sampling, schema) for prompt in prompts]
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            first.setdefault(key, i)
        replies = {key: kept for key in first if (kept := self._answers.get(key))}
        requests = {
            key: self._request(prompts[i], sampling.max_new_tokens, schema)
            for key, i in first.items()
            if key not in replies
        }
        with watch.progress(label, len(keys)) as progress:
            progress.advance(sum(key in replies for key in keys))
            counts = Counter(keys)

            def came(key: str, reply: Reply) -> None:
                replies[key] = reply
                watch.saved("answers", 1)
                progress.advance(counts[key])

            if requests:
                self._ask_all(requests, came, watch)
        self._tell_of_temperature(watch)
        return [replies[key] if first[key] == i else replace(replies[key], cached=True) for i, key in enumerate(keys)]

    def _ask_all(self, requests: Mapping[str, Request], came: Callable[[str, Reply], None], watch: Watch) -> None:
        self._require_key()
        with self._open(self._max_retries) as client:
            in_threads(
                lambda key: self._answer(client, key, requests[key]),
                list(requests),
                self.endpoint.max_parallel,
                came,
                watch.check,
            )

    def _answer(self, client: openai.OpenAI, key: str, request: Request) -> Reply:
        """The reply to one prompt, kept if it is the server's last word; raises RunnerError when it is all prompts'."""
        try:
            reply = self._ask(client, request)
        except NotAnAnswer as error:
            return Reply(
                completion=None, reason=f"the server's reply is no chat completion: {self._masked(str(error))}"
            )
        except UnicodeEncodeError:
            return Reply(completion=None, reason="the prompt holds half a character, which cannot be sent")
        except openai.APIError as error:
            if end := self._fatal(error):
                raise end from error
            return Reply(completion=None, reason=reason_of(error, self._key))
        reply = self._without_key(reply)
        self._answers.put({key: reply})
        return reply

    def _ask(self, client: openai.OpenAI, request: Request) -> Reply:
        """Asks in the server's dialect, which is found out where it refuses a parameter; a broken reply is asked for
        once more."""
        dialect, may_repeat = self._dialect, True
        while True:
            try:
                reply = _send(client, {**request(dialect), **self._no_key}, self.endpoint.timeout_seconds)
            except NotAnAnswer:
                if not may_repeat:
                    raise
                may_repeat = False
            except openai.APIStatusError as error:
                if not (other := dialect.without(refused_parameter(error))):
                    raise
                dialect = other
            else:
                self._dialect = dialect
                return reply

    def _is_listed(self, client: openai.OpenAI) -> bool:
        """Whether the server says that it has the model; False: it may have, and has no such route."""
        try:
            return isinstance(client.models.retrieve(self.endpoint.model, **self._no_key).id, str)
        except (ValueError, AttributeError, httpx2.HTTPError):  # some other page
            return False
        except openai.APIStatusError as error:
            if error.status_code == 401:
                raise
            return False

    def _open(self, max_retries: int) -> openai.OpenAI:
        """The SDK's client with nothing of its own from the environment: OPENAI_* may be meant for another server."""
        url, seconds = sound_url(self.endpoint), self.endpoint.timeout_seconds
        client = openai.OpenAI(
            api_key=self._key or "none",
            admin_api_key="",
            organization="",
            project="",
            webhook_secret="",
            base_url=shown_url(url.geturl()),
            default_query=dict(parse_qsl(url.query)),
            timeout=openai.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
            max_retries=max_retries,
        )
        client.organization = client.project = None  # else they are sent, empty
        client._custom_headers = {}  # OPENAI_CUSTOM_HEADERS, which no argument keeps out
        return client

    def _request(
        self, prompt: Sequence[Message], max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Request:
        messages = [wire_message(message) for message in prompt]
        return lambda dialect: dialect.request(self.endpoint.model, messages, max_tokens, schema)

    def _key_of(self, prompt: Sequence[Message], sampling: Sampling, schema: Mapping[str, object] | None) -> str:
        messages = [wire_message(message) for message in prompt]
        where = (shown_url(self.endpoint.base_url), key_of(urlsplit(self.endpoint.base_url).query), self.endpoint.model)
        return key_of("chat", *where, messages, sampling.max_new_tokens, schema)

    @property
    def _key(self) -> str | None:
        name = self.endpoint.api_key_env
        return (self._environment.get(name, "").strip() or None) if name else None

    @property
    def _no_key(self) -> dict[str, Any]:
        """The SDK's argument that sends no key where there is none; a login in the address stands in for it."""
        if self._key:
            return {}
        login = sound_url(self.endpoint).netloc.rpartition("@")[0]
        basic = f"Basic {b64encode(unquote(login).encode()).decode()}" if login else openai.Omit()
        return {"extra_headers": {"Authorization": basic}}

    def _require_key(self) -> None:
        if self.endpoint.api_key_env and not self._key:
            raise key_missing(self.endpoint)
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise key_unusable(self.endpoint)

    def _fatal(self, error: openai.APIError) -> RunnerError | None:
        return fatal(error, self.endpoint, self._key)

    def _without_key(self, reply: Reply) -> Reply:
        """The reply as it is kept: a server may repeat the key that it was sent, wherever it says something."""
        said = reply.completion and replace(reply.completion, text=self._masked(reply.completion.text))
        reason, model = (text and self._masked(text) for text in (reply.reason, reply.model))
        return replace(reply, completion=said, reason=reason, model=model)

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _tell_of_temperature(self, watch: Watch) -> None:
        if not self._dialect.temperature and not self._has_told:
            self._has_told = True
            watch.say(f"{self.endpoint.model} takes no temperature: its answers are sampled, not its likeliest.")


def _send(client: openai.OpenAI, body: Mapping[str, Any], timeout_seconds: float) -> Reply:
    """One request. The body is read here and not by the SDK, which would ask four more times for one that was cut."""
    try:
        create: Callable[..., Any] = client.chat.completions.with_streaming_response.create
        with create(**body) as response:
            raw = _read(response, timeout_seconds)
        return read_reply(raw, response.http_response.elapsed.total_seconds())
    except httpx2.HTTPError as error:
        raise NotAnAnswer(f"it was cut off ({type(error).__name__})") from error


def _read(response: Any, timeout_seconds: float) -> bytes:
    """The body, whole; raises NotAnAnswer when it has no end in time or in size."""
    deadline = time.monotonic() + timeout_seconds
    body = b""
    for part in response.iter_bytes():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise NotAnAnswer(f"it is longer than {MAX_BODY_BYTES // 1_000_000} MB")
        if time.monotonic() > deadline:
            raise NotAnAnswer(f"it was not complete after {timeout_seconds:g} seconds")
    return body


def _file_name(endpoint: Endpoint) -> str:
    """A file for each model of each server, with a name that people can tell."""
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", endpoint.model).strip("-.")[-60:]
    return f"{model}-{key_of(shown_url(endpoint.base_url), endpoint.model)[:8]}"
