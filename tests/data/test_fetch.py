"""Sources -> local files, over real files, a real HTTP server and the hub's own client before a small fake hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.data.fetch import LocalFile, fetch, is_hub, is_url, shown_url
from runner.errors import Exit, RunnerError

COMMIT = "a" * 40
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


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as running:
        yield running


def get(source: str, cache: Path, said: list[str] | None = None) -> LocalFile:
    (file,) = fetch(source, cache, (said if said is not None else []).append, pauses=(0.0, 0.0))
    return file


def fault(source: str, cache: Path, said: list[str] | None = None) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        get(source, cache, said)
    problem = caught.value.problems[0]
    assert problem.where.path and problem.where.key == "data.train" and problem.fix
    return caught.value


@pytest.mark.parametrize(
    ("source", "url", "hub"),
    [
        ("s3://bucket/a.jsonl", True, False),
        ("https://host/org/name@main", True, False),
        ("memory://a", True, False),
        ("simplecache::https://host/a", True, False),
        ("org/name@main", False, True),
        ("org/name@refs/convert/parquet:test", False, True),
        ("org/name@v1.0:train", False, True),
        ("org/name", False, False),
        ("name@main", False, False),
        ("/org/name@main", False, False),
        ("./name@main", False, False),
        ("data/train@v2.jsonl", False, False),
        ("org/name@", False, False),
        ("org/name@a b", False, False),
    ],
)
def test_a_source_is_a_url_a_hub_dataset_or_a_path(source: str, url: bool, hub: bool) -> None:
    assert (is_url(source), is_hub(source)) == (url, hub)


def test_a_file_that_exists_is_no_hub_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name@main").touch()
    monkeypatch.chdir(tmp_path)
    assert not is_hub("org/name@main") and is_hub("org/name@other")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host/x?token=1#f", "https://host/x"),
        ("https://host:8080/a@b/x.jsonl", "https://host:8080/a@b/x.jsonl"),
        ("http://me@[::1]:80/x", "http://[::1]:80/x"),
        ("https://user:p@ss@host/x", "https://host/x"),
        ("s3://bucket/x.jsonl", "s3://bucket/x.jsonl"),
        ("https://user:s3/b?c@host/x", "https://(hidden)"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_a_local_file_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    assert get(str(path), tmp_path / "cache") == LocalFile(
        name=str(path), path=path, sha256=sha256(ROWS).hexdigest(), num_bytes=len(ROWS)
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["missing.jsonl", "folder", "file.txt/below.jsonl", "pipe", "nul\0.jsonl"])
def test_a_local_file_that_cannot_be_read_is_a_missing_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").touch()
    os.mkfifo(tmp_path / "pipe")
    error = fault(str(tmp_path / name), tmp_path)
    assert (error.exit_code, error.problems[0].code) == (Exit.INPUT_MISSING, "data/missing")
    assert error.problems[0].where.path == str(tmp_path / name)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_how_to_allow_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch(mode=0o000)
    assert "chmod u+r" in fault(str(tmp_path / "rows.jsonl"), tmp_path).problems[0].fix


def test_a_misspelt_file_name_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    assert "Did you mean 'train.jsonl'?" in fault(str(tmp_path / "trian.jsonl"), tmp_path).problems[0].fix
    with pytest.raises(RunnerError) as caught:
        fetch(str(tmp_path / "x"), tmp_path, print, key="data.test")
    assert caught.value.problems[0].where.key == "data.test"


def test_a_url_is_downloaded_once_and_again_when_it_has_changed(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/rows.jsonl"] = [Answer(body=ROWS, headers={"ETag": '"1"'})]
    first = get(f"{server.url}/rows.jsonl", tmp_path)
    assert (first.path.read_bytes(), first.path.name, first.name) == (ROWS, "rows.jsonl", f"{server.url}/rows.jsonl")
    assert (first.sha256, first.num_bytes) == (sha256(ROWS).hexdigest(), len(ROWS))
    said: list[str] = []
    assert get(f"{server.url}/rows.jsonl", tmp_path, said) == first and not said
    assert server.asked[1][2]["If-None-Match"] == '"1"'
    server.answers["/rows.jsonl"] = [Answer(body=b"new", headers={"ETag": '"2"'})]
    assert get(f"{server.url}/rows.jsonl", tmp_path).path.read_bytes() == b"new"
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_without_an_etag_or_a_time_a_url_is_downloaded_every_time(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/rows.jsonl"] = [Answer(body=b"old"), Answer(body=b"new")]
    assert [get(f"{server.url}/rows.jsonl", tmp_path).path.read_bytes() for _ in range(2)] == [b"old", b"new"]


def test_a_copy_that_was_damaged_in_the_cache_is_downloaded_again(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/rows.jsonl"] = [Answer(body=ROWS, headers={"ETag": '"1"'})]
    get(f"{server.url}/rows.jsonl", tmp_path).path.write_bytes(b"torn")
    assert get(f"{server.url}/rows.jsonl", tmp_path).path.read_bytes() == ROWS


@pytest.mark.parametrize(
    ("status", "exit_code", "code", "tries"),
    [
        (404, Exit.INPUT_MISSING, "data/missing", 1),
        (410, Exit.INPUT_MISSING, "data/missing", 1),
        (401, Exit.CREDENTIALS, "data/refused", 1),
        (403, Exit.CREDENTIALS, "data/refused", 1),
        (429, Exit.UNAVAILABLE, "data/unavailable", 3),
        (500, Exit.UNAVAILABLE, "data/unavailable", 3),
    ],
)
def test_what_a_server_answers_decides_the_exit_code(
    server: FakeServer, tmp_path: Path, status: int, exit_code: Exit, code: str, tries: int
) -> None:
    server.answers["/x"] = [Answer(status=status)]
    error = fault(f"{server.url}/x", tmp_path)
    assert (error.exit_code, error.problems[0].code, len(server.asked)) == (exit_code, code, tries)


def test_trouble_that_passes_is_tried_again(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/x"] = [Answer(status=500), Answer(body=ROWS, cut=True), Answer(body=ROWS)]
    said: list[str] = []
    assert get(f"{server.url}/x", tmp_path, said).path.read_bytes() == ROWS
    assert [line.partition(": ")[2] for line in said[:2]] == [
        "the server answered 500; trying again in 0 s",
        "the connection was cut; trying again in 0 s",
    ]


def test_a_connection_that_is_always_cut_leaves_the_old_copy_and_no_half_file(
    server: FakeServer, tmp_path: Path
) -> None:
    server.answers["/x"] = [Answer(body=ROWS)]
    path = get(f"{server.url}/x", tmp_path).path
    server.answers["/x"] = [Answer(body=ROWS * 2, cut=True)]
    assert fault(f"{server.url}/x", tmp_path).exit_code == Exit.UNAVAILABLE
    assert path.read_bytes() == ROWS
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_a_server_that_is_not_there_is_unavailable(server: FakeServer, tmp_path: Path) -> None:
    assert fault("http://127.0.0.1:9/x", tmp_path).exit_code == Exit.UNAVAILABLE


def test_secrets_of_a_url_are_used_but_never_shown(server: FakeServer, tmp_path: Path) -> None:
    host = server.url.removeprefix("http://")
    server.answers["/x"] = [Answer(body=ROWS)]
    said: list[str] = []
    file = get(f"http://me:s3cret@{host}/x?token=s3cret", tmp_path, said)
    assert server.asked[0][1] == "/x?token=s3cret" and server.asked[0][2]["Authorization"] == "Basic bWU6czNjcmV0"
    faults = [fault(f"http://me:s3cret@{place}/y?token=s3cret", tmp_path, said) for place in (host, "127.0.0.1:9")]
    kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    told = f"{file}{said}{[error.problems for error in faults]}{kept}{list(tmp_path.rglob('*'))}"
    assert "s3cret" not in told and f"http://{host}/x" in told


def test_a_password_does_not_follow_a_redirect_to_another_server(server: FakeServer, tmp_path: Path) -> None:
    with serving(FakeServer({"/y": [Answer(body=ROWS)]})) as other:
        server.answers["/x"] = [Answer(status=302, headers={"Location": f"{other.url}/y"})]
        get(f"http://me:pw@{server.url.removeprefix('http://')}/x", tmp_path)
    assert "Authorization" in server.asked[0][2] and "Authorization" not in other.asked[0][2]


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_other_schemes_go_through_fsspec_and_are_reused_until_they_change(scheme: str, tmp_path: Path) -> None:
    import fsspec

    url = f"{scheme}://{tmp_path}/remote/rows.jsonl"
    (tmp_path / "remote").mkdir()

    def put(body: bytes) -> None:
        with fsspec.open(url, "wb") as file:
            file.write(body)

    put(ROWS)
    said: list[str] = []
    first = get(url, tmp_path / "cache", said)
    assert (first.path.read_bytes(), first.path.parent.parent) == (ROWS, tmp_path / "cache" / "downloads")
    assert get(url, tmp_path / "cache", said) == first and len(said) == 1
    put(ROWS.upper())
    assert get(url, tmp_path / "cache").path.read_bytes() == ROWS.upper()
    assert fault(f"{url}.not", tmp_path).exit_code == Exit.INPUT_MISSING
    assert fault(url.removesuffix("/rows.jsonl"), tmp_path).problems[0].code == "data/not-one-file"


def test_a_size_alone_does_not_show_that_a_file_is_unchanged(tmp_path: Path) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class FakeSystem(MemoryFileSystem):  # type: ignore[misc]
        protocol = "sizeonly"
        store: dict[str, Any] = {}  # noqa: RUF012

        def info(self, path: str, **more: Any) -> dict[str, Any]:
            return {key: super(FakeSystem, self).info(path, **more)[key] for key in ("name", "size", "type")}

    fsspec.register_implementation("sizeonly", FakeSystem, clobber=True)
    for body in (b"old", b"new"):
        FakeSystem().pipe_file(FakeSystem._strip_protocol("sizeonly://rows.jsonl"), body)
        assert get("sizeonly://rows.jsonl", tmp_path).path.read_bytes() == body


@pytest.mark.parametrize("url", ["s3://b/*.jsonl", "s3://b/part-[0-9]", "memory://folder/", "zip::https://host/x"])
def test_folders_patterns_and_chains_are_refused(url: str, tmp_path: Path) -> None:
    error = fault(url, tmp_path)
    assert (error.exit_code, error.problems[0].code) == (Exit.DATA_REJECTED, "data/not-one-file")


def test_a_missing_package_comes_with_its_install_line(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from pathlib import Path; from runner.data.fetch import fetch; from runner.errors import RunnerError\n"
        "try: fetch('s3://bucket/x', Path(sys.argv[1]), print)\n"
        "except RunnerError as error: print(int(error.exit_code), error.problems[0].fix)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "64 pip install s3fs\n"


@pytest.mark.parametrize("url", ["nosuch://host/x", "http://host:port/x", "http://[::1/x", "https:///x"])
def test_a_url_that_is_none_is_told(url: str, tmp_path: Path) -> None:
    assert fault(url, tmp_path).exit_code in (Exit.USAGE, Exit.DATA_REJECTED)


def test_a_cache_that_cannot_be_written_is_told(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/x"] = [Answer(body=ROWS)]
    (tmp_path / "file").touch()
    error = fault(f"{server.url}/x", tmp_path / "file")
    assert (error.exit_code, error.problems[0].code) == (Exit.IO, "data/cache")


# The hub


def hub_answers(name: str, files: dict[str, bytes], readme: bytes = b"") -> dict[str, list[Answer]]:
    """What the hub says of one dataset with these files."""
    files = {**files, **({"README.md": readme} if readme else {})}
    siblings = [{"rfilename": path} for path in files]
    info = {
        "id": name,
        "sha": COMMIT,
        "siblings": siblings,
        "private": False,
        "gated": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "disabled": False,
        "author": name.split("/")[0],
    }
    tree = [
        {"type": "file", "path": path, "size": len(body), "oid": sha256(body).hexdigest()[:40]}
        for path, body in files.items()
    ]
    as_json = {"Content-Type": "application/json"}
    told = [Answer(body=json.dumps(info).encode(), headers=as_json)]
    answers = {f"/api/datasets/{name}": told}
    for revision in ("main", COMMIT):
        answers[f"/api/datasets/{name}/revision/{revision}"] = told
        answers[f"/api/datasets/{name}/tree/{revision}"] = [Answer(body=json.dumps(tree).encode(), headers=as_json)]
        answers[f"/api/datasets/{name}/paths-info/{revision}"] = [
            Answer(body=json.dumps(tree).encode(), headers=as_json)
        ]
        for path, body in files.items():
            kept = {"ETag": f'"{sha256(body).hexdigest()[:40]}"', "X-Repo-Commit": COMMIT}
            answers[f"/datasets/{name}/resolve/{revision}/{path}"] = [Answer(body=body, headers=kept)]
    return answers


def no_such(what: str, status: int = 404) -> Answer:
    return Answer(status=status, headers={"X-Error-Code": what})


HUB_SAYS = {
    "/tree/": no_such("EntryNotFound"),
    "/resolve/": no_such("EntryNotFound"),
    "/api/datasets/org/name/revision/": no_such("RevisionNotFound"),
    "/api/datasets/org/gone": no_such("RepoNotFound", 401),
}


ASK = """
import json, sys
from pathlib import Path
from runner.data.fetch import fetch
from runner.errors import RunnerError
said = []
try:
    (file,) = fetch(sys.argv[1], Path(sys.argv[2]), said.append)
    import pyarrow.parquet
    rows = pyarrow.parquet.read_table(file.path).to_pylist()
    print(json.dumps({"name": file.name, "path": str(file.path), "rows": rows, "said": said}))
