"""A repository of the hub, by the hub's real client: one commit, private unless asked otherwise, and every refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Exit
from runner.pushing import Outgoing
from runner.pushing.place import RECORD
from tests.hub_server import TOKEN, HubServer, Repository

TO = "hf://owner/tickets"
Files = Callable[..., list[Outgoing]]
ROOT = Path(__file__).parents[2]
# The client reads HF_HUB_OFFLINE once, when it is loaded: a process of its own for each case.
ASK = """
import json, os, sys
from pathlib import Path
from runner.errors import RunnerError
from runner.pushing import Outgoing, open_place
to, private, files, run_id = json.loads(sys.argv[1])
place, sent = open_place(to, private=private, environment=os.environ), []
try:
    if files is None:
        place.check()
        print(json.dumps({}))
    else:
        files = [Outgoing(**{**file, "path": Path(file["path"])}) for file in files]
        done = place.push(files, run_id, lambda file, is_new: sent.append(file.name) if is_new else None)
        print(json.dumps({"commit": done.commit, "sent": sent}))
except RunnerError as error:
    problem = error.problems[0]
    print(json.dumps({"exit": int(error.exit_code), "code": problem.code, "what": problem.what, "fix": problem.fix,
                      "where": problem.where.path}))
"""


def ask(
    hub: HubServer, files: list[Outgoing] | None = None, *, to: str = TO, private: bool = True, **more: Any
) -> dict[str, Any]:
    """What a push of the files comes to, or a look where there are none."""
    told = None if files is None else [{**vars(file), "path": str(file.path)} for file in files]
    run_id = more.pop("run_id", "r1")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **hub.environment, **more}
    command = [sys.executable, "-c", ASK, json.dumps([to, private, told, run_id])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_look_makes_nothing(hub: HubServer) -> None:
    assert ask(hub) == {} and ask(hub, to="hf://team/tickets") == {}
    assert hub.repositories == {} and all(method == "GET" for method, _ in hub.asked)


def test_a_push_is_one_commit_in_a_private_repository(hub: HubServer, outgoing: Files) -> None:
    files = outgoing({"merged/model.safetensors": b"merged"})
    done = ask(hub, files)
    repository = hub.repositories["owner/tickets"]
    assert done == {"commit": repository.head, "sent": [*(f.name for f in files if f.name != "README.md"), "README.md"]}
    assert repository.private and repository.commits == ["runner: run r1"]
    assert {name: data for name, data in repository.files.items() if name != RECORD} == {
        file.name: file.path.read_bytes() for file in files
    }
    assert hub.num_uploads == 2
    assert ask(hub, files)["sent"] == [] and hub.num_uploads == 2, "what is there is not sent again"


def test_everybody_may_have_it_where_that_is_asked_for(hub: HubServer, outgoing: Files) -> None:
    ask(hub, outgoing(), private=False)
    assert not hub.repositories["owner/tickets"].private


def test_a_newer_run_replaces_what_an_older_one_delivered_and_nothing_else(hub: HubServer, outgoing: Files) -> None:
    ask(hub, outgoing({"merged/model.safetensors": b"merged"}))
    hub.repositories["owner/tickets"].files["notes.txt"] = b"mine"
    ask(hub, outgoing({"adapter_model.safetensors": b"newer"}), run_id="r2")
    names = set(hub.repositories["owner/tickets"].files)
    assert names == {*(file.name for file in outgoing()), RECORD, "notes.txt"}
    assert hub.repositories["owner/tickets"].files["adapter_model.safetensors"] == b"newer"


def test_a_commit_that_fails_leaves_nothing_half_and_its_files_are_not_sent_again(
    hub: HubServer, outgoing: Files
) -> None:
    hub.fault = lambda method, path: 500 if "/commit/" in path else None
    failed = ask(hub, outgoing())
    assert (failed["exit"], failed["code"]) == (Exit.UNAVAILABLE, "delivery/hub-unavailable")
    assert hub.repositories["owner/tickets"].files == {}
    hub.fault = lambda method, path: None
    assert "commit" in ask(hub, outgoing()) and hub.num_uploads == 1


def role(**token: Any) -> Callable[[HubServer], None]:
    return lambda hub: setattr(hub, "role", token)


def fine(name: str, *permissions: str) -> Callable[[HubServer], None]:
    scope = {"entity": {"type": "user", "name": name}, "permissions": permissions}
    return role(role="fineGrained", fineGrained={"global": [], "scoped": [scope]})


def answering(status: int) -> Callable[[HubServer], None]:
    return lambda hub: setattr(hub, "fault", lambda method, path: status)


def holding(private: bool, *names: str) -> Callable[[HubServer], None]:
    made = Repository(private=private, files=dict.fromkeys(names, b""))
    return lambda hub: hub.repositories.update({"owner/tickets": made})


@pytest.mark.parametrize(
    ("prepare", "given", "code", "slug"),
    [
        (role(role="write"), {"HF_TOKEN": ""}, Exit.CREDENTIALS, "delivery/no-token"),
        (role(role="write"), {"HF_TOKEN": "hf_wrong"}, Exit.CREDENTIALS, "delivery/hub-refused"),
        (role(role="write"), {"HF_HUB_OFFLINE": "1"}, Exit.USAGE, "delivery/offline"),
        (role(role="write"), {"to": "hf://stranger/x"}, Exit.CREDENTIALS, "delivery/hub-refused"),
        (role(role="write"), {"to": "hf://others/x"}, Exit.CREDENTIALS, "delivery/hub-refused"),
        (role(role="read"), {}, Exit.CREDENTIALS, "delivery/hub-refused"),
        (fine("another", "repo.write"), {}, Exit.CREDENTIALS, "delivery/hub-refused"),
        (fine("owner", "repo.content.read"), {}, Exit.CREDENTIALS, "delivery/hub-refused"),
        (answering(403), {}, Exit.CREDENTIALS, "delivery/hub-refused"),
        (answering(500), {}, Exit.UNAVAILABLE, "delivery/hub-unavailable"),
        (lambda hub: hub.close(), {}, Exit.UNAVAILABLE, "delivery/hub-unavailable"),
        (holding(False), {}, Exit.RUN_DIRECTORY, "delivery/public"),
        (holding(True, "model.safetensors"), {}, Exit.RUN_DIRECTORY, "delivery/foreign-files"),
    ],
)
def test_a_hub_that_does_not_take_it_is_told_before_the_work(
    hub: HubServer, prepare: Callable[[HubServer], None], given: dict[str, Any], code: Exit, slug: str
) -> None:
    prepare(hub)
    told = ask(hub, **given)
    assert (told["exit"], told["code"]) == (code, slug), told
    assert told["where"] == given.get("to", TO) and told["fix"]
    assert all(method in ("GET", "HEAD") for method, _ in hub.asked)


@pytest.mark.parametrize("prepare", [fine("owner", "repo.write"), fine("owner/tickets", "repo.write"), holding(True)])
def test_a_token_for_just_that_and_a_repository_that_is_there_will_do(
    hub: HubServer, prepare: Callable[[HubServer], None]
) -> None:
    prepare(hub)
    assert ask(hub) == {}
