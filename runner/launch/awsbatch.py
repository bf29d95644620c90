"""A shell script that registers a job definition of AWS Batch and submits it; a sweep is an array job."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from runner.errors import EXIT_CODES, Problem
from runner.launch.job import BUCKET_KEYS, OUT, Job, Key
from runner.launch.text import as_comment, without_empty

MOST_ATTEMPTS = 10
MOST_RULES = 5
ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/\S+")
SECRET = re.compile(r"arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:\S+")
FILE_SYSTEM = re.compile(r"fs-[0-9a-f]+(/fsap-[0-9a-f]+)?")


def objections(job: Job) -> Iterator[Problem]:
    """What AWS Batch cannot do or has to be told, and what it decides elsewhere."""
    asked = job.resources
    if asked.nodes > 1:
        yield job.problem(
            "nodes",
            "The machines of AWS Batch's multi-node jobs are not started together again when one of them is lost.",
            "Use nodes: 1 with several GPUs, or skypilot, kubeflow or slurm.",
            "nodes",
        )
    if asked.max_attempts > MOST_ATTEMPTS:
        what = f"AWS Batch tries a job {MOST_ATTEMPTS} times at most."
        yield job.problem("attempts", what, f"Write max_attempts: {MOST_ATTEMPTS}.", "max_attempts")
    if job.parcel:
        yield job.problem(
            "no-files",
            "AWS Batch takes no files along.",
            "Put manifest and data into an image of your own (FROM the runner's; COPY . /work) and give the manifest's "
            "place there:  --at /work/my.yaml",
        )
    for key, example in (("queue", "gpu-spot"), ("cpus", "8"), ("memory_gb", "60")):
        if getattr(asked, key) is None:
            yield job.problem("missing", f"AWS Batch needs resources.{key}.", f"For example  {key}: {example}", key)
    yield from _forms(job)
    yield from _elsewhere(job)


def _forms(job: Job) -> Iterator[Problem]:
    """Names that AWS would not take."""
    asked = job.resources
    wanted = (
        ("role", ROLE, "the ARN of an IAM role", "arn:aws:iam::123456789012:role/runner"),
        ("keys_from", SECRET, "the ARN of a secret of Secrets Manager", "arn:aws:secretsmanager:REGION:ID:secret:NAME"),
        ("volume", FILE_SYSTEM, "an EFS file system", "fs-0123456789abcdef0/fsap-0123456789abcdef0"),
    )
    for key, pattern, what, example in wanted:
        value = getattr(asked, key)
        if value is not None and not pattern.fullmatch(value):
            yield job.problem("name", f"'{value}' is not {what}.", f"For example  {key}: {example}", key)
    required = [key.name for key in job.keys if key.is_required]
    if required and asked.keys_from is None:
        yield job.problem(
            "no-keys",
            f"The run needs {', '.join(required)}, and nothing says where AWS keeps them.",
            "Put them into a secret of Secrets Manager, as JSON, and name its ARN in keys_from.",
            "keys_from",
        )
    if asked.keys_from and asked.role is None:
        yield job.problem(
            "no-role", "Secrets are read by a role that may do so.", f"For example  role: {wanted[0][3]}", "role"
        )


def _elsewhere(job: Job) -> Iterator[Problem]:
    compute = "It is a property of the compute environment behind the queue; choose resources.queue accordingly."
    for key in ("gpu", "spot", "disk_gb"):
        if getattr(job.resources, key) not in (None, False):
            yield job.problem(
                "elsewhere", f"A job of AWS Batch has no place for resources.{key}.", compute, key, "note"
            )
    if job.keys and job.resources.keys_from is None:
        names = " and ".join(key.name for key in job.keys)
        fix = "Name a secret in keys_from if it is to have them; buckets are open to its role."
        yield job.problem("elsewhere", f"The job gets no {names}.", fix, "keys_from", "note")


def submit(job: Job) -> str:
    """The command that hands it in."""
    return f"bash {job.file}"


def write(job: Job) -> str:
    """The script: two calls, the second of the job definition that the first made."""
    definition, submission = (
        json.dumps(without_empty(part), indent=2) for part in (_definition(job), _submission(job))
    )
    return (
        f"#!/bin/bash\n{_head(job)}set -euo pipefail\n\n"
        f"aws batch register-job-definition --cli-input-json {shlex.quote(definition)}\n\n"
        f"aws batch submit-job --cli-input-json {shlex.quote(submission)}\n"
    )


def retry_rules() -> list[dict[str, str]]:
    """Five at most, so those that are killed (137, 143) are not among them: a lost machine shows as its reason. What no
    rule names would be tried again, so the last one names everything."""
    codes = [str(int(code)) for code, meaning in EXIT_CODES.items() if meaning.retry]
    rules = [{"onStatusReason": "Host EC2*", "action": "RETRY"}]
    rules += [{"onExitCode": code, "action": "RETRY"} for code in codes]
    return [*rules, {"onReason": "*", "action": "EXIT"}]


def _definition(job: Job) -> dict[str, Any]:
    asked = job.resources
    needs = {"VCPU": asked.cpus, "MEMORY": (asked.memory_gb or 0) * 1000_000_000 // 2**20, "GPU": job.gpus or None}
    return {
        "jobDefinitionName": job.title,
        "type": "container",
        "platformCapabilities": ["EC2"],
        "retryStrategy": {"attempts": asked.max_attempts, "evaluateOnExit": retry_rules()},
        "timeout": {"attemptDurationSeconds": max(60, round(asked.max_hours * 3600))} if asked.max_hours else None,
        "containerProperties": {
            "image": asked.image,
            "command": list(job.arguments),
            "environment": [{"name": name, "value": value} for name, value in _environment(job).items()],
            "secrets": [{"name": k.name, "valueFrom": f"{asked.keys_from}:{k.name}::"} for k in _keys(job)],
            "resourceRequirements": [{"type": kind, "value": str(n)} for kind, n in needs.items() if n],
            "jobRoleArn": asked.role,
            "executionRoleArn": asked.role if asked.keys_from else None,
            "linuxParameters": {"sharedMemorySize": job.shm_gb * 1024 if job.shm_gb else None},
            **_volume(job),
        },
    }


def _keys(job: Job) -> list[Key]:
    """All that the secret has to hold: a key that is not there keeps the container from starting. Buckets are the
    role's affair."""
    of_buckets = {name for names in BUCKET_KEYS.values() for name in names}
    return [key for key in job.keys if key.name not in of_buckets] if job.resources.keys_from else []


