"""Secrets are planted wherever a person has them; none is printed, kept or delivered, however a run ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from runner.errors import Exit
from tests.hub_server import serving_hub

ROOT = Path(__file__).parents[1]
Write = Callable[..., Path]
QUICK = {"gate": {"policy": "warn", "reason": "a test"}, "hyperparameters": {"epochs": 0.2}}

# One of each place, so that a leak says where it came from; put together here, as no scanner should take them for real.
HF = "hf_" + "CanaryHfCanaryHfCanaryHfCanaryHfCa"
WANDB = "0123456789abcdef" * 2 + "ca9a4100"
AWS = "Canary/Aws+Canary/Aws+Canary/Aws+Canary/A"
DATABASE = "canary-of-an-address"
IN_FILE = "canary-of-a-file-1"
NETRC = "canary0of0the0netrc0" * 2
USER, QUERY = "canary-of-a-login", "canary-of-a-query"
LITERAL, SHAPED, ARGUMENT = "canary of a manifest", "sk-" + "ant-api03-CanaryOfAManifest9", "canary-of-an-argument"
CANARIES = (HF, WANDB, AWS, DATABASE, IN_FILE, NETRC, USER, QUERY, LITERAL, SHAPED, ARGUMENT)


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it may be written; in base64 at each of the three places that a byte may have."""
    yield from {secret.encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()}
    for before in ("", "x", "xx"):
        yield base64.b64encode(f"{before}{secret}".encode())[4:-4]


class Hostile(BaseHTTPRequestHandler):
    """Serves rows to whoever asks, and repeats the credentials that it was sent in answers and refusals."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        rows = "".join(json.dumps({"prompt": f"say {i}", "completion": f"word {i % 7}"}) + "\n" for i in range(60))
        sent = f"{self.headers.get('Authorization')} {self.path}"
        status = 401 if "denied" in self.path else 404 if "missing" in self.path or "/v1/" in self.path else 200
        self.answer(status, {"/empty": "{}\n" * 20}.get(self.path.split(".")[0], rows) if status == 200 else sent)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = str(self.headers.get("Authorization"))
        message = {"role": "assistant", "content": f"You sent {sent} and {sent.partition(' ')[2]}."}
        body = {"choices": [{"message": message, "finish_reason": "stop"}], "model": sent}
        if "denied" in self.path:
            self.answer(401, json.dumps({"error": {"message": sent}}))
        else:
            self.answer(200, json.dumps(body))

    def answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


class Planted:
    """The command in a process whose environment, files and addresses hold canaries."""

    def __init__(self, folder: Path, write: Write, host: str):
        self.folder, self.write, self.host = folder, write, host
        self.home, self.out, self.cache = folder / "home", folder / "out", folder / "cache"
        self.home.mkdir()
        (self.home / ".netrc").write_text(f"machine api.wandb.ai login user password {NETRC}\n")
        (self.home / ".netrc").chmod(0o600)
        (self.home / "key").write_text(IN_FILE)
        self.said = b""

    def url(self, name: str) -> str:
        return f"http://user:{USER}@{self.host}/{name}.jsonl?token={QUERY}&n=1"

    def endpoint(self, name: str = "v1") -> dict[str, Any]:
        return {
            "base_url": f"http://{self.host}/{name}",
            "model": "m",
            "api_key_env": "LARGE_KEY",
            "timeout_seconds": 5,
        }

    def environment(self, **more: str) -> dict[str, str]:
        own = {
            "HF_TOKEN": HF,
            "WANDB_API_KEY": WANDB,
            "WANDB_MODE": "offline",
            "AWS_SECRET_ACCESS_KEY": AWS,
            "DATABASE_URL": f"postgres://user:{DATABASE}@db.test/x",
            "LARGE_KEY_FILE": str(self.home / "key"),
            "HOME": str(self.home),
            "RUNNER_CACHE": str(self.cache),
            "RUNNER_TERMINATION_LOG": str(self.folder / "termination"),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        (self.folder / "termination").touch()
        return {**os.environ, **own, **more}

    def start(self, *arguments: str | Path, code: str = "", **more: str) -> subprocess.Popen[bytes]:
        how = ["-c", code] if code else ["-m", "runner"]
        return subprocess.Popen(
            [sys.executable, *how, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __call__(self, *arguments: str | Path, code: str = "", **more: str) -> int:
        process = self.start(*arguments, code=code, **more)
        self.said, _ = process.communicate(timeout=300)
        return process.returncode

    def run(self, *arguments: str, data: str = "rows", code: str = "", more: Any = (), **changes: Any) -> int:
        manifest = self.write(
            **{"data": {"train": self.url(data)}, "tracking": {"wandb": "offline"}, **QUICK, **changes}
        )
        return self(manifest, "--out", self.out, *arguments, code=code, **dict(more))


def done(planted: Planted) -> int:
    gate = {**QUICK["gate"], "models": [{"name": "large", "endpoint": planted.endpoint()}], "arms": ["zero_shot"]}
    return planted.run(gate=gate, data="rows", delivery={"merge": True})


def said_no(planted: Planted) -> int:
    return planted.run("--set", "budget.max_hours=0.0000001")


def usage(planted: Planted) -> int:
    return planted("m.yaml", "--api-key", ARGUMENT, "--password", ARGUMENT)


def usage_of_set(planted: Planted) -> int:
    return planted(planted.write(), "--set", SHAPED, "--set", f"tracking.api_key:{ARGUMENT}")


def rejected(planted: Planted) -> int:
    return planted.run(data="empty")


def missing(planted: Planted) -> int:
    return planted.run(data="missing")


def unavailable(planted: Planted) -> int:
    end = {"base_url": f"http://127.0.0.1:9/v1?token={QUERY}", "model": "m", "api_key_env": "LARGE_KEY"}
    judge = {"endpoint": {**end, "timeout_seconds": 1}, "rubric": "Which is better?"}
    return planted.run(eval={"metrics": ["judge"], "judge": judge})


BUG = """
import os, sys
import runner.pipeline
def fail(*arguments):
    key = open(os.environ["HOME"] + "/key").read()
    raise ZeroDivisionError(f"{os.environ['HF_TOKEN']} {os.environ['AWS_SECRET_ACCESS_KEY']} {key} "
                            f"{os.environ['DATABASE_URL']}") from ValueError(os.environ["WANDB_API_KEY"])
