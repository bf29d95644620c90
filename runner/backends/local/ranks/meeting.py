"""Where processes that somebody else started together (torchrun, Kubeflow, srun) hear of their job."""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from runner.backends.local.ranks import Ranks, placed

FAREWELL_SECONDS = 5.0
MEETING_PORT = 29_400


@functools.cache
def meeting() -> Meeting:
    """Where the ranks of this job meet; each process has one."""
    return Meeting(placed(), os.environ)


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
            timeout=timedelta(minutes=10),
        )
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
