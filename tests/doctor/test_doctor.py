"""The doctor says what a run would find on this machine: with real servers, folders, locks and clocks."""

from __future__ import annotations

import email.utils
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from runner.destination import Destination
from runner.doctor import exit_of, look_at_computer, look_at_software, look_at_storage, look_outside
from runner.doctor.checks import Check, Patient, fail, ok, unknown, warning
from runner.errors import Exit
from runner.lease import NAME as LEASE
from runner.manifest import load_manifest
from tests.hub_server import serving_hub
from tests.store_server import BUCKET, serving_store

ROOT = Path(__file__).parents[2]
MANIFEST = """
name: sick
data: {{train: {train}}}
approach: {{kind: lora, model: {model}}}
gate: {{task: format}}
tracking: {{wandb: {wandb}}}
"""
JUDGE = """
eval:
  metrics: [exact_match, judge]
  judge: {{endpoint: {{base_url: "{url}", model: large, api_key_env: JUDGE_KEY}}, rubric: Be fair.}}
"""


def patient(tmp_path: Path, extra: str = "", manifest: bool = True, **given: Any) -> Patient:
    values = {"train": "rows.jsonl", "model": "./model", "wandb": "off"}
    environment = given.pop("environment", {})
    root, url = given.pop("root", Path("/")), given.pop("url", None)
    values.update(given)
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST.format(**values) + extra)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model/config.json").write_text("{}")
    destination = Destination(folder=tmp_path / "out", url=url)
    made = Patient.admit(load_manifest(path) if manifest else None, destination, environment, tmp_path / "cache")
    return made if root == Path("/") else Patient(**{**vars(made), "root": root})


def named(checks: Iterator[Check], name: str) -> Check:
    return next(check for check in checks if check.name.startswith(name))