except RunnerError as error:
    problem = error.problems[0]
    print(json.dumps({"exit": int(error.exit_code), "code": problem.code, "what": problem.what, "fix": problem.fix,
                      "where": [problem.where.path, problem.where.key]}))
"""


def ask_hub(source: str, cache: Path, endpoint: str, offline: str = "0") -> Any:
    """`fetch` in a process of its own, whose hub is the one at `endpoint`."""
    env = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": offline,
        "HF_HOME": str(cache / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, source, str(cache)], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


PARTS = {"train.jsonl": ROWS, "test.jsonl": ROWS[:39]}


@pytest.mark.slow
def test_a_dataset_of_the_hub_becomes_one_file_and_is_then_read_without_a_network(tmp_path: Path) -> None:
    with serving(FakeServer(hub_answers("org/name", PARTS), otherwise=HUB_SAYS)) as hub:
        first = ask_hub("org/name@main", tmp_path, hub.url)
        assert first["rows"] == [json.loads(line) for line in ROWS.splitlines()]
        assert first["path"] == str(tmp_path / "hub" / "org--name" / COMMIT / "train.parquet")
        assert (first["name"], first["said"]) == ("org/name@main", ["downloading the dataset org/name@main"])
        assert ask_hub("org/name@main:test", tmp_path, hub.url)["rows"] == first["rows"][:1]
        again = ask_hub("org/name@main", tmp_path, hub.url, offline="1")
        assert (again["path"], again["rows"]) == (first["path"], first["rows"])
        assert again["said"] == ["the hub cannot be reached; org/name@main is taken from the cache"]
        assert ask_hub(f"org/name@{COMMIT}", tmp_path, hub.url, offline="1")["said"] == []
        split = ask_hub("org/name@main:nope", tmp_path, hub.url)
        assert (split["exit"], split["code"], split["fix"]) == (65, "data/unknown-split", "Use one of: train, test.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "offline", "exit_code", "code", "told"),
    [
        ("org/name@other", "0", 66, "data/missing", "no revision 'other'"),
        ("org/gone@main", "0", 66, "data/missing", "or keeps it private"),
        ("org/name@main", "1", 69, "data/unavailable", "not in the cache"),
    ],
)
def test_a_dataset_that_cannot_be_had_says_why(
    tmp_path: Path, source: str, offline: str, exit_code: int, code: str, told: str
) -> None:
    with serving(FakeServer(hub_answers("org/name", PARTS), otherwise=HUB_SAYS)) as hub:
        found = ask_hub(source, tmp_path, hub.url, offline)
    assert (found["exit"], found["code"], found["where"]) == (exit_code, code, [source, "data.train"])
    assert told in found["what"]


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    assert ask_hub("org/name@main", tmp_path, "http://127.0.0.1:9")["exit"] == 69


@pytest.mark.slow
def test_a_gated_dataset_is_refused(tmp_path: Path) -> None:
    answers = hub_answers("org/name", PARTS)
    for path in [path for path in answers if "/resolve/" in path]:
        answers[path] = [no_such("GatedRepo", 403)]
    with serving(FakeServer(answers, otherwise={"/resolve/": no_such("GatedRepo", 403), **HUB_SAYS})) as hub:
        found = ask_hub("org/name@main", tmp_path, hub.url)
    assert (found["exit"], found["code"]) == (77, "data/refused") and "gated" in found["what"]


@pytest.mark.slow
def test_several_configurations_are_listed(tmp_path: Path) -> None:
    configs = ["---", "configs:"]
    for name in ("german", "french"):
        configs += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}.jsonl"]
    answers = hub_answers(
        "org/name", {"german.jsonl": ROWS, "french.jsonl": ROWS}, "\n".join([*configs, "---"]).encode()
    )
    with serving(FakeServer(answers, otherwise=HUB_SAYS)) as hub:
        found = ask_hub("org/name@main", tmp_path, hub.url)
    assert (found["exit"], found["code"]) == (65, "data/several-configurations")
    assert "german, french" in found["what"]
