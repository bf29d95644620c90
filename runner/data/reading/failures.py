"""What went wrong on the way to a file: a problem out of a client's error, without the secrets of its words."""

from __future__ import annotations

import errno
import http.client

from runner.errors import Exit, Problem, RunnerError, Where
from runner.stores import PACKAGES, in_short, status_of

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def source_problem(
    code: str, what: str, name: str, key: str, fix: str, exit_code: Exit = Exit.INPUT_MISSING
) -> RunnerError:
    """A source that the manifest names at `key` cannot be had."""
    return RunnerError(Problem(code=code, what=what, where=Where(path=name, key=key), fix=fix), exit_code)


def judge(error: Exception, shown: str, key: str, num_tries: int) -> RunnerError | None:
    """The problem behind an error of a store's client; None for what can only be our own mistake."""
    status, scheme = status_of(error), shown.partition("://")[0]
    if isinstance(error, ImportError):
        package = PACKAGES.get(scheme, error.name or scheme)
        what = f"'{scheme}://' needs the package '{package}', which is not installed."
        return source_problem("data/package-missing", what, shown, key, f"pip install {package}", Exit.USAGE)
    if isinstance(error, IsADirectoryError):
        fix = "Write one source for each file."
        return source_problem("data/not-one-file", "The source is a folder.", shown, key, fix, Exit.DATA_REJECTED)
    if status in (401, 403) or isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        said = f" (status {status})" if status else ""
        fix = "Check that the credentials in the environment may read it, or renew the link."
        return source_problem("data/refused", f"Access was refused{said}.", shown, key, fix, Exit.CREDENTIALS)
    passing = status is not None and (status >= 500 or status in (408, 425, 429))
    if isinstance(error, FileNotFoundError) or (status is not None and 400 <= status < 500 and not passing):
        said = f" (status {status})" if status not in (None, 404) else ""
        return source_problem("data/missing", f"There is no such file{said}.", shown, key, f"Correct {key}.")
    if isinstance(error, OSError) and error.errno in FULL:
        fix = "Make room where the cache is."
        return source_problem("data/cache", f"Writing failed: {error.strerror}.", shown, key, fix, Exit.IO)
    if isinstance(error, ValueError | http.client.InvalidURL):
        fix = f"Correct {key}; for example https://, s3:// or gs://"
        return source_problem("data/bad-url", "The URL cannot be used.", shown, key, fix, Exit.USAGE)
    if type(error).__module__ == "builtins" and not isinstance(error, OSError | EOFError):
        return None
    what = f"The file could not be downloaded in {num_tries} tries: {in_short(error)}."
    return source_problem("data/unavailable", what, shown, key, "Run the same command again later.", Exit.UNAVAILABLE)