runner.pipeline.prepare_data = fail
from runner.__main__ import main
sys.exit(main())
"""


def bug(planted: Planted) -> int:
    end = {"endpoint": planted.endpoint(), "rubric": "Which is better?"}  # so that the key's file is read
    return planted.run(code=BUG, eval={"metrics": ["exact_match"], "judge": end})


def unusable(planted: Planted) -> int:
    planted.out.mkdir()
    (planted.out / "somebody's.txt").touch()
    return planted.run()


def io_failed(planted: Planted) -> int:
    planted.cache = Path("/dev/null/cache")
    return planted.run()


def interrupted(planted: Planted) -> int:
    manifest = planted.write(data={"train": planted.url("rows")}, tracking={"wandb": "offline"}, **QUICK)
    process = planted.start(manifest, "--out", planted.out)
    events, deadline = planted.out / "events.jsonl", time.monotonic() + 120
    while not (events.exists() and '"stage": "gate"' in events.read_text()) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    planted.said, _ = process.communicate(timeout=60)
    return process.returncode


def refused_data(planted: Planted) -> int:
    return planted.run(data="denied")


def refused_endpoint(planted: Planted) -> int:
    judge = {"endpoint": planted.endpoint("denied"), "rubric": "Which is better?"}
    return planted.run(eval={"metrics": ["judge"], "judge": judge})


def refused_tracker(planted: Planted) -> int:
    more = {"WANDB_MODE": "online", "WANDB_BASE_URL": f"http://{planted.host}/denied"}
    return planted.run(tracking={"wandb": "online"}, more=more)


def pushed(planted: Planted) -> int:
    with serving_hub() as hub:
        hub.token = HF
        code = planted.run(delivery={"to": "hf://owner/tiny"}, more={**hub.environment})
        contents = hub.repositories["owner/tiny"].files
    for name, content in contents.items():  # what left the machine is searched like what stayed
        path = planted.folder / "hub" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert "adapter_model.safetensors" in contents and pickles(planted.folder / "hub") == []
    return code


def refused_push(planted: Planted) -> int:
    more = {"HF_ENDPOINT": f"http://{planted.host}/denied", "HF_HUB_OFFLINE": "0"}
    return planted.run(delivery={"to": "hf://owner/tiny"}, more=more)


def invalid(planted: Planted) -> int:
    manifest = planted.write(tracking={"wandb": "off", "api_key": LITERAL}, description=f"with {SHAPED}")
    code = planted("validate", manifest, "--format", "json")
    said = planted.said
    assert planted("validate", manifest, "--format", "github") == code
    said += planted.said
    assert planted(manifest, "--out", planted.out, "--set", f"eval.password={ARGUMENT}") == code
    planted.said += said
    return code


FAST = [(usage, Exit.USAGE), (usage_of_set, Exit.USAGE), (invalid, Exit.MANIFEST)]
SLOW = [(done, Exit.DONE), (refused_tracker, Exit.CREDENTIALS), (pushed, Exit.DONE), (refused_push, Exit.CREDENTIALS)]
LONG = [
    (said_no, Exit.SAID_NO),
    (rejected, Exit.DATA_REJECTED),
    (missing, Exit.INPUT_MISSING),
    (unavailable, Exit.UNAVAILABLE),
    (bug, Exit.BUG),
    (unusable, Exit.RUN_DIRECTORY),
    (io_failed, Exit.IO),
    (interrupted, Exit.INTERRUPTED),
    (refused_data, Exit.CREDENTIALS),
    (refused_endpoint, Exit.CREDENTIALS),
]
CASES = [
    *FAST,
    *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
    *(pytest.param(*case, marks=pytest.mark.long) for case in LONG),
]


@pytest.fixture
def planted(tmp_path: Path, write_experiment: Write) -> Iterator[Planted]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Planted(tmp_path, write_experiment, f"127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def leaks(planted: Planted) -> list[str]:
    """Where a canary stands that was planted elsewhere."""
    ours = {planted.home / "key", planted.home / ".netrc", planted.folder / "tiny.yaml"}
    contents = {"(said)": planted.said}
    contents |= {
        str(path): path.read_bytes() for path in planted.folder.rglob("*") if path.is_file() and path not in ours
    }
    return [
        f"{canary} in {name}"
        for name, content in contents.items()
        for canary in CANARIES
        if any(form in content for form in forms(canary))
    ]


@pytest.mark.parametrize(("end", "code"), CASES)
def test_no_secret_is_left_anywhere(end: Callable[[Planted], int], code: Exit, planted: Planted) -> None:
    assert end(planted) == code, planted.said.decode(errors="replace")
    assert leaks(planted) == []
    if end is done:
        asked = (planted.out / "gate" / "large.jsonl").read_text()
        assert "You sent" in asked and "***" in asked  # the server did repeat the key
        assert list((planted.out / "wandb").rglob("*.wandb")), "the tracker's files were looked at"
        assert pickles(planted.out) == [] and list((planted.out / "merged").glob("*.safetensors"))


def pickles(folder: Path) -> list[str]:
    """Files that hold a pickle: by their names, by how pickles begin, and as members of archives."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        start = path.read_bytes()[:2]
        named = path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
        held = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
        if named or (start[:1] == b"\x80" and start[1] in range(2, 6)) or any(name.endswith(".pkl") for name in held):
            found.append(str(path))
    return found


def test_the_search_finds_what_is_planted(planted: Planted) -> None:
    planted.said = f"Basic {base64.b64encode(f'api:{WANDB}'.encode()).decode()}".encode()
    (planted.folder / "left.json").write_text(json.dumps({"a": LITERAL}))
    assert len(leaks(planted)) == 2
    import torch

    torch.save({"a": 1}, planted.folder / "weights.data")
    (planted.folder / "old").write_bytes(b"\x80\x04K\x01.")
    assert sorted(map(os.path.basename, pickles(planted.folder))) == ["old", "weights.data"]
