"""A real S3 API on localhost (moto's), which can fail in every way a store can: refused, slow, cut, or down."""

from __future__ import annotations

import logging
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'
Fault = Callable[[dict[str, Any]], tuple[int, str] | None]


class StoreServer:
    """An S3 server with one bucket. `fault` is asked before each request: a status and an error code to answer with, or
    None; `delay_seconds` is added to each answer."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.fault: Fault = lambda request: None
        self.delay_seconds = 0.0
        self.num_requests = 0
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        reset = urllib.request.Request(f"{self.address}/moto-api/reset", method="POST")  # servers of a process share it
        urllib.request.urlopen(reset).close()
        self.client = self._make_client()
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.address}

    def names(self, prefix: str = "") -> list[str]:
        """The keys below a prefix of the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(self, name: str) -> bytes:
        """The content of a key."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Puts a key, past all faults."""
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def remove(self, name: str) -> None:
        """Removes a key."""
        self.client.delete_object(Bucket=BUCKET, Key=name)

    def close(self) -> None:
        """Ends it; its address refuses connections from then on."""
        self._server.shutdown()
        self._server.server_close()

    def _make_client(self) -> Any:
        session = botocore.session.Session()
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        client = session.create_client("s3", endpoint_url=self.address, **keys)
        client.meta.events.register("before-sign.s3", lambda request, **_: request.headers.add_header("X-Test", "1"))
        return client

    def _answer(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_X_TEST" not in request:
            self.num_requests += 1
            time.sleep(self.delay_seconds)
            if failed := self.fault(request):
                length = int(request.get("CONTENT_LENGTH") or 0)
                request["wsgi.input"].read(length)
                start(f"{failed[0]} Fault", [("Content-Type", "application/xml")])
                return [ERROR.format(code=failed[1]).encode()] if request["REQUEST_METHOD"] != "HEAD" else []
        answer: Iterable[bytes] = self._app(request, start)
        return answer


def failing(share: float, seed: int = 1) -> Fault:
    """Each request fails by chance, as an overloaded store does."""
    chance = random.Random(seed)
    kinds = [(503, "SlowDown"), (500, "InternalError")]
    return lambda request: chance.choice(kinds) if chance.random() < share else None


def refusing(request: dict[str, Any]) -> tuple[int, str]:
    """Every request is refused, as with keys that have no rights."""
    return 403, "AccessDenied"


@contextmanager
def serving_store() -> Iterator[StoreServer]:
    """A server while open."""
    server = StoreServer()
    try:
        yield server
    finally:
        server.close()
