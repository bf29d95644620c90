"""A batch script of SLURM that runs the image by Apptainer; a sweep is an array."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from runner.credentials import OF_LIBRARIES
from runner.errors import Problem
from runner.launch.job import CACHE, MASTER_PORT, OUT, Job, Key, key_remarks
from runner.launch.parcel import FOLDER
from runner.launch.retry import GRACE_SECONDS, RETRIED
from runner.launch.text import as_comment
from runner.sweep import VARIABLE

KEYS = "/run/secrets"
SCRIPT = """\
set -uo pipefail

{settings}
mkdir -p "$volume/runs" "$volume/cache"{made}
{keys}{nodes}{point}
trap : TERM # the steps are told too; this shell waits for them
srun --kill-on-bad-exit=1 apptainer run {options} \\
  --home "$volume/cache:{cache}" --bind "$volume/runs:{out}" --bind "$folder:{folder}:ro"{binds} \\
  "$image" {arguments}
code=$?

# What may pass is tried again; SLURM itself starts a job again whose machine was taken away or lost.
attempt=$((${{SLURM_RESTART_COUNT:-0}} + 1))
case $code in
  {codes})
    if [ "$attempt" -lt "$max_attempts" ]; then
      echo "attempt $attempt of $max_attempts ended with $code; the job is queued again" >&2
      scontrol requeue "$SLURM_JOB_ID" && exit "$code"
    fi
    echo "attempt $attempt of $max_attempts ended with $code; that was the last" >&2
    ;;
