"""A task of SkyPilot for `sky jobs launch`: any cloud, spot machines, the run directory in a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.errors import Problem
from runner.launch.job import MASTER_PORT, Job, Key, key_remarks
from runner.launch.parcel import FOLDER
from runner.launch.retry import RETRIED
from runner.launch.text import as_comment, as_yaml
from runner.sweep import VARIABLE

# SkyPilot installs itself in the container as the container's user, who must be root or may use sudo, and logs in with
# his home: our image has neither (sky/provision/docker_utils.py).
AS_ROOT = ("--user=0", "--env=HOME=/root", "--env=USER=root")


def objections(job: Job) -> Iterator[Problem]:
    """What a task cannot do, and what SkyPilot has another way for."""
    asked = job.resources
    if job.gpus and asked.gpu is None:
        yield job.problem("gpu", "SkyPilot finds a machine by the GPU's model.", "For example  gpu: H100", "gpu")
    if asked.max_hours:
        yield job.problem(
            "max-hours",
            "SkyPilot ends no job after a time.",
            "Leave it out for this target (--set resources.max_hours=null); budget.max_hours refuses a run that is "
            "expected to take longer.",
            "max_hours",
        )
    if job.idle_limit is None:
        problem = job.problem(
            "endless",
            "SkyPilot starts a job again for ever where its exit code says so; what ends that is the limit on attempts "
            "that save nothing, and the manifest has none.",
            "Leave budget.max_idle_attempts at 3.",
        )
        yield problem
    if asked.nodes > 1 and asked.volume and "://" in asked.volume:
        yield job.problem(
            "shared-disk",
            "A bucket that is mounted is not the same at the same moment on all machines.",
            "Name a volume of SkyPilot (`sky volumes ls`), or use slurm or kubeflow.",
            "volume",
        )
    yield from _elsewhere(job)


def _elsewhere(job: Job) -> Iterator[Problem]:
    """What stands in the manifest and has no place in a task."""
    ways = {
        "queue": "Choose the cloud when you submit: sky jobs launch --infra aws.",
        "keys_from": "Keys are passed when you submit: --secret HF_TOKEN.",
        "role": "The machine has the role that SkyPilot gives it (remote_identity in its configuration).",
    }
    for key, way in ways.items():
        if getattr(job.resources, key) is not None:
            yield job.problem("elsewhere", f"SkyPilot has no place for resources.{key}.", way, key, "note")


def submit(job: Job) -> str:
    """The command that hands it in; once for each point of a sweep."""
    secrets = "".join(f" {_secret(key)}" for key in job.keys)
    if not job.num_points:
        return f"sky jobs launch -y -n {job.name_of(40)}{secrets} {job.file}"
    return _each_point(job, f"sky jobs launch -y -d -n {job.name_of(40)}-$n --env {VARIABLE}=$n{secrets} {job.file}")


def _each_point(job: Job, command: str) -> str:
    return f"for n in $(seq 0 {(job.num_points or 1) - 1}); do {command}; done"


def _secret(key: Key) -> str:
    """The option that passes a key on; SkyPilot refuses one that is not set."""
    return f"--secret={key.name}" if key.is_required else f"${{{key.name}:+--secret={key.name}}}"


def write(job: Job) -> str:
    """The task as YAML."""
    asked = job.resources
    options = [*AS_ROOT, *([f"--shm-size={job.shm_gb}g"] if job.shm_gb else [])]
    volume = asked.volume
    is_bucket = volume is not None and "://" in volume
    mounts: dict[str, Any] = dict(_files(job))
    if is_bucket:
        mounts[job.mount] = {"source": volume, "mode": "MOUNT_CACHED"}
    task = {
        "name": job.name_of(40),
        "resources": {
            "image_id": f"docker:{asked.image}",
            "accelerators": f"{asked.gpu}:{job.gpus}" if job.gpus else None,
            "use_spot": asked.spot,
            "cpus": f"{asked.cpus}+" if asked.cpus else None,
            "memory": f"{asked.memory_gb}+" if asked.memory_gb else None,
            "disk_size": asked.disk_gb,
            "job_recovery": {"recover_on_exit_codes": sorted(RETRIED)},
        },
        "num_nodes": asked.nodes if asked.nodes > 1 else None,
        "config": {"docker": {"run_options": options}},
        "envs": job.environment | ({VARIABLE: "0"} if job.num_points else {}),
        "file_mounts": mounts,
        "volumes": {job.mount: volume} if volume and not is_bucket else None,
        "run": _script(job),
    }
    secrets = {"secrets": {key.name: None if key.is_required else "" for key in job.keys}} if job.keys else {}
    return _head(job) + as_yaml(task, keep=secrets)


def _files(job: Job) -> Iterator[tuple[str, str]]:
    """Each file by its place in the container: from this folder where it is below it, so that the task can be handed
    in by anybody who has a clone."""
    for name in job.parcel.names if job.parcel else ():
        path = (job.parcel.root / name).absolute() if job.parcel else Path()
        here = Path(os.path.relpath(path))
        yield f"{FOLDER}/{name}", f"{'./' if '..' not in here.parts else ''}{here if '..' not in here.parts else path}"


def _script(job: Job) -> str:
    lines = []
    if optional := [key.name for key in job.keys if not key.is_required]:
        lines.append(f'for key in {" ".join(optional)}; do [ -n "${{!key}}" ] || unset "$key"; done')
    if job.resources.nodes > 1:
        lines += [
            'export PET_NNODES="$SKYPILOT_NUM_NODES" PET_NODE_RANK="$SKYPILOT_NODE_RANK"',
            f"export PET_MASTER_PORT={MASTER_PORT} PET_NPROC_PER_NODE={job.processes}",
            'PET_MASTER_ADDR="$(head -n 1 <<< "$SKYPILOT_NODE_IPS")" && export PET_MASTER_ADDR',
        ]
    return "\n".join([*lines, "cd /work || exit 73", f"exec {job.command}", ""])


def _head(job: Job) -> str:
    name = job.name_of(40)
    results = job.fetch if job.is_mirrored else _from_volume(job)
    commands = [
        ("submit", submit(job)),
        ("watch", f"sky jobs logs -n {name}" if not job.num_points else "sky jobs queue"),
        (
            "stop",
            f"sky jobs cancel -y -n {name}"
            if not job.num_points
            else _each_point(job, f"sky jobs cancel -y -n {name}-$n"),
        ),
        ("go on", "submit it again"),
        ("results", results),
    ]
    remarks = [
        *key_remarks(job.keys, "Keys come from the environment that you submit in"),
        "A machine that is taken away, and every exit code that may pass, start the job on a new machine without end; "
        f"{job.idle_limit} attempts in a row that save nothing end with 70, which SkyPilot does not repeat.",
        "SkyPilot works in the container as root (config.docker); on Kubernetes use that exporter.",
    ]
    return as_comment(f"{name}: a managed job of SkyPilot, by `{job.again}`", commands, remarks)


def _from_volume(job: Job) -> str:
    volume = job.resources.volume or ""
    scheme = volume.partition("://")[0]
    known = {"s3": f"aws s3 sync {volume} runs", "gs": f"gcloud storage rsync -r {volume} runs"}
    return known.get(scheme, f"copy the volume {volume}, which has the run directories")
