"""A folder of a bucket as the place where weights go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from runner.pushing.place import CARD, KEY, RECORD, Outgoing, Record, Sent, foreign
from runner.stores import Store, as_problem, open_store

Done = TypeVar("Done")


class BucketPlace:
    """A bucket's folder. What is sent replaces what an earlier run of ours delivered there, and nothing else."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")

    def check(self) -> None:
        """Lists, writes a file and removes it."""
        self._ask(_check)

    def push(self, files: Sequence[Outgoing], run_id: str, moved: Callable[[Outgoing, bool], None]) -> Sent:
        """Sends file by file; the record is written after each, so that whoever goes on knows what is there."""
        return self._ask(lambda store: _push(store, files, run_id, moved))

    def _ask(self, do: Callable[[Store], Done]) -> Done:
        store = open_store(self.url, KEY)
        with as_problem(self.url, KEY):
            return do(store)


def _check(store: Store) -> None:
    _held(store)
    store.probe()


def _held(store: Store) -> tuple[Record | None, dict[str, int]]:
    """What lies there; raises RunnerError (73) where it is somebody else's."""
    sizes = store.sizes()
    record = Record.read(store.read(RECORD)) if RECORD in sizes else None
    strangers = [name for name in sizes if not name.startswith(".")]
    if record is None and strangers:
        raise foreign(store.url, strangers)
    return record, sizes


def _push(store: Store, files: Sequence[Outgoing], run_id: str, moved: Callable[[Outgoing, bool], None]) -> Sent:
    before, sizes = _held(store)
    known: Mapping[str, str] = before.files if before else {}
    own = known if before and before.run_id == run_id else {}  # another run may have been cut short as it replaced ours
    there = {file.name for file in files if own.get(file.name) == file.sha256 and sizes.get(file.name) == file.bytes}
    stale = sorted(set(known) - {file.name for file in files})
    if not stale and all(file.name in there for file in files):
        for file in files:
            moved(file, False)
        return Sent(commit=None, num_sent=0)
    there.discard(CARD)
    store.remove([CARD])  # never a card beside files that it does not speak of
    noted = {name: sha256 if name in there else "" for name, sha256 in known.items()}
    store.write(RECORD, Record(run_id=run_id, files=noted).text())
    for file in sorted(files, key=lambda file: file.name == CARD):
        is_new = file.name not in there
        if file.name == CARD:
            store.remove(stale)
            noted = {name: sha256 for name, sha256 in noted.items() if name not in stale}
        if is_new:
            store.upload(file.path, file.name)
            noted[file.name] = file.sha256
            store.write(RECORD, Record(run_id=run_id, files=noted).text())
        moved(file, is_new)
    return Sent(commit=None, num_sent=len(files) - len(there))
