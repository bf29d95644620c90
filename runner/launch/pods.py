"""What a Job of Kubernetes and a TrainJob of Kubeflow have in common: a pod, its files, and when it is tried again."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from runner.errors import Problem
from runner.launch.job import CACHE, OUT, Job, key_remarks
from runner.launch.parcel import FOLDER
from runner.launch.retry import GRACE_SECONDS, RETRIED
from runner.launch.text import EMPTY, as_comment

MOST_BYTES = 900_000  # of a ConfigMap's 1 MiB, names and base64 aside
USER = 10001
LABEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # RFC 1123, a subdomain
SECRET = "runner-keys"
CONTAINER = "node"  # as Kubeflow's trainer calls the one that trains
# Labels of nodes by the GPU's usual name, as NVIDIA's feature discovery, Google and AWS document them; of any other
# name, the first of them has to have it. One of the labels suffices.
PRODUCT = "nvidia.com/gpu.product"
GPUS: dict[str, dict[str, tuple[str, ...]]] = {
    "T4": {PRODUCT: ("Tesla-T4",), "cloud.google.com/gke-accelerator": ("nvidia-tesla-t4",)},
    "L4": {PRODUCT: ("NVIDIA-L4",), "cloud.google.com/gke-accelerator": ("nvidia-l4",)},
    "A10G": {PRODUCT: ("NVIDIA-A10G",)},
    "L40S": {PRODUCT: ("NVIDIA-L40S",)},
    "A100": {
        PRODUCT: ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"),
        "cloud.google.com/gke-accelerator": ("nvidia-tesla-a100",),
    },
    "A100-80GB": {
        PRODUCT: ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"),
        "cloud.google.com/gke-accelerator": ("nvidia-a100-80gb",),
    },
    "H100": {
        PRODUCT: ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "NVIDIA-H100-NVL"),
        "cloud.google.com/gke-accelerator": ("nvidia-h100-80gb", "nvidia-h100-mega-80gb"),
    },
    "H200": {
        PRODUCT: ("NVIDIA-H200", "NVIDIA-H200-NVL"),
        "cloud.google.com/gke-accelerator": ("nvidia-h200-141gb",),
    },
    "B200": {PRODUCT: ("NVIDIA-B200",), "cloud.google.com/gke-accelerator": ("nvidia-b200",)},
}
SPOT: dict[str, tuple[str, ...]] = {
    "cloud.google.com/gke-spot": ("true",),
    "eks.amazonaws.com/capacityType": ("SPOT",),
    "karpenter.sh/capacity-type": ("spot",),
    "kubernetes.azure.com/scalesetpriority": ("spot",),
}
TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")


def pod_objections(job: Job) -> Iterator[Problem]:
    """What no pod can be given."""
    if job.parcel and job.parcel.num_bytes > MOST_BYTES:
        yield job.problem(
            "too-large",
            f"The manifest and its files have {job.parcel.num_bytes / 1e6:.1f} MB; a ConfigMap, which takes them "
            f"along, holds {MOST_BYTES / 1e6:.1f} MB.",
            "Put the data into a bucket or on the hub and name it by its URL; or put manifest and data into the image "
            "or on the volume, and say where with --at /work/my.yaml.",
        )
    for key in ("volume", "keys_from", "role"):
        name = getattr(job.resources, key)
        if name is not None and not LABEL.fullmatch(name):
            yield job.problem(
                "name",
                f"'{name}' is no name of an object of Kubernetes.",
                "Lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit.",
                key,
            )


def config_map(job: Job, name: str) -> dict[str, Any] | None:
    """The files that go along; None where none do."""
    if job.parcel is None:
        return None
    texts: dict[str, str] = {}
    binaries: dict[str, str] = {}
    for key, path in zip(_keys_of(job.parcel.names), job.parcel.names, strict=True):
        content = (job.parcel.root / path).read_bytes()
        try:
            texts[key] = content.decode()
        except UnicodeDecodeError:
            binaries[key] = base64.b64encode(content).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels(job)},
        "data": texts,
        "binaryData": binaries,
    }


def labels(job: Job) -> dict[str, str]:
    """What the objects of a run are found by."""
    return {"app.kubernetes.io/name": "runner", "app.kubernetes.io/instance": job.name_of(63)}


def pod(job: Job, container: dict[str, Any], name: str) -> dict[str, Any]:
    """A pod's template around the container; `name` is that of the files that go along."""
    asked = job.resources
    return {
        "metadata": {"labels": labels(job)},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "activeDeadlineSeconds": round(asked.max_hours * 3600) if asked.max_hours else None,
            "serviceAccountName": asked.role,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": 0,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "affinity": _affinity(job),
            "tolerations": list(_tolerations(job)),
            "containers": [container],
            "volumes": list(_volumes(job, name)),
        },
    }


def container(job: Job) -> dict[str, Any]:
    """The container but for what it is told to do: that and the rest stand elsewhere in a TrainJob."""
    return {
        "name": CONTAINER,
        "image": job.resources.image,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": list(_mounts(job)),
    }


def arguments(job: Job) -> list[str]:
    """What the container is told to do; Kubernetes puts variables in place of $(NAME), unless the $ is doubled."""
    return [word.replace("$", "$$") for word in job.arguments]


def environment(job: Job) -> list[dict[str, Any]]:
    """Plain values, and keys by reference; a key that the run can do without may be missing."""
    secret = job.resources.keys_from or SECRET
    plain = [{"name": name, "value": value} for name, value in job.environment.items()]
    return plain + [
        {
            "name": key.name,
            "valueFrom": {
                "secretKeyRef": {"name": secret, "key": key.name, "optional": None if key.is_required else True}
            },
        }
        for key in job.keys
    ]


