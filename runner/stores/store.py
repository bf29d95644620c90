"""A prefix of an object store (S3, Google Cloud Storage, Azure) as a flat set of files, through fsspec."""

from __future__ import annotations

import contextlib
import errno
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked
from runner.stores.failures import in_short, status_of

PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
CREDENTIALS = {
    "s3fs": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role",
    "gcsfs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
    "adlfs": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with a key or an identity",
}
_URL = re.compile(r"([a-z0-9]+)://([^/?#@\s]+)(/[^?#\s]*)?")
PART_BYTES, PARTS_AT_ONCE = 16 << 20, 4  # of a large file, which the client holds in memory; S3 takes 10,000 of them
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60}  # seconds


class Store:
    """The files below a prefix, by their names relative to it. Every method raises what the store's client raises;
    `store_problem` makes a problem of that. Safe to use from several threads."""

    def __init__(self, system: Any, root: str, url: str):
        self._system, self._root, self.url = system, root.rstrip("/"), url
        self._parts = {"chunksize": PART_BYTES} if PACKAGES[url.partition("://")[0]] == "s3fs" else {}

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Every file below the prefix, or below one of its folders, with its size in bytes."""
        top = f"{self._root}/{folder}".rstrip("/")
        found: Mapping[str, Any] = self._system.find(top, detail=True, refresh=True)
        return {
            path.removeprefix(f"{self._root}/"): int(facts["size"] or 0)
            for path, facts in sorted(found.items())
            if path.startswith(f"{top}/") and facts["type"] == "file"
        }

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None where there is none of that name."""
        try:
            content: bytes = self._system.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Writes a file; readers see the old one or the new one."""
        self._system.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file that nobody has written before; False where somebody has."""
        try:
            self._system.pipe_file(self._path(name), content, mode="create")
        except FileExistsError:
            return False
        except Exception as error:  # the clients share no class of errors
            if status_of(error) in (409, 412):  # a race that the store noticed, and a condition that was not met
                return False
            raise
        return True

    def upload(self, path: str | Path, name: str) -> None:
        """Copies a file of this machine; readers see the old one or the new one."""
        self._system.put_file(str(path), self._path(name), **self._parts)

    def download(self, name: str, path: Path) -> None:
        """Copies a file to this machine."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._system.get_file(self._path(name), str(path))

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; one that is gone already is no fault."""
        for name in names:
            try:
                self._system.rm_file(self._path(name))
            except FileNotFoundError:
                continue

    def probe(self) -> None:
        """Writes a file and removes it, to see whether that may be done."""
        name = f".runner-probe-{uuid.uuid4().hex}"
        self.write(name, b"")
        self.remove([name])

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def is_store(text: str) -> bool:
    """Whether this is the URL of an object store that we can write to, well formed or not."""
    return text.partition("://")[0] in PACKAGES and "://" in text


def url_fault(url: str) -> str | None:
    """Why the URL of a store cannot be used; None where it can."""
    match = _URL.fullmatch(url)
    if match is not None and "//" not in (match[3] or "") and (match[3] or "").strip("/"):
        return None
    return "It has a user or key in it" if "@" in url else "It names no folder of a bucket"


def open_store(url: str, what: str) -> Store:
    """The prefix that a URL names, not looked at yet; `what` asked for it, as `--out` or a manifest's key does. Raises
    RunnerError (64) for a URL that is none, and where the package for it is missing."""
    place = Where(path=what)
    scheme = url.partition("://")[0]
    if said := url_fault(url):
        fix = f"Write it as {scheme}://bucket/folder; keys come from the environment."
        problem = Problem(code="store/bad-url", what=f"The URL cannot be used. {said}.", where=place, fix=fix)
        raise RunnerError(problem, Exit.USAGE)
    package = PACKAGES[scheme]
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(url, **_options(package))
    except ImportError as error:
        raise RunnerError(_missing(scheme, package, place), Exit.USAGE) from error
    except ValueError as error:  # no account, no keys: what a client needs to begin at all
        raise _refused(url, what, package, "") from error
    except Exception as error:
        raise store_problem(error, url, what) from error
    return Store(system, root, url)


def _options(package: str) -> dict[str, Any]:
    """No listings out of memory: other machines write there too."""
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if package == "s3fs":
        options |= {"config_kwargs": TIMEOUTS, "max_concurrency": PARTS_AT_ONCE}
    return options


def _missing(scheme: str, package: str, place: Where) -> Problem:
    what = f"'{scheme}://' needs the package '{package}', which is not installed."
    return Problem(code="store/package-missing", what=what, where=place, fix=f"pip install {package}")


@contextlib.contextmanager
def as_problem(url: str, what: str, *, uses_disk: bool = False) -> Iterator[None]:
    """Makes a problem of what a store's client raises inside; ours pass, and so does, where what is inside `uses_disk`,
    an error of this machine's disk. Raises RunnerError as `store_problem` has it."""
    try:
        yield
    except RunnerError:
        raise
    except Exception as error:  # the clients share no class of errors
        if uses_disk and _is_of_disk(error):
            raise
        raise store_problem(error, url, what) from error


def _is_of_disk(error: Exception) -> bool:
    """Whether it was this machine's disk that failed; stores' errors are OSErrors too."""
    return isinstance(error, OSError) and (error.errno in OF_DISKS or error.filename is not None)


def store_problem(error: Exception, url: str, what: str) -> RunnerError:
    """The problem behind an error of a store's client: access refused (77), a bucket that is missing (73), or a store
    that does not answer (69)."""
    scheme, status = url.partition("://")[0], status_of(error)
    package, where = PACKAGES.get(scheme, scheme), Where(path=masked(url))
    said = f" (status {status})" if status else ""
    if _is_refusal(error, status):
        return _refused(url, what, package, said)
    if isinstance(error, FileNotFoundError) or status == 404:
        fix = "Make the bucket, or correct its name; the folder in it need not exist."
        problem = Problem(
            code="store/no-bucket", what=f"There is no such bucket for {what}{said}.", where=where, fix=fix
        )
        return RunnerError(problem, Exit.RUN_DIRECTORY)
    told = f"The store for {what} cannot be reached, or does not do what it is asked: {in_short(error)}."
    fix = "Check the address (AWS_ENDPOINT_URL for a store of your own) and the network, then run the same command."
    return RunnerError(Problem(code="store/unavailable", what=told, where=where, fix=fix), Exit.UNAVAILABLE)


def _refused(url: str, what: str, package: str, said: str) -> RunnerError:
    fix = f"Check the credentials ({CREDENTIALS.get(package, 'in the environment')}) and their rights to it."
    told = f"The store refuses access for {what}{said}."
    where = Where(path=masked(url))
    return RunnerError(Problem(code="store/refused", what=told, where=where, fix=fix), Exit.CREDENTIALS)


def _is_refusal(error: Exception, status: int | None) -> bool:
    names = {type(link).__name__ for link in (error, error.__cause__, error.__context__) if link is not None}
    return status in (401, 403) or isinstance(error, PermissionError) or any("Credential" in name for name in names)
