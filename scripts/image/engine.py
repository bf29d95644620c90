"""What builds images and runs containers: docker where its engine answers, else podman from Debian's packages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("podman", "buildah", "runc", "debootstrap", "fuse-overlayfs", "catatonit")
# What Debian's slim images leave out, so that the sizes mean the same.
LEFT_OUT = ("doc", "groff", "info", "lintian", "locale", "man")
BASE = "localhost/runner-base"
MOST_GB = 25  # of layers that are kept from build to build; one leaves about 3
LABEL = f"runner.test={os.getpid()}"  # of every container of ours


class Unavailable(Exception):
    """There is no engine here, and none can be installed; says why."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended: its exit code, what it wrote, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


def call(command: Sequence[str], *, timeout: float = 600, environment: dict[str, str] | None = None) -> Done:
    """Runs a command to its end. One that takes longer than `timeout` seconds is killed, and has the code 124."""
    started = time.monotonic()
    everything = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=everything, errors="replace"
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        code, out, err = 124, "", f"took longer than {timeout:.0f} s"
    return Done(code=code, out=out, err=err, seconds=time.monotonic() - started)


class Engine:
    """An engine, by its command line; docker's and podman's are the same where we need them."""

    def __init__(self, name: str, environment: dict[str, str] | None = None):
        self.name = name
        self.environment = environment or {}

    def call(self, *arguments: str, timeout: float = 600) -> Done:
        """Runs a command of the engine, without its warnings about networks that nobody asked for."""
        return call([self.name, *arguments], timeout=timeout, environment=self.environment)

    def run(self, image: str, *arguments: str, options: Sequence[str] = (), timeout: float = 600) -> Done:
        """Runs a container to its end and removes it."""
        name = f"runner-test-{os.getpid()}-{time.monotonic_ns()}"
        done = self.call("run", "--rm", "--label", LABEL, "--name", name, *options, image, *arguments, timeout=timeout)
        if done.code == 124:
            self.call("rm", "-f", name)
        return done

    def start(self, image: str, *arguments: str, options: Sequence[str] = ()) -> Container:
        """Starts a container that goes on by itself."""
        done = self.call("run", "-d", "--label", LABEL, *options, image, *arguments)
        if done.code:
            raise RuntimeError(done.err.strip())
        return Container(self, done.out.strip().splitlines()[-1])


class Container:
    """A container that was started; leaving the block removes it."""

    def __init__(self, engine: Engine, identity: str):
        self.engine = engine
        self.identity = identity

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.call("rm", "-f", "-v", self.identity)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._state()["Status"] not in ("running", "created", "initialized")

    def stop(self, seconds: int) -> float:
        """Asks it to stop, as `docker stop` does; returns the seconds until it had ended."""
        started = time.monotonic()
        self.engine.call("stop", "-t", str(seconds), self.identity)
        return time.monotonic() - started

    def kill(self) -> None:
        """Ends it at once with SIGKILL: the first process of a container takes all others with it."""
        os.kill(self._state()["Pid"], signal.SIGKILL)

    def wait(self, timeout: float = 600) -> int:
        """The exit code."""
        return int(self.engine.call("wait", self.identity, timeout=timeout).out.strip() or 124)

    def logs(self) -> str:
        """What it wrote so far."""
        return self.engine.call("logs", self.identity).text

    @property
    def pid(self) -> int:
        """The number of its first process, as this machine sees it."""
        return int(self._state()["Pid"])

    def _state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads(self.engine.call("inspect", self.identity).out)[0]["State"]
        return state


def find_engine(folder: Path) -> Engine:
    """Docker, or podman with its storage in the folder. Raises Unavailable where there is neither."""
    if shutil.which("docker") and call(["docker", "info"], timeout=20).code == 0:
        return Engine("docker")
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable("no docker engine answers, and podman is installed only as root from Debian's packages")
    if not all(shutil.which(tool) for tool in ("podman", "runc", "debootstrap")):
        print("installing podman from Debian's packages ...", flush=True)
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
        for command in (["apt-get", "update", "-q"], install):
            done = call(command, environment={"DEBIAN_FRONTEND": "noninteractive"})
        if done.code:
            raise Unavailable(f"Debian's packages cannot be installed: {done.text.strip().splitlines()[-1]}")
    _bound(folder)
    engine = Engine("podman", _configure(folder))
    if engine.call("image", "exists", BASE).code:
        _make_base(engine, folder)
    return engine


def _configure(folder: Path) -> dict[str, str]:
    """Podman for a machine that is itself a container: own storage, runc, no limits that take a privilege to raise."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    storage, containers = folder / "storage.conf", folder / "containers.conf"
    storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n')
    containers.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\nnetns = "host"\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    own = {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(containers)}
    return {**own, "TMPDIR": str(folder / "tmp"), "REGISTRIES_CONFIG_PATH": os.devnull}


def _make_base(engine: Engine, folder: Path) -> None:
    """Debian with its own Python, in the place of the official image, which only a registry has."""
    print("making a base image from Debian's packages ...", flush=True)
    root = folder / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    done = call(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", str(root)]
    )
    if done.code:
        raise Unavailable(f"debootstrap failed: {done.text.strip().splitlines()[-1]}")
    rules = "".join(f"path-exclude /usr/share/{name}/*\n" for name in LEFT_OUT)
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(rules)
    for path in (*(root / "usr/share" / name for name in LEFT_OUT), *root.rglob("__pycache__")):
        shutil.rmtree(path, ignore_errors=True)
    for path in (root / "var/cache/apt", root / "var/lib/apt/lists"):
        shutil.rmtree(path)
        path.mkdir()
    packed = folder / "base.tar"
    call(["tar", "-C", str(root), "-cf", str(packed), "."])
    search = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    done = engine.call("import", "--change", search, str(packed), BASE)
    shutil.rmtree(root)
    packed.unlink()
    if done.code:
        raise Unavailable(f"the base image cannot be stored: {done.err.strip()}")


def tidy(engine: Engine, folder: Path, *, everything: bool) -> None:
    """Leaves no container of ours and no mount; the layers of the build stay for the next time unless all is to go."""
    (folder / "pip.conf").unlink(missing_ok=True)
    ours = engine.call("ps", "-a", "-q", "--filter", f"label={LABEL}").out.split()
    if ours:
        engine.call("rm", "-f", "-v", *ours)
    if engine.name == "podman":
        _unmount(folder)
        if everything:
            shutil.rmtree(folder, ignore_errors=True)


def _unmount(folder: Path) -> None:
    """Podman's own bind mount, and what builds that were killed left mounted."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted((path for path in mounted if path.startswith(f"{folder}/")), reverse=True):
        call(["umount", path])


def _bound(folder: Path) -> None:
    """Begins anew where the layers of many builds have added up; nothing of a single one is worth keeping then."""
    size = call(["du", "-s", "--block-size=1G", str(folder / "storage")]).out.split()
    if size and int(size[0]) > MOST_GB:
        _unmount(folder)
        shutil.rmtree(folder / "storage")
