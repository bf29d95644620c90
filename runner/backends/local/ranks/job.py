"""A job as the processes that train it together read it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.backends.base import CheckpointPlan, Hyperparameters, TrainJob
from runner.backends.local.encoded import EncodedRows
from runner.files import write_whole


@dataclass(frozen=True, kw_only=True)
class RankJob:
    """A job as its ranks read it: which model, which rows (tokenized once, before the ranks start), what to do."""

    model: str
    method: str
    cache: Path
    trust_remote_code: bool
    name: str
    job: TrainJob
    rows: EncodedRows
    dev: EncodedRows

    def write(self) -> Path:
        """The job as a file of its work folder."""
        folder = self.job.work_dir
        folder.mkdir(parents=True, exist_ok=True)
        job = {k: v for k, v in vars(self.job).items() if k not in ("train", "dev", "hyperparameters", "checkpoint")}
        values = {
            "model": self.model,
            "method": self.method,
            "cache": str(self.cache.resolve()),
            "trust_remote_code": self.trust_remote_code,
            "name": self.name,
            "job": {**job, "work_dir": str(folder.resolve()), "model_dir": str(self.job.model_dir.resolve())},
            "hyperparameters": asdict(self.job.hyperparameters),
            "checkpoint": asdict(self.job.checkpoint),
            "rows": self.rows.save(folder / "rows.npz"),
            "dev": self.dev.save(folder / "dev.npz"),
        }
        return write_whole(folder / "job.json", json.dumps(values))

    @classmethod
    def read(cls, path: Path) -> RankJob:
        """The job of a file."""
        values = json.loads(path.read_text())
        hyper, job = values["hyperparameters"], values["job"]
        modules = hyper["target_modules"]
        return cls(
            model=values["model"],
            method=values["method"],
            cache=Path(values["cache"]),
            trust_remote_code=values["trust_remote_code"] is True,
            name=values["name"],
            job=TrainJob(
                **{**job, "work_dir": Path(job["work_dir"]), "model_dir": Path(job["model_dir"])},
                train=(),
                dev=(),
                hyperparameters=Hyperparameters(**{**hyper, "target_modules": tuple(modules) if modules else None}),
                checkpoint=CheckpointPlan(**values["checkpoint"]),
            ),
            rows=EncodedRows.open(values["rows"]),
            dev=EncodedRows.open(values["dev"]),
        )
