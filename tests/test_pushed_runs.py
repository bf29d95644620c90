"""Whole runs whose weights go to a bucket or to the hub: they are there, whole, and are those of the report."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit
from tests.hub_server import TOKEN, HubServer, serving_hub
from tests.store_server import BUCKET, StoreServer, refusing, serving_store
from tests.test_mirrored_runs import run_cli
from tests.tiny import make_model
from tests.whole_runs import Experiment, Run, make_experiment

URL = f"s3://{BUCKET}/models/soak"
pytestmark = pytest.mark.slow


@pytest.fixture
def store() -> Iterator[StoreServer]:
    with serving_store() as server:
        yield server


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving_hub() as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    """A run that is done, its weights where it made them."""
    folder = tmp_path_factory.mktemp("finished")
    experiment = make_experiment(folder, model, num_steps=3)
    assert Run(experiment, folder / "out").wait() == Exit.DONE
    return experiment, folder / "out"


@pytest.fixture
def done(finished: tuple[Experiment, Path], tmp_path: Path) -> tuple[Experiment, Path]:
    """The same run, moved to a place of its own, where it may be changed."""
    experiment, out = finished
    shutil.copytree(out, tmp_path / "out")
    return experiment, tmp_path / "out"


def going_to(experiment: Experiment, to: str, folder: Path, environment: Mapping[str, str], **more: Any) -> Experiment:
    """The experiment whose weights go somewhere."""
    manifest = json.loads(experiment.manifest.read_text())
    path = experiment.manifest.with_name(f"{folder.name}.yaml")
    path.write_text(json.dumps({**manifest, **more, "delivery": {"to": to, **more.get("delivery", {})}}))
    return replace(experiment, manifest=path, store=environment)


def read(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def weights_sha256(files: Mapping[str, bytes]) -> str:
    """The hash of weights as the report has it."""
    digests = [hashlib.sha256(files[name]).hexdigest() for name in sorted(files) if name.endswith(".safetensors")]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def in_bucket(store: StoreServer, top: str = "models/soak/") -> dict[str, bytes]:
    return {name.removeprefix(top): store.read(name) for name in store.names(top)}


def test_the_weights_in_the_bucket_are_those_of_the_report(store: StoreServer, model: Path, tmp_path: Path) -> None:
    made = make_experiment(tmp_path / "exp", model, num_steps=3, delivery={"merge": True})
    experiment = going_to(made, URL, tmp_path, store.environment, delivery={"merge": True})
    first = run_cli(experiment, tmp_path / "out", str(experiment.manifest), "--out", str(tmp_path / "out"))
    assert first.returncode == Exit.DONE, first.stdout + first.stderr
    report, files = read(tmp_path / "out"), in_bucket(store)
    top = {name: content for name, content in files.items() if "/" not in name}
    assert weights_sha256(top) == report["training"]["weights_sha256"]
    assert {"merged/model.safetensors", "merged/README.md", "tokenizer.json", "README.md"} <= files.keys()
    sent = report["delivery"]["to"]
    assert {file["name"]: file["sha256"] for file in sent["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "delivery.json"
    }
    assert (sent["url"], sent["commit"], report["exit_code"]) == (URL, None, 0) and sent["pushed_at"]
    card = files["README.md"].decode()
    assert f"runner fetch {URL} soak" in card and str(tmp_path) not in card
    assert f"sent    {URL}" in first.stdout and URL in (tmp_path / "out/report.html").read_text()

    num_requests = store.num_requests
    again = run_cli(experiment, tmp_path / "out", str(experiment.manifest), "--out", str(tmp_path / "out"))
    assert (again.returncode, "Already done" in again.stdout) == (Exit.DONE, True)
    assert store.num_requests == num_requests, "a run that is done asks nobody"

    fetched = run_cli(experiment, tmp_path / "out", "fetch", URL, str(tmp_path / "fetched"))
    assert fetched.returncode == Exit.DONE
    copied = {path.name: path.read_bytes() for path in (tmp_path / "fetched").glob("*.safetensors")}
    assert weights_sha256(copied) == weights_sha256(top)


def test_a_run_that_is_done_is_only_sent_where_its_manifest_says_now(
    hub: HubServer, done: tuple[Experiment, Path], tmp_path: Path
) -> None:
    experiment, out = done
    before = read(out)
    going = going_to(experiment, "hf://owner/soak", tmp_path, hub.environment)
    ended = run_cli(going, out, str(going.manifest), "--out", str(out))
    assert ended.returncode == Exit.DONE, ended.stdout + ended.stderr
    assert "train" not in [line.split(" ", 1)[-1].strip("= ") for line in ended.stdout.splitlines()]
    report, repository = read(out), hub.repositories["owner/soak"]
    assert weights_sha256(repository.files) == before["training"]["weights_sha256"]
    assert report["training"] == before["training"] and report["run_id"] == before["run_id"]
    assert report["delivery"]["to"]["commit"] == repository.head and repository.private
    assert repository.commits == [f"runner: run {report['run_id']}"]
    assert "hf download owner/soak --local-dir soak" in repository.files["README.md"].decode()
    commands = [line["command"] for line in report["delivery"]["to"]["serve"]]
    assert any("soak=owner/soak" in command for command in commands), commands
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in path.read_bytes()
    assert TOKEN not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("fault", "code"), [(refusing, Exit.CREDENTIALS), (lambda request: (400, "Bad"), Exit.UNAVAILABLE)]
)
def test_a_push_that_fails_leaves_the_run_done_and_the_same_command_goes_on(
    store: StoreServer, done: tuple[Experiment, Path], tmp_path: Path, fault: Callable[..., Any], code: Exit
) -> None:
    experiment, out = done
    going = going_to(experiment, URL, tmp_path, store.environment)
    store.fault = lambda request: fault(request) if "adapter_model" in request["PATH_INFO"] else None
    failed = run_cli(going, out, str(going.manifest), "--out", str(out))
    assert failed.returncode == code, failed.stdout + failed.stderr
    report = read(out)
    assert (report["status"], report["exit_code"], report["delivery"]["to"]["pushed_at"]) == ("done", code, None)
    assert report["problems"][0]["where"]["key"] == "delivery.to"
    assert "README.md" not in in_bucket(store) and (out / "model/adapter_model.safetensors").is_file()
    held = {name for name in in_bucket(store) if name != "delivery.json"}
    store.fault = lambda request: None
    again = run_cli(going, out, str(going.manifest), "--out", str(out))
    assert again.returncode == Exit.DONE, again.stdout + again.stderr
    report = read(out)
    assert report["exit_code"] == 0 and not [p for p in report["problems"] if p["where"]["key"] == "delivery.to"]
    assert held < in_bucket(store).keys() and report["delivery"]["to"]["pushed_at"]


def test_a_push_that_never_gets_further_is_given_up(
    store: StoreServer, done: tuple[Experiment, Path], tmp_path: Path
) -> None:
    experiment, out = done
    going = going_to(experiment, URL, tmp_path, store.environment, budget={"max_idle_attempts": 2})
    store.fault = lambda request: (400, "Bad") if request["REQUEST_METHOD"] == "PUT" else None
    codes = [run_cli(going, out, str(going.manifest), "--out", str(out)).returncode for _ in range(3)]
    assert Exit.BUG in codes[1:], codes


def test_a_request_to_stop_ends_a_slow_push_at_once(
    store: StoreServer, done: tuple[Experiment, Path], tmp_path: Path
) -> None:
    experiment, out = done
    going = going_to(experiment, URL, tmp_path, store.environment)
    store.delay_seconds = 0.2
    store.fault = lambda request: time.sleep(60) if "adapter_model" in request["PATH_INFO"] else None
    run = Run(going, out)
    deadline = time.monotonic() + 60
    while run.stage != "push" and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    run.process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert run.wait() == Exit.INTERRUPTED and time.monotonic() - asked < 10
    assert read(out)["status"] == "done" and read(out)["exit_code"] == Exit.INTERRUPTED
    store.fault, store.delay_seconds = lambda request: None, 0.0
    assert Run(going, out).wait() == Exit.DONE
    assert weights_sha256(in_bucket(store)) == read(out)["training"]["weights_sha256"]


@pytest.mark.parametrize(
    ("to", "prepare", "code", "slug"),
    [
        (f"s3://no-such-{BUCKET}/x", lambda store, hub: None, Exit.RUN_DIRECTORY, "store/no-bucket"),
        (URL, lambda store, hub: setattr(store, "fault", refusing), Exit.CREDENTIALS, "store/refused"),
        ("hf://stranger/x", lambda store, hub: None, Exit.CREDENTIALS, "delivery/hub-refused"),
    ],
)
def test_a_place_that_takes_nothing_is_told_before_anything_is_spent(
    store: StoreServer,
    hub: HubServer,
    model: Path,
    tmp_path: Path,
    to: str,
    prepare: Callable[[StoreServer, HubServer], None],
    code: Exit,
    slug: str,
) -> None:
    prepare(store, hub)
    environment = {**store.environment, **hub.environment}
    going = going_to(make_experiment(tmp_path / "exp", model), to, tmp_path, environment)
    assert Run(going, tmp_path / "out").wait() == code
    report = read(tmp_path / "out")
    assert [problem["code"] for problem in report["problems"]] == [slug] and list(report["timings"]) == ["plan"]
    assert store.names() == [] and hub.repositories == {}


def test_weights_that_changed_on_disk_are_not_sent(
    store: StoreServer, done: tuple[Experiment, Path], tmp_path: Path
) -> None:
    experiment, out = done
    going = going_to(experiment, URL, tmp_path, store.environment)
    with (out / "model/adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    assert Run(going, out).wait() == Exit.IO
    assert [problem["code"] for problem in read(out)["problems"]][:1] == ["delivery/changed"] and store.names() == []


def test_a_run_with_a_mirror_is_sent_from_a_machine_that_has_nothing(
    store: StoreServer, model: Path, tmp_path: Path
) -> None:
    mirror = f"s3://{BUCKET}/runs/soak"
    experiment = replace(make_experiment(tmp_path / "exp", model, num_steps=3), mirror=mirror, store=store.environment)
    assert Run(experiment, tmp_path / "a").wait() == Exit.DONE
    experiment.lose_machine(tmp_path / "a")
    going = going_to(experiment, URL, tmp_path, store.environment)
    assert Run(going, tmp_path / "b").wait() == Exit.DONE
    assert weights_sha256(in_bucket(store)) == read(tmp_path / "b")["training"]["weights_sha256"]
    assert json.loads(store.read("runs/soak/report.json"))["delivery"]["to"]["url"] == URL
    inside = going_to(experiment, f"{mirror}/weights", tmp_path, store.environment)
    refused = run_cli(inside, tmp_path / "c", str(inside.manifest), "--out", mirror)
    assert refused.returncode == Exit.RUN_DIRECTORY and "delivery/in-mirror" in refused.stdout
