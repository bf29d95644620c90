"""What a case did beside its answer: files outside its roots, memory, time."""

from __future__ import annotations

import contextlib
import errno
import os
import site
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITES = {
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
    "shutil.rmtree",
}
READS = {"os.listdir", "os.scandir"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"}
NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
SYSTEM = (  # what the machine tells about itself
    "/dev/null",
    "/dev/urandom",
    "/sys",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/mounts",
    "/proc/driver/nvidia/version",
    "/etc/mime.types",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Watch:
    """An audit hook: notes what is opened outside of `readable` and written outside of `writable`; cuts the network."""

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    escapes: list[str] = field(default_factory=list)
    is_on: bool = False

    def __post_init__(self) -> None:
        own = f"/proc/{os.getpid()}"  # where /proc/self leads
        self._readable = tuple(
            os.path.realpath(path)
            for path in (*self.readable, *self.writable, f"{own}/status", f"{own}/cgroup", f"{own}/mountinfo")
        )
        self._writable = tuple(os.path.realpath(path) for path in self.writable)
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open" and not isinstance(given[0], int):
            self._look("write" if isinstance(given[2], int) and given[2] & WRITING else "read", given[0])
        elif event in READS and not isinstance(given[0], int):
            self._look("list", given[0] or ".")
        elif event in WRITES:
            for name in given[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
                if not isinstance(name, int):
                    self._look("write", name)
        elif event in STARTS:
            self.escapes.append(f"{event} {given[0]!a}")
        elif event in NETWORK:
            raise OSError(errno.ENETUNREACH, "the network is cut")

    def _look(self, how: str, name: Any) -> None:
        try:
            path = os.path.realpath(os.fspath(name))
        except (ValueError, TypeError):
            return  # a name that no system call takes
        path = os.fsdecode(path)
        if how == "list" and (path == "/dev" or path in sys.path):  # whether there is a GPU, or a module
            return
        roots = self._writable if how == "write" else self._readable
        if not any(path == root or path.startswith(f"{root}/") for root in roots):
            self.escapes.append(f"{how} {path!a}")

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Notes what happens while open, in `escapes`."""
        self.escapes, self.is_on = [], True
        try:
            yield
        finally:
            self.is_on = False


def libraries() -> tuple[Path, ...]:
    """Where Python, its packages and this repository lie, and what the system tells about itself."""
    paths = sysconfig.get_paths()
    own = (sys.prefix, sys.base_prefix, paths["stdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages())
    root = Path(__file__).parents[2]
    code = (root / name for name in ("runner", "schemas", "tests", "scripts"))
    return (
        *map(Path, own),
        *code,
        *map(Path, SYSTEM),
    )


@dataclass(kw_only=True)
class Used:
    """Processor seconds, and bytes of resident memory beyond those at the start."""

    seconds: float = 0.0
    num_bytes: int = 0


@contextlib.contextmanager
def measured() -> Iterator[Used]:
    """Measures what happens while open: processor time, as the machine is shared, and the highest resident memory."""
    used = Used()
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far becomes the present
    before, began = _memory("VmRSS"), time.process_time()
    try:
        yield used
    finally:
        used.seconds = time.process_time() - began
        used.num_bytes = max(0, _memory("VmHWM") - before)


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0
