"""The checks of the image can fail, and cover what they claim; `scripts/test_image` itself needs an engine."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from image import building, exits, readme  # noqa: E402
from image.contents import suspicious  # noqa: E402
from image.engine import Done  # noqa: E402

from runner.errors import EXIT_CODES  # noqa: E402


def pack(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "is_found"),
    [
        ("etc/pip.conf", b"[global]", True),
        ("root/.netrc", b"", True),
        ("opt/anything.txt", b"before canary after", True),
        ("srv/server.key", b"", True),
        ("lib/certifi/cacert.pem", b"public", False),
        ("etc/ssl/certs/ca-certificates.crt", b"public", False),
        ("etc/ssl/certs/ca-certificates.crt", b"public and canary", True),
        ("opt/anything.txt", b"nothing", False),
    ],
)
def test_what_only_the_build_may_know_is_found_in_any_layer(
    tmp_path: Path, name: str, data: bytes, is_found: bool
) -> None:
    saved = {"one/layer.tar": pack({name: data}), "two/layer.tar": pack({"etc/os-release": b"later"})}
    (tmp_path / "image.tar").write_bytes(pack({**saved, "config.json": b"{}"}))
    num_files, found = suspicious(tmp_path / "image.tar", [b"canary"])
    assert (num_files, found) == (3, [name] if is_found else [])


def test_a_secret_in_the_history_is_found(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(pack({"config.json": b'{"history": "RUN echo canary"}'}))
    assert suspicious(tmp_path / "image.tar", [b"canary"])[1] == ["(configuration)"]


def test_every_exit_code_is_reached_in_a_container() -> None:
    assert set(exits.REACHED) == set(EXIT_CODES)


def test_every_docker_line_of_the_readme_has_an_outcome() -> None:
    lines = readme.docker_lines()
    assert "docker run --gpus all runner manifests/brand-voice.yaml" in lines
    assert [line for line in lines if sum(words in line for words in readme.EXPECTED) != 1] == []


def test_what_pip_is_told_comes_from_its_files_and_before_them_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = ":env:.cert='/env.crt'\nglobal.cert='/file.crt'\nglobal.find-links='/wheels'\n"
    monkeypatch.setattr(building, "call", lambda command: Done(code=0, out=listed, err="", seconds=0.0))
    assert building.pip_settings() == {"cert": "/env.crt", "find-links": "/wheels"}
