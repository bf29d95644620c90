"""A small real HTTP server that speaks OpenAI's chat protocol, answers as a test wants, and fails when it is told to.

with FakeServer(lambda body: "yes") as server:
    server.fail_next("rate-limited", times=2)
    chat = open_chat(server.endpoint(), tmp_path, {})
    ...
    assert len(server.chats) == 3
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from runner.backends.base import Endpoint

Body = dict[str, Any]
SOON = {"retry-after-ms": "1"}  # else the SDK waits half a second and more


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the server was asked; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Body


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes over the wire. `cut`: only half of the body is sent, then the connection is closed."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] | None = None
    cut: bool = False

    @property
    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def refusal(status: int, message: str, *, code: str | None = None, param: str | None = None, **headers: str) -> Answer:
    """An error in OpenAI's shape; `retry_after="600"` becomes the header."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body={"error": error}, headers=named or (SOON if status >= 429 else None))


def _unsupported(name: str) -> Answer:
    return refusal(400, f"Unsupported parameter: '{name}' is not supported.", code="unsupported_parameter", param=name)


def _changed(**changes: Any) -> Callable[[Body], Answer]:
    """A sound completion with other values in it, or in its only choice."""

    def change(completion: Body) -> Answer:
        choice = completion["choices"][0]
        for name, value in changes.items():
            place = choice if name in choice else choice["message"] if name in choice["message"] else completion
            place[name] = value
        return Answer(body=completion)

    return change


# What a failure makes of the completion that would have been sent.
FAILURES: dict[str, Callable[[Body], Answer]] = {
    "rate-limited": lambda _: refusal(429, "Slow down.", code="rate_limit_exceeded"),
    "rate-limited-long": lambda _: refusal(429, "Slow down.", code="rate_limit_exceeded", retry_after="600"),
    "no-credit": lambda _: refusal(429, "You exceeded your quota.", code="insufficient_quota", retry_after_ms="1"),
    "server-error": lambda _: refusal(500, "Something broke."),
    "overloaded": lambda _: refusal(503, "Too many people."),
    "unauthorized": lambda _: refusal(401, "Incorrect API key provided.", code="invalid_api_key"),
    "forbidden": lambda _: refusal(403, "Your key may not do this."),
    "unknown-model": lambda _: refusal(404, "The model does not exist.", code="model_not_found"),
    "no-route": lambda _: Answer(status=404, body={"detail": "Not Found"}),
    "too-long": lambda _: refusal(
        400, "The context is 2048 tokens; reduce max_tokens or the messages.", code="context_length_exceeded"
    ),
    "too-large": lambda _: refusal(413, "The request is too large."),
    "not-processable": lambda _: Answer(status=422, body={"detail": "These messages cannot be rendered."}),
    "bad-json": lambda _: Answer(body=b'{"choices": [{"mess'),
    "html": lambda _: Answer(body=b"<html>Welcome!</html>", headers={"Content-Type": "text/html"}),
    "cut": lambda completion: Answer(body=completion, cut=True),
    "no-choices": _changed(choices=[]),
    "null-content": _changed(content=None),
    "thought-only": _changed(content=None, finish_reason="length"),
    "refused": _changed(content=None, refusal="I will not say that."),
    "filtered": _changed(finish_reason="content_filter"),
    "no-finish": _changed(finish_reason=None),
    "no-usage": _changed(usage=None),
    "no-model": _changed(model=None),
    "error-inside": lambda _: Answer(body={"error": {"message": "The provider is gone.", "code": 502}}),
    "slow": _changed(),
}


