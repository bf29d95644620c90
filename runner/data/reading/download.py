"""URLs -> local files: downloaded once, kept with a note of the remote state, tried again when trouble may pass."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from runner.data.reading.clients import Stamp, get, is_http
from runner.data.reading.failures import judge, source_problem
from runner.data.reading.local import LocalFile, measure
from runner.errors import Exit
from runner.files import sha256_of
from runner.stores import in_short

HOST = re.compile(r"([^:]*|\[[0-9a-f:.]*\])(:\d*)?", re.IGNORECASE)  # else it may be a torn password

Say = Callable[[str], None]


def download(url: str, cache: Path, say: Say, key: str, pauses: Sequence[float]) -> LocalFile:
    """The URL's file in the cache; raises RunnerError as `fetch` does."""
    shown = shown_url(url)
    _refuse_patterns(url, shown, key)
    path = cache / "downloads" / hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:32] / _file_name(shown)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()  # a cache that cannot be written shows here, apart from a source that cannot be read
        known = _known_stamp(path)
        stamp = _tried(lambda: get(url, partial, known), shown, say, key, pauses)
        if stamp is None:
            return measure(path, shown, key)
        os.replace(partial, path)
        file = measure(path, shown, key)
        note = json.dumps({"source": shown, "stamp": dict(stamp), "sha256": file.sha256})
        partial.write_text(note, encoding="utf-8")
        os.replace(partial, _note(path))
        say(f"downloaded {shown} ({file.num_bytes / 1e6:.1f} MB)")
        return file
    except OSError as error:
        what = f"The download cannot be kept: {error.strerror or type(error).__name__}."
        fix = f"Make room in {cache}, or let the run write there."
        raise source_problem("data/cache", what, shown, key, fix, Exit.IO) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def shown_url(url: str) -> str:
    """The URL without user, password, query and fragment, which may be secrets."""
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split("[?#]", rest)[0].partition("/")
    host = host.rpartition("@")[2]
    return f"{scheme}://{host}{slash}{path}" if HOST.fullmatch(host) else f"{scheme}://(hidden)"


def _refuse_patterns(url: str, shown: str, key: str) -> None:
    scheme, _, place = shown.partition("://")
    pattern = re.search(r"[*[]", place.partition("/")[2]) if is_http(url) else re.search(r"[*[?]", url)
    if pattern or shown.endswith("/") or "::" in scheme:
        what = "A folder, a pattern or a chain of URLs is not supported as a source."
        raise source_problem(
            "data/not-one-file", what, shown, key, "Write one source for each file.", Exit.DATA_REJECTED
        )


def _file_name(shown: str) -> str:
    return re.sub(r"[^\w.-]|^\.+", "_", unquote(PurePosixPath(shown).name), flags=re.ASCII)[-100:] or "data"


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.origin.json")


def _known_stamp(path: Path) -> Stamp | None:
    """The state of the remote file that the copy was made of; None when there is no whole copy."""
    try:
        note = json.loads(_note(path).read_text(encoding="utf-8"))
        return dict(note["stamp"]) if sha256_of(path) == note["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tried(
    try_once: Callable[[], Stamp | None], shown: str, say: Say, key: str, pauses: Sequence[float]
) -> Stamp | None:
    """What `try_once` returns; trouble that may pass is tried again after each pause."""
    for pause in (*pauses, None):
        try:
            return try_once()
        except Exception as error:  # the clients of the stores share no class of errors
            problem = judge(error, shown, key, len(pauses) + 1)
            if problem is None:
                raise
            if problem.exit_code != Exit.UNAVAILABLE or pause is None:
                raise problem from error
            say(f"{shown}: {in_short(error)}; trying again in {pause:g} s")
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")
