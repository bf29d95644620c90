"""One holder of a directory, also where a lock of one machine says nothing to another: network mounts and FUSE."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import SoftFileLease

NAME = ".lease"
LEASE_SECONDS = 20.0  # without a sign of life, after which the holder's machine is taken for lost
HEARTBEAT_SECONDS = 1.0
# File systems on which flock(2) reaches everybody who could open the directory; see mountinfo in proc(5).
LOCAL_TYPES = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "overlay", "tmpfs", "ramfs", "vfat"}


def is_local(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether a lock on this path holds against every other process that can see it; unknown is no."""
    real = os.path.realpath(path)
    best, kind = "", ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in mounts.read_text().splitlines():
            fields = line.split(" ")
            point = fields[4].encode().decode("unicode_escape")  # spaces are written \040
            inside = point == "/" or real == point or real.startswith(point + "/")
            if inside and len(point) >= len(best):  # of two mounts on one point the later one is seen
                best, kind = point, fields[fields.index("-") + 1]
    return kind in LOCAL_TYPES


def take_lease(folder: Path, lost: Callable[[], None]) -> SoftFileLease | None:
    """The lease on a folder, refreshed until it is released; None when another holder shows signs of life.

    A holder on this machine that is dead is followed at once, one on another machine after LEASE_SECONDS without a
    refresh. `lost` is called, by another thread, when the lease was taken away meanwhile. Raises OSError.
    """
    from filelock import SoftFileLease, Timeout  # a tenth of a second, which local directories need not wait for

    lease = SoftFileLease(
        folder / NAME,
        lease_duration=LEASE_SECONDS,
        heartbeat_interval=HEARTBEAT_SECONDS,
        on_compromise=lambda _: lost(),
        thread_local=False,
        timeout=HEARTBEAT_SECONDS / 4,
    )
    seen = _refreshed(folder)
    give_up = time.monotonic() + 2 * LEASE_SECONDS
    while time.monotonic() < give_up:
        try:
            lease.acquire()
            return lease
        except Timeout:
            now = _refreshed(folder)
            if seen is not None and now is not None and now != seen:
                return None
            seen = now
    return None


def is_refreshed(folder: Path) -> bool:
    """Whether the folder's lease had a sign of life within LEASE_SECONDS."""
    seen = _refreshed(folder)
    return seen is not None and abs(time.time() - seen / 1e9) < LEASE_SECONDS


def _refreshed(folder: Path) -> int | None:
    """When the holder last refreshed its lease; read through an open file, which network mounts do not answer from
    memory."""
    with contextlib.suppress(OSError), (folder / NAME).open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
    return None
