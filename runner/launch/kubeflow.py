"""A TrainJob of Kubeflow's trainer (v2, v1alpha1), with a TrainingRuntime of its own: only that can say when a job is
tried again, what is mounted, and as whom it runs. Any number of machines."""

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
from runner.launch.text import EMPTY, as_yaml

API = "trainer.kubeflow.org/v1alpha1"
LONGEST_NAME = 40  # of a TrainJob whose pods have -node-0-NNNN and five letters behind it, in 63
# The runner starts the processes of its machine itself, and ends with the run's own code; torchrun would end with 1.
ENTRYPOINT = ["tini", "-s", "--", "runner"]


def objections(job: Job) -> Iterator[Problem]:
    """What a TrainJob cannot do."""
    if job.num_points:
        yield job.problem(
            "sweep",
            "A TrainJob is one run; it has no arrays.",
            "Use `runner export kubernetes` or slurm for the sweep, or export its points one by one:  --point 0",
        )
    yield from pod_objections(job)


def submit(job: Job) -> str:
    """The command that hands it in."""
    return f"kubectl apply --server-side -f {job.file}"


def write(job: Job) -> str:
    """The objects as YAML."""
    name = job.name_of(LONGEST_NAME)
    documents = [
        document for document in (config_map(job, name), _runtime(job, name), _train_job(job, name)) if document
    ]
    commands = [
        ("submit", submit(job)),
        ("watch", f"kubectl logs -f -l jobset.sigs.k8s.io/jobset-name={name} --prefix --max-log-requests=64"),
        ("stop", f"kubectl delete trainjob {name}"),
        ("go on", f"kubectl delete trainjob {name}; {submit(job)}"),
    ]
    return head(job, "a TrainJob of Kubeflow", name, commands, _remarks(job)) + as_yaml(*documents)


def _remarks(job: Job) -> Iterator[str]:
    yield (
        "When one machine is lost, all begin again from the last checkpoint: that counts as an attempt "
        f"(maxRestarts: {job.resources.max_attempts - 1})."
    )
    if job.resources.nodes > 1:
        yield "All machines read and write the claim: it has to be ReadWriteMany."


def _train_job(job: Job, name: str) -> dict[str, Any]:
    queue = {"kueue.x-k8s.io/queue-name": job.resources.queue} if job.resources.queue else {}
    return {
        "apiVersion": API,
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": labels(job) | queue},
        "spec": {
            "runtimeRef": {"apiGroup": API.partition("/")[0], "kind": "TrainingRuntime", "name": name},
            "trainer": {
                "image": job.resources.image,
                "command": ENTRYPOINT,
                "args": arguments(job),
                "env": environment(job),
                "numNodes": job.resources.nodes,
                "numProcPerNode": job.processes,
                "resourcesPerNode": machine(job),
            },
        },
    }


def _runtime(job: Job, name: str) -> dict[str, Any]:
    """One job of the set with a pod for each machine; a code that no retry changes ends the set, any other begins it
    anew."""
    node = {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [fail_at_once("FailJob")]},
        "template": pod(job, container(job), name),
    }
    final = {"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": API,
        "kind": "TrainingRuntime",
        "metadata": {"name": name, "labels": labels(job) | {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": job.resources.nodes, "torch": EMPTY},
            "template": {
                "spec": {
                    "failurePolicy": {"maxRestarts": job.resources.max_attempts - 1, "rules": [final]},
                    "replicatedJobs": [
                        {
                            "name": CONTAINER,
                            "template": {
                                "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                                "spec": node,
                            },
                        }
                    ],
                },
            },
        },
    }