def _environment(job: Job) -> dict[str, str]:
    return job.environment | ({"RUNNER_POINT": "0"} if job.num_points == 1 else {})  # an array has two jobs at least


def _volume(job: Job) -> dict[str, Any]:
    if job.resources.volume is None:
        return {}
    system, _, point = job.resources.volume.partition("/")
    efs = {
        "fileSystemId": system,
        "transitEncryption": "ENABLED",
        "authorizationConfig": {"accessPointId": point, "iam": "ENABLED"} if point else None,
    }
    return {
        "volumes": [{"name": "volume", "efsVolumeConfiguration": efs}],
        "mountPoints": [{"sourceVolume": "volume", "containerPath": job.mount, "readOnly": False}],
    }


def _submission(job: Job) -> dict[str, Any]:
    several = job.num_points is not None and job.num_points > 1
    return {
        "jobName": job.title,
        "jobQueue": job.resources.queue,
        "jobDefinition": job.title,
        "arrayProperties": {"size": job.num_points} if several else None,
    }


def _head(job: Job) -> str:
    keys = _keys(job)
    commands = [
        ("submit", submit(job)),
        ("watch", "aws batch describe-jobs --jobs JOBID; aws logs tail /aws/batch/job --follow"),
        ("stop", "aws batch terminate-job --job-id JOBID --reason stopped"),
        ("go on", submit(job)),
        (
            "results",
            job.fetch if job.is_mirrored else f"copy them from {job.resources.volume}, which is {OUT} of the job",
        ),
    ]
    remarks = [
        *([f"The secret is JSON that holds each of {', '.join(key.name for key in keys)}."] if keys else []),
        "Codes that may pass, and a machine that was taken away, are tried again. An attempt that is killed, or ended "
        "by the timeout, is not: AWS Batch takes five rules.",
    ]
    if job.resources.volume:
        remarks.append("The file system must be writable for user 10001; an access point (fsap-...) sees to that.")
    return as_comment(f"{job.title}: a job of AWS Batch, by `{job.again}`", commands, remarks)
