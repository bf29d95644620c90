"""Jobs in every form that a cluster gets them in; what checks them is scripts/check_exports and the golden files."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.launch import TARGETS, Exported, Job, export, make_job
from runner.manifest import load_manifest

FOLDER = Path(__file__).parent / "job"
BUCKET = ("--out", "s3://fernhill/runs/tickets")
LARGE = "{gpu: H100, gpus: 8, cpus: 96, memory_gb: 800, disk_gb: 500, spot: true, max_attempts: 8"
AWS = "cpus: 8, memory_gb: 60, queue: gpu-spot, role: 'arn:aws:iam::123456789012:role/runner'"
AWS_SECRET = "keys_from: 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:runner-AbCdEf'"


@dataclass(frozen=True, kw_only=True)
class Case:
    """An export: to what, and the words of its command line behind the manifest."""

    target: str
    label: str
    words: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of what comes out."""
        return f"{self.label}.{self.target}.{TARGETS[self.target].ending}"


def _resources(values: str) -> tuple[str, ...]:
    return ("--set", f"resources={{image: registry.example.com/team/runner:0.1.0, {values.lstrip('{')}}}")


SWEEP = ("--set", "sweep={grid: {hyperparameters.rank: [8, 16]}, seeds: [1, 2]}")
AWKWARD = ("--set", "data.system='it''s \"so\": $HOME, `x`, yes & no'", "--set", "name='1e5'")
CASES = (
    Case(target="kubernetes", label="small", words=_resources("volume: runs")),
    Case(
        target="kubernetes",
        label="large",
        words=(*_resources(f"{LARGE}, queue: team, max_hours: 12, keys_from: keys, role: trainer"), *BUCKET, *AWKWARD),
    ),
    Case(target="kubernetes", label="sweep", words=(*_resources("volume: runs, gpus: 1"), *SWEEP)),
    Case(target="kubeflow", label="one", words=(*_resources("gpu: L4, queue: team"), *BUCKET)),
    Case(target="kubeflow", label="two", words=_resources(f"{LARGE}, nodes: 2, volume: shared")),
    Case(target="skypilot", label="spot", words=(*_resources("gpu: H100, spot: true"), *BUCKET, *AWKWARD)),
    Case(target="skypilot", label="two", words=_resources(f"{LARGE}, nodes: 2, volume: shared")),
    Case(target="skypilot", label="sweep", words=(*_resources("gpu: L4, volume: 's3://fernhill'"), *SWEEP)),
    Case(target="slurm", label="one", words=(*_resources("gpu: H100, max_hours: 12, queue: gpu"), *BUCKET, *AWKWARD)),
    Case(target="slurm", label="two", words=_resources("gpus: 4, nodes: 2, cpus: 32, memory_gb: 200, disk_gb: 100")),
    Case(target="slurm", label="sweep", words=(*_resources("gpus: 1, volume: /shared/me"), *SWEEP)),
    Case(
        target="awsbatch",
        label="spot",
        words=(*_resources(f"{AWS}, {AWS_SECRET}, gpus: 1, max_hours: 12"), *BUCKET, "--at", "/work/tickets.yaml"),
    ),
    Case(
        target="awsbatch",
        label="sweep",
        words=(
            *_resources(f"{AWS}, {AWS_SECRET}, gpus: 4, volume: fs-0123456789abcdef0/fsap-0123456789abcdef0"),
            *SWEEP,
            *("--at", "/work/tickets.yaml"),
        ),
    ),
)


def carry_out(case: Case) -> tuple[Job, Exported]:
    """The job of a case, as the command line makes it in the manifest's folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out")
    parser.add_argument("--at")
    args = parser.parse_args(case.words)
    with in_folder():
        manifest = load_manifest(Path("tickets.yaml"), args.set)
        job = make_job(manifest, out=args.out, at=args.at, file=case.file, again=f"runner export {case.target} ...")
        return job, export(case.target, manifest, job)


@contextlib.contextmanager
def in_folder() -> Iterator[None]:
    """The working directory is the manifest's folder, while open."""
    before = Path.cwd()
    os.chdir(FOLDER)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    for one in CASES:
        (Path(sys.argv[1]) / one.file).write_text(carry_out(one)[1].text)