esac
exit "$code"
"""


def objections(job: Job) -> Iterator[Problem]:
    """What a script cannot do, and what SLURM has another way for."""
    asked = job.resources
    if job.parcel and not (job.parcel.root.absolute()).is_relative_to(Path.cwd()):
        yield job.problem(
            "outside",
            f"The manifest or its files are outside this folder, and SLURM starts the job in it: {job.parcel.root}",
            "Export, and later submit, in a folder that is above all of them, on the disk that the machines share.",
        )
    for key in ("volume", "keys_from"):
        folder = getattr(asked, key)
        if folder is not None and not folder.startswith("/"):
            yield job.problem(
                "folder",
                f"'{folder}' is no folder of the shared disk.",
                f"Write an absolute path, for example  {key}: /shared/me/{key.partition('_')[0]}",
                key,
            )
    ways = {
        "spot": "Choose a partition whose jobs may be taken away: resources.queue.",
        "role": "The job runs as the user who submits it.",
        "shm_gb": "The machine's own shared memory is used.",
    }
    for key, way in ways.items():
        if getattr(asked, key) not in (None, False):
            yield job.problem("elsewhere", f"SLURM has no place for resources.{key}.", way, key, "note")


def submit(job: Job) -> str:
    """The command that hands it in."""
    return f"sbatch {job.file}"


def write(job: Job) -> str:
    """The script."""
    return "#!/bin/bash\n" + _head(job) + "".join(f"#SBATCH {line}\n" for line in _options(job)) + _script(job)


def _options(job: Job) -> Iterator[str]:
    """One task that starts its own processes on one machine; on several, one task a GPU."""
    asked = job.resources
    tasks = job.processes if asked.nodes > 1 else 1
    yield f"--job-name={job.title}"
    yield f"--output={job.title}-{'%A_%a' if job.num_points else '%j'}.log"
    yield "--open-mode=append"
    yield f"--nodes={asked.nodes}"
    yield f"--ntasks-per-node={tasks}"
    if job.gpus:
        yield f"--gpus-per-node={asked.gpu.lower() + ':' if asked.gpu else ''}{job.gpus}"
    if asked.cpus:
        yield f"--cpus-per-task={max(1, asked.cpus // tasks)}"
    if asked.memory_gb:
        yield f"--mem={asked.memory_gb}G"
    if asked.disk_gb:
        yield f"--tmp={asked.disk_gb}G"
    if asked.max_hours:
        yield f"--time={max(1, round(asked.max_hours * 60))}"
    if asked.queue:
        yield f"--partition={asked.queue}"
    if job.num_points:
        yield f"--array=0-{job.num_points - 1}"
    yield f"--signal=TERM@{GRACE_SECONDS}"
    yield "--requeue"


def _script(job: Job) -> str:
    asked = job.resources
    folder = '"$SLURM_SUBMIT_DIR"'
    if job.parcel and (below := os.path.relpath(job.parcel.root)) != ".":
        folder = f'"$SLURM_SUBMIT_DIR"/{shlex.quote(below)}'
    settings = [
        f"image={shlex.quote(_image(asked.image or ''))}",
        f"folder={folder}",
        f"volume={shlex.quote(asked.volume) if asked.volume else folder}",
        f"max_attempts={asked.max_attempts}",
    ]
    if job.keys:
        settings.append("keys=" + (shlex.quote(asked.keys_from) if asked.keys_from else '"$HOME"/.runner-keys'))
    out = f" --bind {shlex.quote(f'{job.out}:{job.out}')}" if job.out and not job.is_mirrored else ""
    return SCRIPT.format(
        settings="\n".join(settings),
        keys="".join(_keys(job)),
        nodes=_nodes(job) if asked.nodes > 1 else "",
        point=f'export {VARIABLE}="$SLURM_ARRAY_TASK_ID"\n' if job.num_points else "",
        options=("--nv " if job.gpus else "") + "--pwd /work",
        cache=CACHE,
        out=OUT,
        folder=FOLDER,
        made=f" {shlex.quote(job.out)}" if out and job.out else "",
        binds=out + (f' --bind "$keys:{KEYS}:ro"' if job.keys else ""),
        arguments=shlex.join(job.arguments),
        codes="|".join(map(str, sorted(RETRIED))),
    )


def _held(job: Job) -> list[Key]:
    """The keys that a file may hold; the rest of the environment goes along by itself."""
    return [key for key in job.keys if key.is_required or key.name in OF_LIBRARIES]


def _keys(job: Job) -> Iterator[str]:
    """Keys as files, which the queue's records do not keep; the container sees their folder."""
    yield 'mkdir -p "$keys" && chmod 700 "$keys"\n'
    for key in _held(job):
        has = f'[ -r "$keys/{key.name}" ]'
        given = f"export {key.name}_FILE={KEYS}/{key.name}"
        if key.is_required:
            yield f'{has} || {{ echo "no key: $keys/{key.name}" >&2; exit 77; }}\n{given}\n'
        else:
            yield f"if {has}; then {given}; fi\n"


def _nodes(job: Job) -> str:
    """Where the processes meet: on the first machine."""
    return (
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
        f"MASTER_PORT=$(({MASTER_PORT} + SLURM_JOB_ID % 1000))\n"
        "export MASTER_ADDR MASTER_PORT\n"
    )


def _image(image: str) -> str:
    """A path or a URL as it is, another name as an image of a registry."""
    return image if "://" in image or image.startswith(("/", "./")) or image.endswith(".sif") else f"docker://{image}"


def _head(job: Job) -> str:
    number = "JOBID"
    commands = [
        (
            "submit",
            f"{submit(job)} (in the folder where this was exported; with what your cluster wants, as --account=...)",
        ),
        ("watch", f"squeue --me; tail -f {job.title}-{'*' if job.num_points else number}.log"),
        ("stop", f"scancel {number}"),
        ("go on", submit(job)),
        ("results", job.fetch if job.is_mirrored else "they are in runs/ of the volume below"),
    ]
    remarks = [
        *key_remarks(_held(job), "A file for each key in the folder of keys below, which only you may read"),
        "Apptainer makes a .sif file of the image when it is first used: do that once, with `apptainer pull runner.sif "
        "docker://...` on the shared disk, and name the file as resources.image.",
    ]
    return as_comment(f"{job.title}: a batch script of SLURM, by `{job.again}`", commands, remarks)
