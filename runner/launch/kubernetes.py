"""A Job of Kubernetes (batch/v1), with its files as a ConfigMap; a sweep is an indexed Job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.errors import Problem
from runner.launch.job import Job
from runner.launch.pods import (
    CONTAINER,
    arguments,
    config_map,
    container,
    environment,
    fail_at_once,
    head,
    labels,
    machine,
    pod,
    pod_objections,
)
from runner.launch.retry import RETRIED
from runner.launch.text import as_yaml
from runner.sweep import VARIABLE

INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
LONGEST_NAME = 57  # of a Job whose pods have the index and five letters behind it, in 63


def objections(job: Job) -> Iterator[Problem]:
    """What a Job cannot do."""
    if job.resources.nodes > 1:
        yield job.problem(
            "nodes",
            "A Job of Kubernetes does not start several machines together.",
            "Use `runner export kubeflow`, which does, or nodes: 1 with several GPUs.",
            "nodes",
        )
    yield from pod_objections(job)


def submit(job: Job) -> str:
    """The command that hands it in. Not a plain apply, which would keep the files once more, in an annotation that
    takes no more than 256 KiB."""
    return f"kubectl apply --server-side -f {job.file}"


def write(job: Job) -> str:
    """The objects as YAML."""
    name = job.name_of(LONGEST_NAME)
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels(job) | _queue(job)},
        "spec": {
            **_attempts(job),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": list(_rules(job))},
            "template": pod(job, _container(job), name),
        },
    }
    documents = [document for document in (config_map(job, name), made) if document]
    return _head(job, name) + as_yaml(*documents)


def _container(job: Job) -> dict[str, Any]:
    point = [{"name": VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": INDEX}}}] if job.num_points else []
    return {**container(job), "args": arguments(job), "env": point + environment(job), "resources": machine(job)}


def _attempts(job: Job) -> dict[str, Any]:
    again = job.resources.max_attempts - 1
    if not job.num_points:
        return {"backoffLimit": again}
    return {
        "completionMode": "Indexed",
        "completions": job.num_points,
        "parallelism": job.num_points,
        "backoffLimitPerIndex": again,
    }


def _rules(job: Job) -> Iterator[dict[str, Any]]:
    """A pod that was taken away does not count; one that ended with a code that may pass does; any other is the end."""
    yield {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    yield {"action": "Count", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": sorted(RETRIED)}}
    yield fail_at_once("FailIndex" if job.num_points else "FailJob")


def _queue(job: Job) -> dict[str, str]:
    return {"kueue.x-k8s.io/queue-name": job.resources.queue} if job.resources.queue else {}


def _head(job: Job, name: str) -> str:
    commands = [
        ("submit", submit(job)),
        ("watch", f"kubectl logs -f job/{name}" if not job.num_points else f"kubectl get pods -l job-name={name} -w"),
        ("stop", f"kubectl delete job {name}"),
        ("go on", f"kubectl delete job {name}; {submit(job)}"),
    ]
    remarks = []
    if job.num_points and job.resources.volume and not job.is_mirrored:
        remarks = ["The points run at the same time: the claim has to be ReadWriteMany, or parallelism 1."]
    return head(job, "a Job of Kubernetes", name, commands, remarks)
