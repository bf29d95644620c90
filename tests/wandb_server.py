"""A local server that answers as W&B's API does: who logs in, the run that is opened, and what is sent of it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4
PROJECT = {"id": "p", "name": "runner", "entity": {"id": "e", "name": "acme"}}
BUCKET = {"id": "b", "name": "r", "displayName": "r", "project": PROJECT, "historyLineCount": 0, "eventsLineCount": 0}


@dataclass
class WandbServer:
    """What it was asked, and how it answers: `login` and `opening` are statuses, `viewer` who the key belongs to;
    once `is_down` it answers nothing."""

    url: str = ""
    login: int = 200
    opening: int = 200
    viewer: Any = field(default_factory=lambda: {"id": "u"})
    is_down: bool = False
    seen: list[tuple[str, str]] = field(default_factory=list)

    @property
    def operations(self) -> list[str]:
        """The first words of every GraphQL request, and the paths of the others."""
        return [said.split("(")[0].split("{")[0].strip() for _, said in self.seen]

    def answer(self, path: str, body: bytes, authorization: str | None) -> tuple[int, Any]:
        said = json.loads(body)["query"].strip() if path == "/graphql" else path
        self.seen.append((authorization or "", said))
        if said.startswith("query Viewer {"):
            return (self.login, {"data": {"viewer": self.viewer}}) if self.login == 200 else _refused(self.login)
        if "UpsertBucket" in said:
            opened = {"data": {"upsertBucket": {"bucket": BUCKET, "inserted": True}}}
            return (200, opened) if self.opening == 200 else _refused(self.opening)
        if "CreateRunFiles" in said:
            return 200, {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}}
        return 200, {"data": {}} if path == "/graphql" else {}


def _refused(status: int) -> tuple[int, Any]:
    return status, {"errors": [{"message": "user is not logged in"}]}


def basic(key: str) -> str:
    """What a client sends for a key."""
    return f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}"


@contextmanager
def serving() -> Iterator[WandbServer]:
    """The server, while open."""
    state = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if state.is_down:
                self.close_connection = True
                return
            status, value = state.answer(self.path, body, self.headers.get("Authorization"))
            said = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
