"""Builds the images, on machines too whose pip has to be told how to reach the package index."""

from __future__ import annotations

import ast
import shutil
import subprocess
import tomllib
import uuid
from pathlib import Path

from image.engine import BASE, Done, Engine, call

ROOT = Path(__file__).parents[2]
PASSED_ON = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout")
# The format of docker's own builds: podman's socket uses it, and its cache knows only layers of the same format.
OWN = {"podman": ("--pull=never", "--format", "docker"), "docker": ()}
CANARY = f"canary-{uuid.uuid4().hex}"  # in what only the build may see


def build(engine: Engine, folder: Path, target: str, tag: str) -> Done:
    """Builds a target of the Dockerfile under a tag."""
    arguments = [
        "build",
        "--target",
        target,
        *build_arguments(engine),
        *_help_for_pip(folder),
        *OWN[engine.name],
        "-t",
        tag,
        str(ROOT),
    ]
    return engine.call(*arguments, timeout=3000)


def build_arguments(engine: Engine) -> list[str]:
    """What the image is made from: our version and commit, and the base, where it is not the one of the Dockerfile."""
    found = {"VERSION": version(), "REVISION": revision()}
    if engine.name == "podman":
        digest = engine.call("inspect", "-f", "{{.Digest}}", BASE).out.strip()
        found |= {"BASE": BASE, "BASE_NAME": BASE, "BASE_DIGEST": digest}
    return [part for name, value in found.items() for part in ("--build-arg", f"{name}={value}")]


def version() -> str:
    """The version in pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def revision() -> str:
    """The commit that is built, or "unknown" outside a repository."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _help_for_pip(folder: Path) -> list[str]:
    """What this machine's pip is told, handed to the build alone: as secrets, and as a folder of wheels. Indexes in
    folders of this machine are left out: they are copies."""
    found = pip_settings()
    lines = ["[global]", f"# {CANARY}", *(f"{key} = {found[key]}" for key in PASSED_ON if _is_remote(found.get(key)))]
    handed = []
    if "cert" in found:
        lines.append("cert = /etc/ssl/certs/ca-certificates.crt")
        handed += ["--secret", f"id=ca.crt,src={found['cert']}"]
    secret = folder / "pip.conf"
    secret.touch(mode=0o600)
    secret.write_text("\n".join(lines) + "\n")
    handed += ["--secret", f"id=pip.conf,src={secret}"]
    if wheels := [path for place in found.get("find-links", "").split() for path in Path(place).glob("*.whl")]:
        (folder / "wheels").mkdir(exist_ok=True)
        for path in wheels:
            if not (folder / "wheels" / path.name).exists():
                shutil.copy(path, folder / "wheels")
        handed += ["--build-context", f"wheels={folder / 'wheels'}"]
    return handed


def pip_settings() -> dict[str, str]:
    """This machine's settings of pip, from its files and the environment; the environment counts more."""
    found = {}
    for line in sorted(call(["python3", "-m", "pip", "config", "list"]).out.splitlines(), reverse=True):
        key, _, value = line.partition("=")
        found[key.rpartition(".")[2]] = str(ast.literal_eval(value))
    return found


def _is_remote(value: str | None) -> bool:
    return bool(value) and "file:" not in str(value)
