"""A small HTTP server of answers that are made up beforehand, and what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.data.reading import LocalFile, fetch
from runner.errors import RunnerError

ROWS = b'{"prompt": "Hi?", "completion": "Ho."}\n{"prompt": "And?", "completion": "Done."}\n'


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class FakeServer:
    """Answers of each path, one after the other, the last again and again; and what was asked."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    otherwise: dict[str, Answer] = field(default_factory=dict)
    url: str = ""

    def missing(self, path: str) -> Answer:
        return next((answer for part, answer in self.otherwise.items() if part in path), Answer(status=404))


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked.append((self.command, self.path, dict(self.headers)))
            queue = server.answers.get(self.path.split("?")[0], [server.missing(self.path)])
            answer = queue.pop(0) if len(queue) > 1 else queue[0]
            if answer.headers.get("ETag") == self.headers.get("If-None-Match", "-"):
                answer = Answer(status=304)
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
            self.close_connection = answer.cut

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def get(source: str, cache: Path, said: list[str] | None = None) -> LocalFile:
    return fetch(source, cache, (said if said is not None else []).append, pauses=(0.0, 0.0))


def fault(source: str, cache: Path, said: list[str] | None = None) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        get(source, cache, said)
    problem = caught.value.problems[0]
    assert problem.where.path and problem.where.key == "data.train" and problem.fix
    return caught.value
