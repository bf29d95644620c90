"""Where processes that somebody else started together (torchrun, Kubeflow, srun) hear of their job."""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

from runner.backends.local.ranks import Ranks, placed

FAREWELL_SECONDS = 5.0
ARRIVAL_SECONDS = 1800.0  # a machine may still be fetching the image
TRY_SECONDS = 5.0  # during which a request to stop is not heard
MEETING_PORT = 29_400


@functools.cache
def meeting() -> Meeting:
    """Where the ranks of this job meet; each process has one."""
    return Meeting(placed(), os.environ)


def arrive(is_stopped: Callable[[], bool]) -> Meeting | None:
    """The others: the meeting, which rank 0 may open later than we come; None when asked to stop before it did.

    Raises torch's DistError where it does not.
    """
    give_up = time.monotonic() + ARRIVAL_SECONDS
    while not is_stopped():
        try:
            return meeting()
        except DistError:
            if time.monotonic() > give_up:
                raise
    return None


class Meeting:
    """Where ranks that somebody else started (torchrun, Kubeflow, srun) wait for rank 0 to have a job for them."""

    def __init__(self, ranks: Ranks, environment: Mapping[str, str]):
        self.ranks = ranks
        hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        whole = TCPStore(
            environment.get("MASTER_ADDR") or environment.get("SLURM_LAUNCH_NODE_IPADDR") or socket.gethostname(),
            int(environment.get("MASTER_PORT") or MEETING_PORT + int(environment.get("SLURM_JOB_ID", 0)) % 1000),
            ranks.size,
            is_master=ranks.rank == 0 and not hosted,
            timeout=timedelta(seconds=TRY_SECONDS),
            wait_for_workers=False,
        )
        whole.set_timeout(timedelta(seconds=ARRIVAL_SECONDS))
        self.store = PrefixStore(environment.get("TORCHELASTIC_RESTART_COUNT", "0"), whole)  # torchrun keeps it
        self.room = PrefixStore("runner/train", self.store)

    def hand_out(self, path: Path) -> None:
        """Rank 0: gives the job to the others."""
        self.store.set("runner/job", str(path.resolve()))

    def dismiss(self, exit_code: int) -> None:
        """Rank 0: lets the others go, with the same exit code; the store may be ours, so they are waited for."""
        self.store.set("runner/end", str(exit_code))
        give_up = time.monotonic() + FAREWELL_SECONDS
        while self.store.add("runner/left", 0) < self.ranks.size - 1 and time.monotonic() < give_up:
            time.sleep(0.02)

    def job(self) -> Path | None:
        """The others: the job, when there is one."""
        return Path(self.store.get("runner/job").decode()) if self.store.check(["runner/job"]) else None

    def end(self) -> int | None:
        """The others: rank 0's exit code, when it has ended."""
        if not self.store.check(["runner/end"]):
            return None
        code = int(self.store.get("runner/end"))
        self.store.add("runner/left", 1)
        return code
