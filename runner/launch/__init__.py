"""What a run is to a cluster: one job from the manifest, written as each cluster wants it. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.errors import Exit, Problem, RunnerError, Where
from runner.launch import awsbatch, kubeflow, kubernetes, skypilot, slurm
from runner.launch.job import OUT, Job, make_job, told_elsewhere
from runner.manifest import Manifest
from runner.masking import masked

__all__ = ["TARGETS", "Exported", "Job", "Target", "check_output", "export", "make_job"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of cluster: how it wants a job written, what it cannot do, what to type next, and a file's ending."""

    write: Callable[[Job], str]
    objections: Callable[[Job], Iterator[Problem]]
    submit: Callable[[Job], str]
    ending: str
    keeps_files: bool = False


TARGETS: dict[str, Target] = {
    "skypilot": Target(write=skypilot.write, objections=skypilot.objections, submit=skypilot.submit, ending="yaml"),
    "kubernetes": Target(
        write=kubernetes.write, objections=kubernetes.objections, submit=kubernetes.submit, ending="yaml"
    ),
    "kubeflow": Target(write=kubeflow.write, objections=kubeflow.objections, submit=kubeflow.submit, ending="yaml"),
    "slurm": Target(write=slurm.write, objections=slurm.objections, submit=slurm.submit, ending="sh", keeps_files=True),
    "awsbatch": Target(write=awsbatch.write, objections=awsbatch.objections, submit=awsbatch.submit, ending="sh"),
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A job as a text, what is worth knowing about it, and the command that hands it in."""

    text: str
    findings: tuple[Problem, ...]
    following: str


def export(name: str, manifest: Manifest, job: Job) -> Exported:
    """The job as the target wants it; raises RunnerError (78) with everything that it cannot do, each with its cure."""
    target = TARGETS[name]
    problems = [
        manifest.place(p) for p in (*_general(job, target), *_secrets(job), *_small(job), *target.objections(job))
    ]
    if any(problem.severity == "error" for problem in problems):
        raise RunnerError(problems, Exit.MANIFEST)
    findings = (*told_elsewhere(manifest, job), *problems)
    return Exported(text=target.write(job), findings=findings, following=target.submit(job))


def _general(job: Job, target: Target) -> Iterator[Problem]:
    """What every cluster needs, and no cluster can do."""
    if job.resources.image is None:
        yield job.problem(
            "no-image",
            "There is nothing to run: the manifest names no image.",
            "Push the image where the cluster pulls from, and name it:  image: registry.example.com/team/runner:0.1.0",
            "image",
        )
    if not (job.is_mirrored or job.is_on_volume or target.keeps_files):
        yield job.problem(
            "nothing-kept",
            "Nothing of the run would outlive its machine.",
            "Name a bucket, --out s3://bucket/prefix, or a volume of the cluster in resources.volume (which is mounted "
            f"at {OUT}: an --out of your own has to be below it).",
            "volume",
        )
    if job.resources.nodes > 1 and job.is_mirrored:
        yield job.problem(
            "shared-disk",
            "The machines have to see the run directory at the same time, and a bucket is not that.",
            "Leave --out away and name a disk that all of them mount in resources.volume.",
            "nodes",
        )
    if job.resources.nodes > 1 and job.resources.volume is None and not target.keeps_files:
        yield job.problem(
            "shared-disk",
            "The machines have to see the run directory at the same time.",
            "Name a disk that all of them mount in resources.volume.",
            "volume",
        )


def _secrets(job: Job) -> Iterator[Problem]:
    """A job is a file that others read, and what is masked in it would not run."""
    texts = list(job.arguments)
    if job.parcel:
        texts.append((job.parcel.root / job.parcel.manifest).read_text(encoding="utf-8"))
    if any(masked(text) != text for text in texts):
        yield job.problem(
            "secret",
            "The manifest or the command line holds a login or a key, which the job would hold too.",
            "Take it out; keys are passed by the names of their variables, as HF_TOKEN.",
        )


def _small(job: Job) -> Iterator[Problem]:
    if job.resources.nodes > 1 and job.is_embedded:
        yield job.problem(
            "small-model",
            "The embedded model is so small that several machines gain nothing.",
            "Write nodes: 1.",
            "nodes",
            "note",
        )


def check_output(path: Path, manifest: Path, job: Job) -> None:
    """Raises RunnerError (64) where writing the job would put it over the manifest, or over a file that goes along."""
    along = [job.parcel.root / name for name in job.parcel.names] if job.parcel else []
    if path.resolve() in [one.resolve() for one in (manifest, *along)]:
        problem = Problem(
            code="export/output",
            what="The job would be written over a file that it is made from.",
            where=Where(path=str(path)),
            fix="Give it another name with --output.",
        )
        raise RunnerError(problem, Exit.USAGE)
