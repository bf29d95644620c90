"""A run as any cluster is told of it: one job, from the manifest; how each cluster writes it is the targets' affair."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from runner.credentials import keys_named_in
from runner.errors import Exit, Problem, RunnerError, Severity, Where
from runner.identity import identify
from runner.launch.parcel import FOLDER, Parcel, files_elsewhere, pack
from runner.manifest import Manifest
from runner.plan import ResourcesPlan
from runner.pushing import destination, is_hub
from runner.schema import read_schema
from runner.sweep import points

OUT, CACHE = "/out", "/cache"  # the image's volumes
SHM_GB = 4  # for NCCL between several GPUs of a machine
MASTER_PORT = 29_400
BUCKETS = ("s3", "gs", "gcs", "az", "abfs", "abfss")
BUCKET_KEYS = {  # what a library reads from the environment for the buckets of a scheme
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"),
    "az": ("AZURE_STORAGE_CONNECTION_STRING",),
}


@dataclass(frozen=True, kw_only=True)
class Key:
    """A secret by the name of its environment variable; a run whose manifest asks for it ends without it."""

    name: str
    is_required: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """What runs, where, and what it needs.

    `arguments` stand behind the image's entrypoint, which is the runner. `parcel` is what goes along (None: the
    manifest is at `at` already). `out` is the run directory as the person named it, None: one of its own on the volume.
    `num_points` is the size of a sweep, None: the manifest has none. `idle_limit` None: any number of attempts may save
    nothing. `is_embedded`: the model comes with the image. `file` is what the exported text is called in the
    instructions that stand in it, `again` the command that made it.
    """

    name: str
    run_id: str
    arguments: tuple[str, ...]
    keys: tuple[Key, ...]
    resources: ResourcesPlan
    gpus: int
    parcel: Parcel | None
    at: str
    out: str | None
    num_points: int | None
    idle_limit: int | None
    is_embedded: bool
    file: str
    again: str

    @property
    def title(self) -> str:
        """A name for a cluster: the experiment's, and which of its runs."""
        return f"{self.name.rstrip('-')}-{self.run_id}"

    @property
    def processes(self) -> int:
        """Processes on each machine."""
        return max(1, self.gpus)

    @property
    def shm_gb(self) -> int | None:
        """Shared memory, where the job says how much."""
        return self.resources.shm_gb or (SHM_GB if self.gpus > 1 else None)

    @property
    def is_mirrored(self) -> bool:
        """Whether the run directory goes to a bucket by itself."""
        return self.out is not None and "://" in self.out

    @property
    def is_on_volume(self) -> bool:
        """Whether the run directory is below where the volume is mounted."""
        return self.resources.volume is not None and f"{self.out or OUT}/".startswith(f"{OUT}/")

    @property
    def mount(self) -> str:
        """Where the volume is mounted: it keeps the run directories, or else the cache."""
        return CACHE if self.is_mirrored else OUT

    @property
    def environment(self) -> dict[str, str]:
        """The cache beside the run directories, where both are on the volume; a bucket would upload every model."""
        if self.resources.volume is None or "://" in self.resources.volume or self.is_mirrored:
            return {}
        return {"RUNNER_CACHE": f"{OUT}/cache", "HF_HOME": f"{OUT}/cache/huggingface"}

    @property
    def command(self) -> str:
        """What is run, as a shell takes it."""
        return shlex.join(("runner", *self.arguments))

    @property
    def fetch(self) -> str:
        """The command that fetches what is mirrored to a bucket."""
        url = (self.out or "").rstrip("/")
        return shlex.join(("runner", "fetch", url, f"runs/{url.rpartition('/')[2]}"))

    def name_of(self, longest: int, first: str = "r") -> str:
        """The title as a DNS label (RFC 1035) of at most so many characters; the run id stays whole."""
        name = self.name if self.name[0].isalpha() else f"{first}-{self.name}"
        return f"{name[: longest - len(self.run_id) - 1].rstrip('-')}-{self.run_id}"

    def problem(self, slug: str, what: str, fix: str, key: str = "", severity: Severity = "error") -> Problem:
        """A problem with a key of resources, or with the command line."""
        where = Where(key=f"resources.{key}") if key else Where(path="runner export")
        return Problem(code=f"export/{slug}", what=what, where=where, fix=fix, severity=severity)


