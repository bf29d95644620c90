"""URLs -> local files, over a real HTTP server and fsspec's own file systems."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.data.reading.download import shown_url
from runner.errors import Exit
from tests.data.reading.server import ROWS, Answer, FakeServer, fault, get, serving


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
        "from pathlib import Path; from runner.data.reading import fetch; from runner.errors import RunnerError\n"
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


def test_a_bracket_in_the_host_is_no_pattern(tmp_path: Path) -> None:
    assert fault("http://[::1]:9/x", tmp_path).exit_code == Exit.UNAVAILABLE
    assert fault("http://[::1]:9/*.jsonl", tmp_path).problems[0].code == "data/not-one-file"


def test_a_user_without_a_password_has_an_empty_one(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/x"] = [Answer(body=ROWS)]
    get(f"http://t0ken@{server.url.removeprefix('http://')}/x", tmp_path)
    assert server.asked[0][2]["Authorization"] == "Basic dDBrZW46"


def test_a_long_name_of_many_letters_can_be_kept(server: FakeServer, tmp_path: Path) -> None:
    path = "/" + "%E5%AD%97" * 120 + ".jsonl"
    server.answers[path] = [Answer(body=ROWS)]
    assert get(f"{server.url}{path}", tmp_path).path.suffix == ".jsonl"


def test_not_modified_is_no_answer_to_a_first_question(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/x"] = [Answer(status=304)]
    assert fault(f"{server.url}/x", tmp_path).exit_code == Exit.UNAVAILABLE


@pytest.mark.parametrize(("status", "exit_code"), [(403, Exit.CREDENTIALS), (410, Exit.INPUT_MISSING)])
def test_the_status_is_found_in_the_response_that_an_error_holds(
    tmp_path: Path, status: int, exit_code: Exit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class FakeError(Exception):
        response = SimpleNamespace(status_code=status)

    def refuse(*_: Any, **__: Any) -> None:
        raise FakeError

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    assert fault("memory://x.jsonl", tmp_path).exit_code == exit_code


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_not_be_written_is_no_matter_of_credentials(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/x"] = [Answer(body=ROWS)]
    path = get(f"{server.url}/x", tmp_path).path
    path.parent.chmod(0o555)
    assert fault(f"{server.url}/x", tmp_path).problems[0].code == "data/cache"
    path.parent.chmod(0o755)
