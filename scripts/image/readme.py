"""The lines that the README shows, typed as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image.bench import Bench, Failed, expect_code
from image.building import ROOT, build_arguments
from image.engine import LABEL, call

# What each line must come to on a machine without a GPU; the words are how we tell them apart.
EXPECTED = {"docker build": 0, "brand-voice": 78, "runner my.yaml": 0, "validate my.yaml": 0}


def docker_lines() -> list[str]:
    """Every line of the README's code blocks that begins with `docker`, continued lines joined."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return re.findall(r"^docker .*?(?=\s*(?:#|$))", blocks.replace("\\\n", " "), re.MULTILINE)


def check_readme(bench: Bench) -> None:
    """Each line through the docker command line: to its own engine, or to podman's socket."""
    if not shutil.which("docker"):
        print("SKIPPED the README's lines: there is no docker command here", flush=True)
        return
    with _engine(bench) as environment:
        for line in docker_lines():
            bench.check(f"README: {line}", lambda b, c=line: _type(b, c, environment))


@contextmanager
def _engine(bench: Bench) -> Iterator[dict[str, str]]:
    """The environment in which `docker` finds an engine."""
    if bench.engine.name == "docker":
        yield {}
        return
    socket = bench.folder / "podman.sock"
    command = ["podman", "system", "service", "--time", "0", f"unix://{socket}"]
    service = subprocess.Popen(command, env={**os.environ, **bench.engine.environment}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not socket.exists():
            if time.monotonic() > deadline:
                raise Failed("podman's socket does not come up")
            time.sleep(0.1)
        yield {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}
    finally:
        service.terminate()
        service.wait()


def _type(bench: Bench, line: str, environment: dict[str, str]) -> str:
    """Types the line in a folder with a manifest `my.yaml`. Builds are told of the base that is here, and podman is
    not told to remove the container: it forgets the exit code when it does."""
    place = ROOT if line.startswith("docker build") else _own_folder(bench)
    typed = line.replace("docker run", f"docker run --label {LABEL}")
    if bench.engine.name == "podman":
        build = " ".join(["docker build", *build_arguments(bench.engine)])
        typed = typed.replace(" --rm", "").replace("docker build", build)
    done = call(["sh", "-c", f"cd {place} && {typed}"], environment=environment, timeout=1200)
    expect_code(done, next(code for words, code in EXPECTED.items() if words in line))
    return f"exit code {done.code} after {done.seconds:.1f} s"


def _own_folder(bench: Bench) -> Path:
    place = bench.folder / "own"
    if not place.exists():
        shutil.copytree(bench.folder / "work" / "plain", place)
        shutil.copytree(bench.folder / "work" / "model", place / "model")
        text = (place / "soak.yaml").read_text().replace("/work/model", "./model")
        (place / "my.yaml").write_text(text)
    return place
