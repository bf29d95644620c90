"""Sources -> local files: a path is taken as it is; a URL or a hub dataset is downloaded once."""

from __future__ import annotations

import base64
import contextlib
import difflib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from runner.errors import Exit, Problem, RunnerError, Where

PAUSES = (1.0, 4.0)  # seconds before the second and the third try
TIMEOUT = 60.0  # seconds without a byte
URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)
HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*@[^\s:@]+(:\w[\w.-]*)?")
DATA_FILE = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|tab|parquet|txt|gz)$", re.IGNORECASE)
STAMPS = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "generation", "created")
HOST = re.compile(r"([^:]*|\[[0-9a-f:.]*\])(:\d*)?", re.IGNORECASE)  # else it may be a torn password
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

Say = Callable[[str], None]
Stamp = Mapping[str, str]  # what tells one state of a remote file from another


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file that can be read here; `name` is what people are shown, without secrets."""

    name: str
    path: Path
    sha256: str
    num_bytes: int


def fetch(
    source: str, cache: Path, say: Say, key: str = "data.train", pauses: Sequence[float] = PAUSES
) -> tuple[LocalFile, ...]:
    """The files of a source, downloaded into `cache` where they are not local and not there yet.

    Raises RunnerError: 66 missing, 77 refused, 69 unreachable after a try for each pause and one more, 64 when a
    package is not installed, 74 when the cache cannot be written.
    """
    if is_url(source):
        return (_fetch_url(source, cache, say, key, pauses),)
    if is_hub(source):
        from runner.data.hub import fetch_dataset  # loads `datasets`, which takes seconds

        return (_measured(fetch_dataset(source, cache, say, key), source, key),)
    return (_measured(Path(source), source, key),)


def is_url(source: str) -> bool:
    """Whether the source has a scheme."""
    return URL.match(source) is not None


def is_hub(source: str) -> bool:
    """Whether the source is written as ``org/name@revision[:split]`` and is neither a file nor named like one."""
    written = HUB.fullmatch(source) is not None and not DATA_FILE.search(source)
    return written and not os.path.lexists(source)


def shown_url(url: str) -> str:
    """The URL without user, password, query and fragment, which may be secrets."""
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split("[?#]", rest)[0].partition("/")
    host = host.rpartition("@")[2]
    return f"{scheme}://{host}{slash}{path}" if HOST.fullmatch(host) else f"{scheme}://(hidden)"


# Local files


def _measured(path: Path, name: str, key: str) -> LocalFile:
    try:
        if path.exists() and not path.is_file():
            what = "is a folder" if path.is_dir() else "is no ordinary file"
            raise _problem("data/missing", f"The data file cannot be read: it {what}.", name, key, "Name one file.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return LocalFile(name=name, path=path, sha256=digest, num_bytes=file.tell())
    except (OSError, ValueError) as error:
        what = f"The data file cannot be read: {getattr(error, 'strerror', None) or error}."
        fix = f"{_near(path)}Correct {key}; paths start from the manifest's folder."
        if isinstance(error, PermissionError):
            fix = f"Make it readable: chmod u+r {path}"
        raise _problem("data/missing", what, name, key, fix) from error


def _near(path: Path) -> str:
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(repr(name) for name in near)}? " if near else ""


# URLs


def _fetch_url(url: str, cache: Path, say: Say, key: str, pauses: Sequence[float]) -> LocalFile:
    shown = shown_url(url)
    _refuse_patterns(url, shown, key)
    path = cache / "downloads" / hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:32] / _file_name(shown)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    get = _get_http if url.lower().startswith(("http://", "https://")) else _get_fsspec
    known = _known_stamp(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stamp = _tried(lambda: get(url, partial, known), shown, say, key, pauses)
        if stamp is not None:
            os.replace(partial, path)
        file = _measured(path, shown, key)
        if stamp is not None:
            note = json.dumps({"source": shown, "stamp": dict(stamp), "sha256": file.sha256})
            partial.write_text(note, encoding="utf-8")
            os.replace(partial, _note(path))
            say(f"downloaded {shown} ({file.num_bytes / 1e6:.1f} MB)")
        return file
    except OSError as error:
        what = f"The download cannot be kept: {error.strerror or type(error).__name__}."
        fix = f"Make room in {cache}, or let the run write there."
        raise _problem("data/cache", what, shown, key, fix, Exit.IO) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _refuse_patterns(url: str, shown: str, key: str) -> None:
    scheme = shown.partition("://")[0]
    globs = "*[" if scheme.lower() in ("http", "https") else "*[?"
    if any(mark in (shown if globs == "*[" else url) for mark in globs) or shown.endswith("/") or "::" in scheme:
        what = "A folder, a pattern or a chain of URLs is not supported as a source."
        raise _problem("data/not-one-file", what, shown, key, "Write one source for each file.", Exit.DATA_REJECTED)


def _file_name(shown: str) -> str:
    return re.sub(r"[^\w.-]|^\.+", "_", unquote(PurePosixPath(shown).name))[-100:] or "data"


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.origin.json")


def _known_stamp(path: Path) -> Stamp | None:
    """The state of the remote file that the copy was made of; None when there is no whole copy."""
    try:
        note = json.loads(_note(path).read_text(encoding="utf-8"))
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == note["sha256"]
        return dict(note["stamp"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tried(get: Callable[[], Stamp | None], shown: str, say: Say, key: str, pauses: Sequence[float]) -> Stamp | None:
    """What `get` returns; trouble that may pass is tried again after each pause."""
    for pause in (*pauses, None):
        try:
            return get()
        except Exception as error:  # the clients of the stores share no class of errors
            problem = _judged(error, shown, key, len(pauses) + 1)
            if problem is None:
                raise
            if problem.exit_code != Exit.UNAVAILABLE or pause is None:
                raise problem from error
            say(f"{shown}: {_short(error)}; trying again in {pause:g} s")
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _get_http(url: str, target: Path, known: Stamp | None) -> Stamp | None:
    """Downloads unless the server says that nothing changed (None); by the standard library, so that no package is
    needed for it."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if not parts.hostname:
        raise ValueError("no host")
    plain = urlunsplit((parts.scheme, host, quote(parts.path, safe="/%:@!$&'()*+,;=~"), parts.query, ""))
    request = urllib.request.Request(plain, headers={"User-Agent": "runner", "Accept-Encoding": "identity"})
    if user:  # not sent on when the server redirects elsewhere
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    for stamp, header in (("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since")):
        if known and stamp in known:
            request.add_unredirected_header(header, known[stamp])
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response, target.open("wb") as file:
            shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
            if expected is not None and int(expected) != file.tell():
                raise ConnectionError("the connection was cut")
            return {name: response.headers[name] for name in ("ETag", "Last-Modified") if name in response.headers}
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.NOT_MODIFIED:
            return None
        raise