def make_job(
    manifest: Manifest, *, out: str | None = None, at: str | None = None, file: str = "job", again: str = ""
) -> Job:
    """The job of a manifest. `out` is the run directory over there, `at` the manifest's place in the container where
    it is there already.

    Raises RunnerError: 66 where a file is missing, 78 where what goes along is no parcel.
    """
    if problems := list(_misplaced(out, at)):
        raise RunnerError(problems, Exit.USAGE)
    parcel = None if at else pack(manifest)
    place = at or f"{FOLDER}/{parcel.manifest if parcel else ''}"
    resources = _resources(manifest)
    found = points(manifest)
    idle = read_schema("manifest")["properties"]["budget"]["properties"]["max_idle_attempts"]["default"]
    return Job(
        name=manifest.values["name"],
        run_id=identify(manifest),
        arguments=tuple(_arguments(manifest, place, out)),
        keys=tuple(_keys(manifest, out)),
        resources=resources,
        gpus=_num_gpus(manifest, resources),
        parcel=parcel,
        at=place,
        out=out,
        num_points=len(found) or None,
        idle_limit=manifest.document.get("budget", "max_idle_attempts", default=idle),
        is_embedded=_is_embedded(manifest),
        file=file,
        again=again,
    )


def _misplaced(out: str | None, at: str | None) -> Iterator[Problem]:
    """Places on the command line that are none over there."""
    for option, place in (("--at", at), ("--out", out)):
        scheme = place.partition("://")[0] if place and "://" in place else None
        is_bucket = option == "--out" and scheme in BUCKETS
        if place is not None and not is_bucket and not (scheme is None and PurePosixPath(place).is_absolute()):
            yield Problem(
                code="export/place",
                what=f"'{place}' is no absolute path{' and no bucket' if option == '--out' else ' of the container'}.",
                where=Where(path=option),
                fix="For example  --at /work/my.yaml" if option == "--at" else "For example  --out s3://bucket/prefix",
            )


def key_remarks(keys: Sequence[Key], place: str) -> Iterator[str]:
    """Which keys belong to the place where the cluster keeps them, and which the run can do without."""
    required = ", ".join(key.name for key in keys if key.is_required)
    optional = ", ".join(key.name for key in keys if not key.is_required)
    if keys:
        yield f"{place}: {'; '.join(filter(None, (required, optional and f'if you have them, {optional}')))}."


def told_elsewhere(manifest: Manifest, job: Job) -> Iterator[Problem]:
    """What has to be over there and is not sent along."""
    for name in files_elsewhere(manifest) if job.parcel else ():
        yield job.problem(
            "not-sent",
            f"'{name}' is not sent along; it has to be at the same place over there, in the image or on a volume.",
            "Name it by a path that starts in the manifest's folder, or by the URL of a bucket.",
            severity="warning",
        )


def _resources(manifest: Manifest) -> ResourcesPlan:
    schema = read_schema("manifest")["properties"]["resources"]["properties"]
    written = manifest.values.get("resources") or {}
    return ResourcesPlan(**{key: written.get(key, entry["default"]) for key, entry in schema.items()})


def _num_gpus(manifest: Manifest, resources: ResourcesPlan) -> int:
    wanted = resources.gpu is not None or manifest.document.get("approach", "accelerator") == "required"
    return int(wanted) if resources.gpus is None else resources.gpus


def _arguments(manifest: Manifest, place: str, out: str | None) -> Iterator[str]:
    yield from ("run", place)
    for assignment in manifest.overrides:
        if not assignment.startswith("resources"):  # which a run does not look at
            yield from ("--set", assignment)
    if manifest.trust_remote_code:
        yield "--trust-remote-code"
    if out is not None:
        yield from ("--out", out)


def _keys(manifest: Manifest, out: str | None) -> Iterator[Key]:
    """The keys that the run will ask for, and those that it takes where they are."""
    tracked = manifest.document.get("tracking", "wandb", default="auto")
    required = dict.fromkeys(keys_named_in(manifest.values).values())
    if tracked == "online":
        required["WANDB_API_KEY"] = None
    taken = ["HF_TOKEN"] if _uses_the_hub(manifest) else []
    taken += ["WANDB_API_KEY"] if tracked == "auto" else []
    sources = _urls(manifest.values["data"])
    to = destination(manifest.values) or ""
    if is_hub(to):
        required["HF_TOKEN"] = None
    for scheme, names in BUCKET_KEYS.items():
        if any(url.startswith(f"{scheme}://") for url in (*sources, out or "", to)):
            taken += names
    for name in required:
        yield Key(name=name, is_required=True)
    for name in taken:
        if name not in required:
            yield Key(name=name, is_required=False)


def _is_embedded(manifest: Manifest) -> bool:
    return "/" not in manifest.document.get("approach", "model")


def _uses_the_hub(manifest: Manifest) -> bool:
    model = manifest.document.get("approach", "model")
    return "/" in model and not model.startswith((".", "/", "~"))


def _urls(value: object) -> Iterator[str]:
    if isinstance(value, str) and "://" in value:
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _urls(item)
