"""Sends what was delivered to where `delivery.to` says, from the files of the run directory."""

from __future__ import annotations

import queue
import shlex
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.backends.base import Watch
from runner.delivery.parts import DeliveredFile, Pushed
from runner.delivery.serve import ServeLine
from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import sha256_of
from runner.pushing import CARD, HUB, KEY, Outgoing, Place, is_hub

LOOK_SECONDS = 0.1
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
Arrived = tuple[Outgoing, bool]  # and whether it had to be sent


def push_delivery(
    report: Mapping[str, Any],
    run: Path,
    place: Place,
    watch: Watch,
    now: Callable[[], str],
    arrived: list[DeliveredFile],
) -> Pushed:
    """Sends the files that the report of a finished run lists, and says where they are; `arrived` fills with those that
    are there. Raises RunnerError: as the place has it, and 74 where a file is not as it was when it was proven."""
    delivery = report["delivery"]
    known = {(file["name"], file["sha256"]) for file in _earlier(delivery, place.url)}
    watch.say(f"sending the weights to {place.url}")
    lines = serve_from(place.url, delivery)
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        files = list(_outgoing(delivery, run, _write_card(Path(folder), run, place.url, lines)))
        place.check()
        commit = None
        with watch.progress("push", len(files)) as bar:
            for step in _aside(place, files, report["run_id"]):
                if isinstance(step, tuple):
                    file, _ = step
                    arrived.append(DeliveredFile(name=file.name, bytes=file.bytes, sha256=file.sha256))
                    if (file.name, file.sha256) not in known:
                        watch.saved("files", 1)
                    bar.advance(1, file=file.name)
                else:
                    commit = step
    return Pushed(url=place.url, pushed_at=now(), commit=commit, files=tuple(arrived), serve=lines)


def serve_from(url: str, delivery: Mapping[str, Any]) -> tuple[ServeLine, ...]:
    """The commands that get the weights from there, and those that serve them without that."""
    if not is_hub(url):
        folder = url.rstrip("/").rpartition("/")[2]
        return (ServeLine(name="copied from the bucket", command=shlex.join(["runner", "fetch", url, folder])),)
    name = url.removeprefix(HUB)
    folder = name.partition("/")[2]
    get = shlex.join(["hf", "download", name, "--local-dir", folder])
    return (ServeLine(name="copied from the hub", command=get), *_served(delivery, name))


def _served(delivery: Mapping[str, Any], name: str) -> Iterator[ServeLine]:
    """The lines that serve the folder, with the repository in its place."""
    own = delivery["model_dir"]
    for line in delivery["serve"]:
        words = shlex.split(line["command"])
        there = [name if word == own else word.replace(f"={own}", f"={name}") for word in words]
        if there != words:
            yield ServeLine(name=f"{line['name']}, from the hub", command=shlex.join(there))


def _earlier(delivery: Mapping[str, Any], url: str) -> list[Mapping[str, Any]]:
    """What an earlier attempt sent to the same place."""
    sent = delivery.get("to")
    return sent["files"] if sent and sent["url"] == url else []


def _outgoing(delivery: Mapping[str, Any], run: Path, card: Path) -> Iterator[Outgoing]:
    """The files by their names there: those of model/ on top, those of merged/ below merged/."""
    model = Path(delivery["model_dir"]).name
    for entry in delivery["files"]:
        path = run / entry["name"]
        name = entry["name"].removeprefix(f"{model}/")
        if path.suffix in PICKLES:
            what = f"'{entry['name']}' may be a pickle, which is never sent."
            raise _fault("delivery/pickle", what, path, "Please report this, with the report.json.", Exit.BUG)
        if sha256_of(path) != entry["sha256"]:
            fix = "Check the disk; --fresh makes the weights anew."
            raise _fault("delivery/changed", "A delivered file has changed since it was proven.", path, fix, Exit.IO)
        path = card if name == CARD else path
        yield Outgoing(name=name, path=path, bytes=path.stat().st_size, sha256=sha256_of(path))


def _write_card(folder: Path, run: Path, url: str, lines: tuple[ServeLine, ...]) -> Path:
    """The card of the run directory, and how to get what it describes; no path of this machine stands in it."""
    shown = [line.command for line in lines if not any(_is_path(word) for word in shlex.split(line.command))]
    own = (run / "model" / CARD).read_text(encoding="utf-8")
    path = folder / CARD
    path.write_text("\n".join([f"{own}\n## Where it is", "", url, "", "```sh", *shown, "```", ""]), encoding="utf-8")
    return path


def _is_path(word: str) -> bool:
    return word.startswith("/") or "=/" in word


def _aside(place: Place, files: list[Outgoing], run_id: str) -> Iterator[Arrived | str | None]:
    """Each file that is there, then the commit; the work is done by a thread, since clients in C do not notice a
    request to stop. Raises what the place raises."""
    steps: queue.SimpleQueue[Arrived | str | Exception | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            sent = place.push(files, run_id, lambda file, is_new: steps.put((file, is_new)))
            steps.put(sent.commit)
        except Exception as error:  # it is raised where somebody waits for it
            steps.put(error)

    threading.Thread(target=work, name="push", daemon=True).start()
    while True:
        try:
            step = steps.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            continue
        if isinstance(step, Exception):
            raise step
        yield step
        if not isinstance(step, tuple):
            return


def _fault(code: str, what: str, path: Path, fix: str, exit_code: Exit) -> RunnerError:
    return RunnerError(Problem(code=code, what=what, where=Where(path=str(path), key=KEY), fix=fix), exit_code)