class FakeServer:
    """Answers chats with `answer(body)` (or a fixed text), cut to the words that the limit allows; a token is a word.

    `refuses` names parameters that it answers with OpenAI's 400; `lists` False: it has no GET /models/MODEL, as many
    compatible servers. Use it as a context; `requests` and `chats` tell what came. A "slow" answer takes
    `delay_seconds`, or until the server is closed.
    """

    def __init__(
        self,
        answer: Callable[[Body], str] | str = "yes",
        *,
        model: str = "fake",
        refuses: Sequence[str] = (),
        lists: bool = True,
        delay_seconds: float = 5.0,
    ):
        self.answer: Callable[[Body], str] = answer if callable(answer) else lambda _: answer
        self.model, self.refuses, self.lists, self.delay_seconds = model, set(refuses), lists, delay_seconds
        self.requests: list[Request] = []
        self.url = ""
        self.most_at_once = 0
        self._num_now = 0
        self._failures: list[str | None] = []
        self._always: str | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def fail_next(self, kind: str, times: int = 1) -> None:
        """The next chats fail in this way (a name in FAILURES); calls add up."""
        assert kind in FAILURES, kind
        with self._lock:
            self._failures += [kind] * times

    def fail_always(self, kind: str | None) -> None:
        """Every chat fails in this way until told otherwise (None)."""
        assert kind is None or kind in FAILURES, kind
        self._always = kind

    def fail_some(self, share: float, kinds: Sequence[str], *, seed: int, num_chats: int) -> None:
        """Of the next chats, this share fails, in one of these ways, drawn by chance."""
        chance = random.Random(seed)
        drawn = (chance.choice(kinds) if chance.random() < share else None for _ in range(num_chats))
        with self._lock:
            self._failures += drawn

    @property
    def chats(self) -> list[Request]:
        """The chat requests, in the order in which they came."""
        return [request for request in self.requests if "/chat/completions" in request.path]

    @property
    def questions(self) -> list[str]:
        """What was asked last in each chat."""
        return [request.body["messages"][-1]["content"] for request in self.chats]

    def endpoint(self, **changes: Any) -> Endpoint:
        """How to reach it."""
        return Endpoint(**{"base_url": self.url, "model": self.model, "timeout_seconds": 5.0, **changes})

    def __enter__(self) -> FakeServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def respond(self, request: Request) -> Answer:
        """What to send; keeps the request."""
        with self._lock:
            self.requests.append(request)
            is_chat = request.method == "POST" and request.path.split("?")[0] == "/v1/chat/completions"
            failure = self._failures.pop(0) if self._failures and is_chat else self._always
        if not is_chat:
            is_known = self.lists and request.path == f"/v1/models/{self.model}"
            return Answer(body={"id": self.model, "object": "model"}) if is_known else FAILURES["no-route"]({})
        if request.body["model"] != self.model:
            return FAILURES["unknown-model"]({})
        if refused := next((name for name in request.body if name in self.refuses), None):
            return _unsupported(refused)
        if failure == "slow":
            self._closing.wait(self.delay_seconds)
        completion = self._completion(request.body)
        return FAILURES[failure](completion) if failure else Answer(body=completion)

    def _completion(self, body: Body) -> Body:
        with self._lock:
            self._num_now += 1
            self.most_at_once = max(self.most_at_once, self._num_now)
        try:
            text = self.answer(body)
        finally:
            with self._lock:
                self._num_now -= 1
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 1_000_000
        words = text.split()
        is_cut = len(words) > limit
        message = {"role": "assistant", "content": " ".join(words[:limit]) if is_cut else text, "refusal": None}
        asked = sum(len((turn.get("content") or "").split()) for turn in body["messages"])
        written = min(len(words) + 1, limit)
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": f"{self.model}-2026-01-01",
            "choices": [{"index": 0, "message": message, "finish_reason": "length" if is_cut else "stop"}],
            "usage": {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written},
        }


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(data) if data else {}
            answer = server.respond(Request(method=self.command, path=self.path, headers=headers, body=body))
            self.send_response(answer.status)
            usual = {"Content-Type": "application/json", "Content-Length": str(len(answer.bytes))}
            for name, value in {**usual, **(answer.headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.bytes[: len(answer.bytes) // 2] if answer.cut else answer.bytes)
            self.close_connection = answer.cut

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(Handler):
        def handle(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has left, as some tests want
                super().handle()

    return Quiet