def _get_fsspec(url: str, target: Path, known: Stamp | None) -> Stamp | None:
    """Downloads unless size and time of change are those of the copy (None)."""
    import fsspec.core

    system, path = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    info = system.info(path)
    if info.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    stamp = {name: str(info[name]) for name in STAMPS if info.get(name) is not None}
    if stamp == known and stamp.keys() != {"size"}:
        return None
    system.get_file(path, str(target))
    if info.get("size") not in (None, target.stat().st_size):
        raise ConnectionError("the connection was cut")
    return stamp


# What went wrong


def _judged(error: Exception, shown: str, key: str, tries: int) -> RunnerError | None:
    """The problem behind an error of a store's client; None for what can only be our own mistake."""
    status, scheme = _status(error), shown.partition("://")[0]
    if isinstance(error, RunnerError):
        return error
    if isinstance(error, ImportError):
        package = PACKAGES.get(scheme, error.name or scheme)
        what = f"'{scheme}://' needs the package '{package}', which is not installed."
        return _problem("data/package-missing", what, shown, key, f"pip install {package}", Exit.USAGE)
    if isinstance(error, IsADirectoryError):
        fix = "Write one source for each file."
        return _problem("data/not-one-file", "The source is a folder.", shown, key, fix, Exit.DATA_REJECTED)
    if status in (401, 403) or isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        said = f" (status {status})" if status else ""
        fix = "Check that the credentials in the environment may read it, or renew the link."
        return _problem("data/refused", f"Access was refused{said}.", shown, key, fix, Exit.CREDENTIALS)
    passing = status is not None and (status >= 500 or status in (408, 425, 429))
    if isinstance(error, FileNotFoundError) or (status is not None and 400 <= status < 500 and not passing):
        said = f" (status {status})" if status not in (None, 404) else ""
        return _problem("data/missing", f"There is no such file{said}.", shown, key, f"Correct {key}.")
    if isinstance(error, OSError) and error.errno in FULL:
        fix = "Make room where the cache is."
        return _problem("data/cache", f"Writing failed: {error.strerror}.", shown, key, fix, Exit.IO)
    if isinstance(error, ValueError | http.client.InvalidURL):
        fix = f"Correct {key}; for example https://, s3:// or gs://"
        return _problem("data/bad-url", "The URL cannot be used.", shown, key, fix, Exit.USAGE)
    if type(error).__module__ == "builtins" and not isinstance(error, OSError | EOFError):
        return None
    what = f"The file could not be downloaded in {tries} tries: {_short(error)}."
    return _problem("data/unavailable", what, shown, key, "Run the same command again later.", Exit.UNAVAILABLE)


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, however the client keeps it."""
    for link in _chain(error):
        kept = getattr(link, "response", None)
        answer = kept.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(kept, dict) else None
        for status in (getattr(link, "code", None), getattr(link, "status", None), answer):
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None


def _chain(error: Any) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _short(error: BaseException) -> str:
    """What happened, in words of the system's own; a client's words may hold the URL with its secrets."""
    status = _status(error)
    if status is not None:
        return f"the server answered {status}"
    reason = getattr(error, "reason", error)
    said = getattr(reason, "strerror", None) or (str(reason) if type(reason) is ConnectionError else "")
    return str(said or type(reason).__name__)


def _problem(code: str, what: str, name: str, key: str, fix: str, exit_code: Exit = Exit.INPUT_MISSING) -> RunnerError:
    return RunnerError(Problem(code=code, what=what, where=Where(path=name, key=key), fix=fix), exit_code)