def machine(job: Job) -> dict[str, Any]:
    """Requests and limits. A limit of processors would only slow the job down; one of memory is what it plans with."""
    asked = job.resources
    memory = f"{asked.memory_gb}G" if asked.memory_gb else None
    gpus = str(job.gpus) if job.gpus else None
    disk = f"{asked.disk_gb}G" if asked.disk_gb else None
    requests = {"cpu": str(asked.cpus) if asked.cpus else None, "memory": memory, "ephemeral-storage": disk}
    return {"requests": requests, "limits": {"memory": memory, "nvidia.com/gpu": gpus}}


def fail_at_once(action: str) -> dict[str, Any]:
    """The rule of a pod failure policy for codes that no retry changes."""
    return {
        "action": action,
        "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": sorted(RETRIED)},
    }


def head(job: Job, kind: str, name: str, commands: Sequence[tuple[str, str]], remarks: Iterable[str]) -> str:
    """The comment at the top of the file."""
    secret = job.resources.keys_from or SECRET
    keys = [("keys, once", f"kubectl create secret generic {secret} --from-env-file=keys.env")] if job.keys else []
    return as_comment(
        f"{name}: {kind}, by `{job.again}`",
        [*keys, *commands, ("results", _fetch(job))],
        [*key_remarks(job.keys, "keys.env has a line NAME=VALUE for each key"), *remarks, *_remarks(job)],
    )


def _fetch(job: Job) -> str:
    """The command that fetches the run directories, from a pod that does nothing where a claim keeps them."""
    if job.is_mirrored:
        return job.fetch
    mount = {"name": "out", "mountPath": OUT}
    claim = {"name": "out", "persistentVolumeClaim": {"claimName": job.resources.volume}}
    waiting = {"name": "fetch", "image": "busybox", "command": ["sleep", "3600"], "volumeMounts": [mount]}
    overrides = json.dumps({"spec": {"containers": [waiting], "volumes": [claim]}}, separators=(",", ":"))
    return (
        f"kubectl run fetch --image=busybox --restart=Never --overrides={shlex.quote(overrides)}; "
        f"kubectl wait --for=condition=Ready pod/fetch; kubectl cp fetch:{OUT} runs; kubectl delete pod fetch"
    )


def _remarks(job: Job) -> Iterator[str]:
    if job.resources.volume and not job.is_mirrored:
        yield (
            f"The claim {job.resources.volume} keeps the run directories, and the cache in cache/. Group 0 or {USER} "
            "must be able to write there; fsGroup sees to that on disks, on NFS its administrator does."
        )
    if (job.gpus and job.resources.gpu) or job.resources.spot:
        yield (
            "Nodes are chosen by the labels of NVIDIA's GPU feature discovery and of the clouds (affinity); one of "
            "each kind has to be there, or the pods wait for ever."
        )


def _keys_of(names: tuple[str, ...]) -> list[str]:
    """A key of the ConfigMap for every path; they may hold no slash."""
    keys = [re.sub(r"[^-._a-zA-Z0-9]", "_", name)[-200:] for name in names]
    return [key if keys.index(key) == i else f"{i}-{key}" for i, key in enumerate(keys)]


def _mounts(job: Job) -> Iterator[dict[str, Any]]:
    if job.parcel:
        yield {"name": "job", "mountPath": FOLDER, "readOnly": True}
    yield {"name": "out", "mountPath": OUT}
    yield {"name": "cache", "mountPath": CACHE}
    yield {"name": "tmp", "mountPath": "/tmp"}
    if job.shm_gb:
        yield {"name": "shm", "mountPath": "/dev/shm"}


def _volumes(job: Job, name: str) -> Iterator[dict[str, Any]]:
    """The volume is mounted where the job keeps what must last; everything else goes with the pod."""
    if job.parcel:
        pairs = zip(_keys_of(job.parcel.names), job.parcel.names, strict=True)
        yield {"name": "job", "configMap": {"name": name, "items": [{"key": key, "path": path} for key, path in pairs]}}
    for mount in (OUT, CACHE):
        lasting = job.resources.volume if mount == job.mount else None
        kept = {"persistentVolumeClaim": {"claimName": lasting}} if lasting else {"emptyDir": EMPTY}
        yield {"name": mount.strip("/"), **kept}
    yield {"name": "tmp", "emptyDir": EMPTY}
    if job.shm_gb:
        yield {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{job.shm_gb}G"}}


def _affinity(job: Job) -> dict[str, Any] | None:
    """Nodes with the GPU and, for spot, of that kind; clouds label them differently, and one label of each suffices."""
    gpu = job.resources.gpu
    kinds = [GPUS.get(gpu.upper(), {PRODUCT: (gpu,)})] if gpu and job.gpus else []
    kinds += [SPOT] if job.resources.spot else []
    if not kinds:
        return None
    terms = [
        {"matchExpressions": [{"key": key, "operator": "In", "values": list(values)} for key, values in labels]}
        for labels in itertools.product(*(kind.items() for kind in kinds))
    ]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _tolerations(job: Job) -> Iterator[dict[str, Any]]:
    if job.gpus:
        yield {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    for taint in TAINTS if job.resources.spot else ():
        yield {"key": taint, "operator": "Exists", "effect": "NoSchedule"}
