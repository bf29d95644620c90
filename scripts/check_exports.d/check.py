"""Each exported job of a folder, by the validator of the system that it is for. Runs in the validators' environment."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
KUBERNETES = ("1.31", "1.37")  # the first with everything that is written, and the newest that is known


def check_kubernetes(text: str) -> Iterator[str]:
    """Strictly, so that a key that the schema does not know is a fault."""
    import kubernetes_validate

    for document in yaml.safe_load_all(text):
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{document['kind']}, {version}: {error.message}"


def check_kubeflow(text: str) -> Iterator[str]:
    """Their models drop what they do not know, so what comes back must be what went in."""
    import kubernetes_validate
    from kubeflow_trainer_api import models

    kinds = {"TrainJob": models.TrainerV1alpha1TrainJob, "TrainingRuntime": models.TrainerV1alpha1TrainingRuntime}
    for document in yaml.safe_load_all(text):
        if (model := kinds.get(document["kind"])) is None:
            kubernetes_validate.validate(document, KUBERNETES[0], strict=True)
            continue
        back = model.from_dict(document).to_dict()
        if back != document:
            yield f"{document['kind']}: {_differences(document, back)}"
        if document["kind"] == "TrainingRuntime":  # which their models know less of than Kubernetes does
            spec = document["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": spec}
            kubernetes_validate.validate(job, KUBERNETES[0], strict=True)


def _differences(sent: Any, back: Any, path: str = "") -> str:
    if isinstance(sent, dict) and isinstance(back, dict):
        found = [_differences(sent.get(k), back.get(k), f"{path}.{k}") for k in sent.keys() | back.keys()]
        return "; ".join(filter(None, found))
    if isinstance(sent, list) and isinstance(back, list) and len(sent) == len(back):
        return "; ".join(filter(None, (_differences(a, b, f"{path}[]") for a, b in zip(sent, back, strict=True))))
    return "" if sent == back else f"{path}: {sent!r} came back as {back!r}"


def check_skypilot(text: str) -> Iterator[str]:
    """Both schemas (that of tasks takes anything for resources), the task itself, and its script."""
    import jsonschema
    import sky
    from sky.utils import schemas

    task = yaml.safe_load(text)
    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())
    secrets = {name: value if value is not None else "given" for name, value in task.get("secrets", {}).items()}
    made = sky.Task.from_yaml_config({**task, "secrets": secrets})
    if (made.num_nodes, made.run) != (task.get("num_nodes", 1), task["run"]):
        yield f"the task became another one: {made}"
    yield from _shell(f"#!/bin/bash\n{task['run']}")
    for command in re.findall(r"^# (?:submit|watch|stop) +(.*)", text, re.MULTILINE):
        yield from _sky(re.sub(r"^for n in .*?; do (.*); done$", r"n=0; \1", command))


def _sky(command: str) -> Iterator[str]:
    """A command of SkyPilot's, parsed by its own command line after a shell has read it, and not carried out."""
    import click
    from sky.client.cli.command import cli

    keys = dict.fromkeys(re.findall(r"--secret=(\w+)", command), "x")
    shown = re.sub(r"\bsky\b", "printf '%s\\n'", command, count=1)
    words = subprocess.run(
        ["bash", "-c", shown], env={**os.environ, **keys}, capture_output=True, text=True, check=True
    )
    os.environ.update(keys)
    here, context, left = cli, None, words.stdout.splitlines()
    try:
        while isinstance(here, click.Group):
            context = here.make_context(here.name, left[:1], parent=context, resilient_parsing=True)
            here = here.get_command(context, left.pop(0))
        here.make_context(here.name, left, parent=context)
    except click.ClickException as error:
        yield f"{command}: {error.format_message()}"


def check_slurm(text: str) -> Iterator[str]:
    """There is no validator of SLURM's, but for its own sbatch; the shell's are."""
    yield from _shell(text)


def check_awsbatch(text: str) -> Iterator[str]:
    """Both calls by the service's own model, as botocore has it; and the limits that only its pages tell."""
    import botocore.session
    from botocore.validate import ParamValidator

    yield from _shell(text)
    service = botocore.session.get_session().get_service_model("batch")
    calls = re.findall(r"^aws batch ([\w-]+) --cli-input-json (.*?)(?=^$|\Z)", text, re.DOTALL | re.MULTILINE)
    if [name for name, _ in calls] != ["register-job-definition", "submit-job"]:
        yield f"the calls are {[name for name, _ in calls]}"
    for name, words in calls:
        values = json.loads(shlex.split(words)[0])
        shape = service.operation_model("".join(part.title() for part in name.split("-"))).input_shape
        report = ParamValidator().validate(values, shape)
        if report.has_errors():
            yield f"{name}: {report.generate_report()}"
        if len(values.get("retryStrategy", {}).get("evaluateOnExit", ())) > 5:
            yield f"{name}: more than five rules"


def _shell(text: str) -> Iterator[str]:
    """SC2016 asks whether a person's value in single quotes is meant to stay as it is; it is."""
    for command in (
        ["bash", "-n"],
        [str(Path(sys.executable).with_name("shellcheck")), "--shell=bash", "--exclude=SC2016", "-"],
    ):
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{command[0]}: {done.stdout}{done.stderr}"


CHECKS: dict[str, Callable[[str], Iterator[str]]] = {
    "kubernetes": check_kubernetes,
    "kubeflow": check_kubeflow,
    "skypilot": check_skypilot,
    "slurm": check_slurm,
    "awsbatch": check_awsbatch,
}


def faults(path: Path) -> list[str]:
    """What is wrong with an exported job, whose file is called LABEL.TARGET.ENDING."""
    try:
        return list(CHECKS[path.suffixes[-2].strip(".")](path.read_text()))
    except Exception as error:  # each validator has exceptions of its own, and any means no
        return [f"{type(error).__name__}: {error}"]


def main() -> int:
    """Checks every file of the folder, and that each target has one."""
    paths = sorted(Path(sys.argv[1]).iterdir())
    found = {path.name: faults(path) for path in paths}
    for name, said in found.items():
        print(f"   {'not valid' if said else 'valid':<10} {name}")
        for fault in said:
            print(f"      {fault}")
    missing = set(CHECKS) - {path.suffixes[-2].strip(".") for path in paths}
    print(
        f"{len(paths)} jobs: {sum(map(bool, found.values()))} not valid" + (f"; none of {missing}" if missing else "")
    )
    return int(bool(missing) or any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
