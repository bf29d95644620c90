"""The control groups around this process, of version 1 and 2: where limits of a container or a job stand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def folders(controller: str, root: Path = ROOT) -> Iterator[tuple[Path, int]]:
    """The folders of a controller's groups, this process's own first, and the version (1 or 2) of each.

    A container may see the topmost alone. `root` is a folder that holds proc and sys.
    """
    tree = root / "sys/fs/cgroup"
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own = Path(path.lstrip("/"))
            if controller in controllers.split(","):
                mounted = next((tree / name for name in (controller, controllers) if (tree / name).is_dir()), tree)
                yield from _chain(mounted, own, 1)
            elif not controllers:
                yield from _chain(tree, own, 2)


def _chain(tree: Path, own: Path, version: int) -> Iterator[tuple[Path, int]]:
    for folder in (own, *own.parents):
        yield tree / folder, version


def cpu_limit(root: Path = ROOT) -> float | None:
    """Processors that the groups around us may use together at most, such as 1.5; None: no limit is set."""
    limits = []
    for folder, version in folders("cpu", root):
        with contextlib.suppress(OSError, ValueError):
            quota, period = _quota_v2(folder) if version == 2 else _quota_v1(folder)
            limits += [quota / period] if quota > 0 and period > 0 else []
    return min(limits, default=None)


def _quota_v2(folder: Path) -> tuple[int, int]:
    quota, period = (folder / "cpu.max").read_text().split()  # "max" is no number, and no limit
    return int(quota), int(period)


def _quota_v1(folder: Path) -> tuple[int, int]:
    quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return quota, period  # a quota of -1 is none