@contextmanager
def server(status: int = 200, date: float | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A real server that answers every question with the status, and says that it is `date`."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response_only(status)
            self.send_header("Date", email.utils.formatdate(date or time.time(), usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 (the names that http.server calls)
        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_what_no_retry_changes_decides_the_exit_code_and_unknown_is_not_fine() -> None:
    fine = [ok("a", ""), warning("b", "")]
    assert exit_of(fine) == Exit.DONE
    assert exit_of([*fine, unknown("c", "")]) == Exit.UNAVAILABLE
    faults = [fail("d", "", "", code) for code in (Exit.UNAVAILABLE, Exit.IO, Exit.CREDENTIALS)]
    assert exit_of([*fine, *faults]) == Exit.CREDENTIALS
    assert exit_of([*faults, fail("e", "", "", Exit.MANIFEST)]) == Exit.MANIFEST


@pytest.mark.parametrize(
    ("status", "found", "exit_code"),
    [
        (200, "ok", Exit.DONE),
        (404, "ok", Exit.DONE),
        (401, "fail", Exit.CREDENTIALS),
        (503, "fail", Exit.UNAVAILABLE),
        (429, "fail", Exit.UNAVAILABLE),
    ],
)
def test_an_endpoint_is_asked_with_its_key_which_is_not_shown(
    tmp_path: Path, status: int, found: str, exit_code: Exit
) -> None:
    (tmp_path / "key").write_text("s3cret-of-the-judge\n")
    with server(status) as (url, asked):
        sick = patient(tmp_path, JUDGE.format(url=f"{url}/v1"), environment={"JUDGE_KEY_FILE": str(tmp_path / "key")})
        checks = list(look_outside(sick))
    check = named(iter(checks), "endpoint")
    assert (check.status, check.exit_code) == (found, exit_code)
    assert asked == [("/v1/models", "Bearer s3cret-of-the-judge")]
    assert "JUDGE_KEY" in named(iter(checks), "credentials").what
    assert "s3cret" not in str(checks)


def test_a_key_that_is_missing_or_whose_file_is_gone_is_named(tmp_path: Path) -> None:
    extra = JUDGE.format(url=nobody())
    check = named(look_outside(patient(tmp_path, extra)), "credentials")
    assert (check.status, check.exit_code) == ("fail", Exit.CREDENTIALS) and "JUDGE_KEY_FILE" in check.fix
    gone = patient(tmp_path, extra, environment={"JUDGE_KEY_FILE": str(tmp_path / "gone")})
    assert "cannot be read" in named(look_outside(gone), "credentials").what


def test_servers_that_nobody_reaches_are_69_and_leave_the_clock_unknown(tmp_path: Path) -> None:
    checks = list(look_outside(patient(tmp_path, train=f"{nobody()}/rows.jsonl")))
    assert (named(iter(checks), "data").status, named(iter(checks), "clock").status) == ("fail", "unknown")
    assert exit_of(checks) == Exit.UNAVAILABLE


def test_a_file_behind_a_login_is_asked_for_with_it(tmp_path: Path) -> None:
    with server() as (url, asked):
        train = url.replace("http://", "http://me:s3cret@") + "/rows.jsonl"
        check = named(look_outside(patient(tmp_path, train=train)), "data")
    assert check.status == "ok" and "s3cret" not in check.what
    assert asked == [("/rows.jsonl", "Basic bWU6czNjcmV0")]


@pytest.mark.parametrize(
    ("off", "status"), [(0, "ok"), (600, "warning"), (-600, "warning"), (90_000, "fail"), (-90_000, "fail")]
)
def test_the_clock_is_compared_with_the_servers(tmp_path: Path, off: int, status: str) -> None:
    with server(date=time.time() + off) as (url, _):
        assert named(look_outside(patient(tmp_path, train=f"{url}/rows.jsonl")), "clock").status == status


@pytest.mark.parametrize(
    ("status", "found", "exit_code"),
    [(200, "ok", Exit.DONE), (401, "fail", Exit.CREDENTIALS), (404, "fail", Exit.INPUT_MISSING)],
)
def test_the_hub_is_asked_for_the_revision(tmp_path: Path, status: int, found: str, exit_code: Exit) -> None:
    with server(status) as (url, asked):
        environment = {"HF_ENDPOINT": url, "HF_TOKEN": "t0ken", "HF_HOME": str(tmp_path)}
        check = named(look_outside(patient(tmp_path, model="org/name@v1", environment=environment)), "hub")
    assert (check.status, check.exit_code) == (found, exit_code)
    assert asked == [("/api/models/org/name/revision/v1", "Bearer t0ken")]


def test_where_the_hub_is_offline_its_cache_decides(tmp_path: Path) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_ENDPOINT": nobody()}
    sick = patient(tmp_path, model="org/name@v1", environment=environment)
    assert named(look_outside(sick), "hub").exit_code == Exit.INPUT_MISSING
    folder = tmp_path / "hub/models--org--name"
    for path, text in (("refs/v1", "abc"), ("snapshots/abc/config.json", "{}")):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    assert named(look_outside(sick), "hub").status == "ok"


def test_a_wandb_that_is_wanted_needs_a_key_that_its_server_takes(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    bare = patient(tmp_path, wandb="online", environment=home)
    assert named(look_outside(bare), "wandb").exit_code == Exit.CREDENTIALS
    for status, wanted, found in ((401, "auto", "fail"), (503, "auto", "warning"), (503, "online", "fail")):
        with server(status) as (url, _):
            given = {**home, "WANDB_BASE_URL": url, "WANDB_API_KEY": "k" * 40}
            assert named(look_outside(patient(tmp_path, wandb=wanted, environment=given)), "wandb").status == found


def test_without_a_manifest_nobody_is_asked(tmp_path: Path) -> None:
    checks = list(look_outside(patient(tmp_path, manifest=False, environment={"HF_TOKEN": "t0ken"})))
    assert [check.status for check in checks] == ["ok", "ok"]
    assert "HF_TOKEN" in checks[0].what and "t0ken" not in str(checks)


def test_files_of_the_manifest_that_are_gone_are_named(tmp_path: Path) -> None:
    sick = patient(tmp_path)
    assert named(look_at_storage(sick), "input files").status == "ok"
    (tmp_path / "rows.jsonl").unlink()
    check = named(look_at_storage(sick), "input files")
    assert check.exit_code == Exit.INPUT_MISSING and "rows.jsonl" in check.what


def test_a_folder_that_cannot_be_written_is_73_or_74_and_nothing_is_left_in_one_that_can(tmp_path: Path) -> None:
    sick = patient(tmp_path)
    (tmp_path / "out").write_text("a file")
    (tmp_path / "cache").write_text("a file")
    checks = list(look_at_storage(sick))
    assert [named(iter(checks), name).exit_code for name in ("run directory", "cache")] == [Exit.RUN_DIRECTORY, Exit.IO]
    (tmp_path / "out").unlink()
    before = sorted(tmp_path.rglob("*"))
    assert named(look_at_storage(sick), "run directory").status == "ok"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def scarce(path: Any) -> os.statvfs_result:
        found = list(real(path))
        found[4] = 10_000_000 // found[1]
        return os.statvfs_result((*found, 0))

    monkeypatch.setattr(os, "statvfs", scarce)
    check = named(look_at_storage(patient(tmp_path)), "run directory")
    assert (check.status, check.exit_code) == ("fail", Exit.IO) and "0.0 GB free" in check.what


def test_the_run_directory_says_whose_it_is(tmp_path: Path) -> None:
    sick, out = patient(tmp_path), tmp_path / "out"
    assert named(look_at_storage(sick), "run").status == "ok"
    out.mkdir()
    (out / "theirs.txt").touch()
    assert named(look_at_storage(sick), "run").status == "ok"
    runs = [check for check in look_at_storage(sick) if check.name == "run"]
    assert runs[0].exit_code == Exit.RUN_DIRECTORY and "theirs.txt" in runs[0].what
    for run_id, code, told in ((sick.run_id, Exit.DONE, "the same run"), ("0123456789", Exit.RUN_DIRECTORY, "another")):
        (out / "run.lock.json").write_text(json.dumps({"run_id": run_id}))
        (check,) = (check for check in look_at_storage(sick) if check.name == "run")
        assert check.exit_code == code and told in check.what
    (out / "run.lock.json").write_text("{torn")
    (check,) = (check for check in look_at_storage(sick) if check.name == "run")
    assert check.status == "unknown"


def test_another_runner_and_what_a_killed_one_left_are_seen(tmp_path: Path) -> None:
    sick, out = patient(tmp_path), tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        lock.write("there pid 7")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        check = named(look_at_storage(sick), "lock")
        assert check.exit_code == Exit.RUN_DIRECTORY and "pid 7" in check.what
    assert named(look_at_storage(sick), "lock").status == "ok"
    (out / LEASE).touch()
    assert named(look_at_storage(sick), "lock").status == "fail"
    os.utime(out / LEASE, (0, time.time() - 3600))
    assert named(look_at_storage(sick), "lock").status == "warning"


def test_a_damaged_model_is_a_fault_where_it_was_shipped_and_mended_in_a_cache(tmp_path: Path) -> None:
    name = "smollm2-135m-instruct"
    for top, status in (("shipped", "fail"), ("cache/models", "warning")):
        folder = tmp_path / top / f"{name}-abc-v1"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x")
        (folder / "CONVERTED").write_text('{"model.safetensors": [1, "wrong"]}')
        environment = {"RUNNER_MODELS": str(tmp_path / "shipped")}
        assert named(look_at_storage(patient(tmp_path, model=name, environment=environment)), "model").status == status
        shutil.rmtree(folder)


def test_packages_outside_their_ranges_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: ["rich>=99", "never-heard-of", "torch>=2; extra == 'train'"])
    check = named(look_at_software(patient(tmp_path)), "packages")
    assert check.exit_code == Exit.INPUT_MISSING
    assert "rich" in check.what and ">=99" in check.what and "never-heard-of is not installed" in check.what


def test_an_installation_without_ranges_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: str) -> list[str]:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", gone)
    assert [check.status for check in look_at_software(patient(tmp_path))] == ["unknown"]


def test_memory_and_shared_memory_that_nobody_tells_are_unknown_and_little_is_a_warning(tmp_path: Path) -> None:
    bare = patient(tmp_path, root=tmp_path / "machine")
    found = {check.name: check.status for check in look_at_computer(bare)}
    assert (found["memory"], found["shared memory"], found["gpu"]) == ("unknown", "unknown", "ok")
    (tmp_path / "machine/proc/self").mkdir(parents=True)
    (tmp_path / "machine/proc/meminfo").write_text("MemAvailable: 1000000 kB\n")
    assert named(look_at_computer(bare), "memory").status == "warning"


def test_a_gpu_that_was_not_given_to_the_container_is_a_fault_unless_the_manifest_does_without(tmp_path: Path) -> None:
    (tmp_path / "machine/dev").mkdir(parents=True)
    (tmp_path / "machine/dev/nvidia0").touch()
    alone = patient(tmp_path, manifest=False, root=tmp_path / "machine")
    assert named(look_at_computer(alone), "gpu").exit_code == Exit.MANIFEST
    for accelerator, status in (("auto", "warning"), ("required", "fail"), ("none", "ok")):
        sick = patient(tmp_path, model=f"./model, accelerator: {accelerator}", root=tmp_path / "machine")
        assert named(look_at_computer(sick), "gpu").status == status


def test_the_command_prints_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    patient(tmp_path, train="gone.jsonl")
    environment = {**os.environ, "RUNNER_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "runner", "doctor", str(tmp_path / "m.yaml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 66, done.stdout + done.stderr
    assert re.search("fail +input files", done.stdout) and "a run would end with 66" in done.stdout
    done = subprocess.run([*command, "--format", "json"], env=environment, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"]) == (66, 66)
    assert {"name", "status", "what", "fix", "exit_code"} == set(told["checks"][0])


def hold(url: str) -> str:
    return f"delivery: {{to: {url}}}\n"


@pytest.mark.parametrize("name", ["mirror", "delivery.to"])
def test_a_bucket_is_written_to_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    url = f"s3://{BUCKET}/exp"

    def look(url: str = url) -> Check:
        given: dict[str, Any] = {"url": url} if name == "mirror" else {"extra": hold(url)}
        return named(look_outside(patient(tmp_path, **given)), name)

    with serving_store() as store:
        for variable, value in store.environment.items():
            monkeypatch.setenv(variable, value)
        assert look().status == "ok" and store.names() == []
        assert (look("s3://no-such-bucket/x").exit_code, store.names()) == (Exit.RUN_DIRECTORY, [])
        store.fault = lambda request: (403, "AccessDenied") if request["REQUEST_METHOD"] == "PUT" else None
        assert (look().status, look().exit_code) == ("fail", Exit.CREDENTIALS)
        store.fault = lambda request: None
        store.write("exp/somebody.safetensors", b"")
        assert (look().status, look().exit_code) == ("fail", Exit.RUN_DIRECTORY)
    gone = look()
    assert (gone.status, gone.exit_code) == ("fail", Exit.UNAVAILABLE) and gone.fix


def test_a_bucket_without_its_package_is_a_fault_of_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    found = named(look_outside(patient(tmp_path, hold("gs://bucket/x"))), "delivery.to")
    assert (found.status, found.exit_code) == ("fail", Exit.USAGE) and found.fix == "pip install gcsfs"
    assert exit_of([found]) == Exit.USAGE


def test_a_repository_of_the_hub_is_not_asked_about_where_the_hub_is_off_or_nobody_has_a_token(tmp_path: Path) -> None:
    with serving_hub() as hub:
        extra = hold("hf://owner/name")
        offline = {**hub.environment, "HF_HUB_OFFLINE": "1"}
        found = named(look_outside(patient(tmp_path, extra, environment=offline)), "delivery.to")
        assert (found.status, found.exit_code) == ("fail", Exit.USAGE)
        lacking = {**hub.environment, "HF_TOKEN": ""}
        found = named(look_outside(patient(tmp_path, extra, environment=lacking)), "delivery.to")
        assert (found.status, found.exit_code) == ("fail", Exit.CREDENTIALS) and "HF_TOKEN" in found.fix
        assert hub.repositories == {}
