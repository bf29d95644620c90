"""A bucket's folder holds a delivery whole, and says so only then."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from runner.errors import Exit, RunnerError
from runner.pushing import Outgoing, open_place
from runner.pushing.place import RECORD
from tests.store_server import BUCKET, StoreServer, refusing

URL = f"s3://{BUCKET}/models/tickets"
Files = Callable[..., list[Outgoing]]


def push(files: list[Outgoing], run_id: str = "r1", url: str = URL) -> list[str]:
    """The names that had to be sent, in their order."""
    sent: list[str] = []

    def moved(file: Outgoing, is_new: bool) -> None:
        if is_new:
            sent.append(file.name)

    open_place(url, private=True, environment={}).push(files, run_id, moved)
    return sent


def there(store: StoreServer) -> dict[str, bytes]:
    top = "models/tickets/"
    return {name.removeprefix(top): store.read(name) for name in store.names(top)}


def test_a_look_leaves_nothing_behind(store: StoreServer) -> None:
    open_place(URL, private=True, environment={}).check()
    assert store.names() == []


def test_the_card_goes_up_last_and_nothing_goes_up_twice(store: StoreServer, outgoing: Files) -> None:
    files = outgoing({"merged/model.safetensors": b"merged"})
    assert push(files)[-1] == "README.md"
    assert {file.name: file.path.read_bytes() for file in files} == {
        name: content for name, content in there(store).items() if name != RECORD
    }
    assert json.loads(there(store)[RECORD]) == {"run_id": "r1", "files": {file.name: file.sha256 for file in files}}
    assert push(files) == []


def test_what_was_cut_short_goes_on_with_what_is_missing(store: StoreServer, outgoing: Files) -> None:
    def fail_second(request: dict[str, Any]) -> tuple[int, str] | None:
        return (403, "AccessDenied") if "adapter_config" in request["PATH_INFO"] else None

    store.fault = fail_second
    with pytest.raises(RunnerError) as caught:
        push(outgoing())
    assert caught.value.exit_code == Exit.CREDENTIALS
    assert "README.md" not in there(store) and "adapter_model.safetensors" in there(store)
    store.fault = lambda request: None
    assert push(outgoing()) == ["adapter_config.json", "README.md"]


def test_a_newer_run_replaces_all_of_an_older_one_and_nothing_of_anybody_else(
    store: StoreServer, outgoing: Files
) -> None:
    push(outgoing({"merged/model.safetensors": b"merged"}))
    store.write("models/tickets/notes.txt", b"mine")
    assert set(push(outgoing({"adapter_config.json": b'{"r": 8}'}), "r2")) == {file.name for file in outgoing()}
    assert there(store)["adapter_config.json"] == b'{"r": 8}' and "merged/model.safetensors" not in there(store)
    assert there(store)["notes.txt"] == b"mine"


def test_a_run_whose_files_another_began_to_replace_sends_them_all_again(store: StoreServer, outgoing: Files) -> None:
    push(outgoing())
    store.fault = lambda request: (403, "AccessDenied") if "adapter_config" in request["PATH_INFO"] else None
    with pytest.raises(RunnerError):
        push(outgoing({"adapter_model.safetensors": b"WEIGHTS"}), "r2")
    store.fault = lambda request: None
    assert len(push(outgoing({"adapter_model.safetensors": b"weights"}))) == 3
    assert there(store)["adapter_model.safetensors"] == b"weights"


@pytest.mark.parametrize(
    ("prepare", "url", "code", "slug"),
    [
        (lambda store: None, "s3://no-such-bucket/f", Exit.RUN_DIRECTORY, "store/no-bucket"),
        (lambda store: setattr(store, "fault", refusing), URL, Exit.CREDENTIALS, "store/refused"),
        (lambda store: store.close(), URL, Exit.UNAVAILABLE, "store/unavailable"),
        (
            lambda store: store.write("models/tickets/model.safetensors", b"another's"),
            URL,
            Exit.RUN_DIRECTORY,
            "delivery/foreign-files",
        ),
        (
            lambda store: setattr(
                store, "fault", lambda request: (403, "AccessDenied") if request["REQUEST_METHOD"] == "PUT" else None
            ),
            URL,
            Exit.CREDENTIALS,
            "store/refused",
        ),
    ],
    ids=["no bucket", "refused", "down", "foreign", "read only"],
)
def test_a_bucket_that_cannot_be_had_is_told_before_the_work(
    store: StoreServer, prepare: Callable[[StoreServer], None], url: str, code: Exit, slug: str
) -> None:
    prepare(store)
    with pytest.raises(RunnerError) as caught:
        open_place(url, private=True, environment={}).check()
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code) == (code, slug) and problem.where.path and problem.fix
