"""One try at downloading a file, by HTTP or from a store that fsspec knows."""

from __future__ import annotations

import base64
import errno
import http
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

TIMEOUT = 60.0  # seconds without a byte
CHECKS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
STAMPS = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "generation", "created")

Stamp = Mapping[str, str]  # what tells one state of a remote file from another


def is_http(url: str) -> bool:
    """Whether the URL is one of the web."""
    return url.lower().startswith(("http://", "https://"))


def get(url: str, target: Path, known: Stamp | None) -> Stamp | None:
    """Downloads the file and returns its state; None when it is still in the `known` one."""
    return (_get_http if is_http(url) else _get_fsspec)(url, target, known)


def _get_http(url: str, target: Path, known: Stamp | None) -> Stamp | None:
    """By the standard library, so that no package is needed for it."""
    try:
        with (
            urllib.request.urlopen(make_request(url, known or {}), timeout=TIMEOUT) as response,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
            if expected is not None and int(expected) != file.tell():
                raise ConnectionError("the connection was cut")
            return {name: response.headers[name] for name in CHECKS if name in response.headers}
    except urllib.error.HTTPError as error:
        if known and error.code == http.HTTPStatus.NOT_MODIFIED:
            return None
        raise


def make_request(url: str, known: Stamp) -> urllib.request.Request:
    """A request for what has changed since a `known` state; a login in the URL goes into its header alone. Raises
    ValueError for what is no URL."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if not parts.hostname:
        raise ValueError("no host")
    plain = urlunsplit((parts.scheme, host, quote(parts.path, safe="/%:@!$&'()*+,;=~"), parts.query, ""))
    request = urllib.request.Request(plain, headers={"User-Agent": "runner", "Accept-Encoding": "identity"})
    if user:  # not sent on when the server redirects elsewhere
        login = unquote(user if ":" in user else f"{user}:")
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    for stamp, header in CHECKS.items():
        if stamp in known:
            request.add_unredirected_header(header, known[stamp])
    return request


def _get_fsspec(url: str, target: Path, known: Stamp | None) -> Stamp | None:
    """What shows that nothing changed is more than the size."""
    import fsspec.core  # 0.1 s, and most sources are local

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
