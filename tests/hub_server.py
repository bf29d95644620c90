"""A hub on localhost that speaks the hub's own HTTP as far as a push needs it: accounts, repositories, large files and
commits. It can refuse, fail and be slow."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "LocalhostLocalhostLocalhostLocalh"
Fault = Callable[[str, str], int | None]  # by method and path: a status to answer with


@dataclass
class Repository:
    """What is in a repository's main branch."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        """The commit of the branch."""
        return hashlib.sha1(json.dumps([self.commits, sorted(self.files)]).encode()).hexdigest()


class HubServer:
    """A hub with one account, `owner`, who writes in `team` and reads in `others`."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.fault: Fault = lambda method, path: None
        self.delay_seconds = 0.0
        self.role: dict[str, Any] = {"role": "write"}
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # large files that were sent, by their hash
        self.num_uploads = 0
        self.asked: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        own = {"HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return {**own, "HF_HUB_DISABLE_TELEMETRY": "1"}

    def close(self) -> None:
        """Ends it; its address refuses connections from then on."""
        self._server.shutdown()
        self._server.server_close()

    def account(self) -> dict[str, Any]:
        """What the hub tells of whoever holds the token."""
        orgs = [{"name": "team", "roleInOrg": "write"}, {"name": "others", "roleInOrg": "read"}]
        token = {"displayName": "test", **self.role}
        return {"type": "user", "name": "owner", "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}

    def commit(self, name: str, lines: bytes) -> dict[str, Any]:
        """Carries out a commit, all of it or nothing."""
        repository, files = self.repositories[name], dict(self.repositories[name].files)
        for line in map(json.loads, lines.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                summary = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repository.files = files
        repository.commits.append(summary)
        return {"commitUrl": f"{self.url}/{name}/commit/{repository.head}", "commitOid": repository.head}


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self.chunks()
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path))
            time.sleep(hub.delay_seconds)
            if status := hub.fault(self.command, path):
                return self.say(status, {"error": "no"})
            if path.startswith("/objects/"):
                return self.store(path.rpartition("/")[2], body)
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.say(401, {"error": "Invalid username or password."})
            return self.route(path.strip("/").split("/"), body)

        do_GET = do_HEAD = do_POST = do_PUT = do_any  # noqa: N815

        def route(self, parts: list[str], body: bytes) -> None:
            if parts == ["api", "whoami-v2"]:
                return self.say(200, hub.account())
            if parts == ["api", "repos", "create"]:
                return self.create(json.loads(body))
            if parts == ["api", "validate-yaml"]:
                return self.say(200, {"errors": [], "warnings": []})
            name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2]).removesuffix(".git")
            if name not in hub.repositories:
                return self.say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            repository, rest = hub.repositories[name], parts[4:] if parts[0] == "api" else parts[2:]
            if not rest or rest[0] == "revision":
                files = [{"rfilename": file} for file in repository.files]
                facts = {"id": name, "modelId": name, "private": repository.private, "sha": repository.head}
                return self.say(200, {**facts, "siblings": files})
            if rest == ["auth-check", "write"]:
                return self.say(200, {})
            if rest[0] == "preupload":
                files = [self.mode(file) for file in json.loads(body)["files"]]
                return self.say(200, {"files": files})
            if rest[0] == "info":
                return self.batch(json.loads(body))
            if rest[0] == "commit":
                return self.say(200, hub.commit(name, body))
            if rest[0] == "resolve" and (content := repository.files.get("/".join(rest[2:]))) is not None:
                digest = hashlib.sha256(content).hexdigest()
                return self.say(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": repository.head})
            return self.say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})

        def mode(self, file: dict[str, Any]) -> dict[str, Any]:
            mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
            return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

        def create(self, asked: dict[str, Any]) -> None:
            name = f"{asked.get('organization') or 'owner'}/{asked['name']}"
            if name in hub.repositories:
                return self.say(409, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"})
            hub.repositories[name] = Repository(
                private=bool(asked.get("private")) or asked.get("visibility") == "private"
            )
            return self.say(200, {"url": f"{hub.url}/{name}", "name": name})

        def batch(self, asked: dict[str, Any]) -> None:
            def action(entry: dict[str, Any]) -> dict[str, Any]:
                href = f"{hub.url}/objects/{entry['oid']}"
                new = {"actions": {"upload": {"href": href}}} if entry["oid"] not in hub.objects else {}
                return {"oid": entry["oid"], "size": entry["size"], **new}

            self.say(200, {"transfer": "basic", "objects": [action(entry) for entry in asked["objects"]]})

        def store(self, oid: str, body: bytes) -> None:
            assert hashlib.sha256(body).hexdigest() == oid
            hub.objects[oid] = body
            hub.num_uploads += 1
            self.say(200, {})

        def chunks(self) -> bytes:
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def say(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving_hub() -> Iterator[HubServer]:
    """A server while open."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()
