"""Secrets come from the environment, or from a file that NAME_FILE names there; never from the command line or the
manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from runner.errors import Exit, Problem, RunnerError
from runner.masking import remember_values

# What the libraries below us read from the environment by themselves, and no setting of ours can pass on.
OF_LIBRARIES = (
    "HF_TOKEN",
    "WANDB_API_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_SECRET",
)
MAX_BYTES = 65_536  # a connection string has hundreds, a token of an identity provider a few thousand


def keys_named_in(values: Any) -> dict[tuple[str | int, ...], str]:
    """The environment variables that a manifest's endpoints take their keys from, by where the manifest names them."""
    return dict(_named(values, ()))


def _named(values: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for key, value in pairs:
        if key == "api_key_env" and isinstance(value, str):
            yield (*path, key), value
        yield from _named(value, (*path, key))


def take_files(environment: MutableMapping[str, str], names: Iterable[str]) -> None:
    """Puts the secrets that files hold into the environment, for libraries and for the processes that we start; a file
    may be a pipe, which is read only once. Raises RunnerError (77) as `read_files` does."""
    for name, secret in read_files(environment, names).items():
        environment[name] = secret
        remember_values(secret)
        del environment[f"{name}_FILE"]


def read_files(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The secrets of OF_LIBRARIES and `names` that files hold: NAME_FILE names the file of NAME.

    Raises RunnerError (77) with every file that cannot be read or holds none, and every secret that is given twice.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for name in dict.fromkeys((*OF_LIBRARIES, *names)):
        path = environment.get(f"{name}_FILE")
        secret = _read(name, path) if path else None
        if isinstance(secret, Problem):
            problems.append(secret)
        elif secret and environment.get(name, "").strip() not in ("", secret):
            what = f"{name} and {name}_FILE are both set, and differ."
            problems.append(Problem(code="credentials/twice", what=what, fix="Unset one of them."))
        elif secret:
            found[name] = secret
    if problems:
        raise RunnerError(problems, Exit.CREDENTIALS)
    return found


def _read(name: str, path: str) -> str | Problem:
    """The secret in a file, or why there is none; its words never hold what the file does."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        what = f"The file that {name}_FILE names cannot be read: {getattr(error, 'strerror', None) or 'no path'}."
        fix = f"Mount the secret and make it readable, or set {name} itself: {path}"
        return Problem(code="credentials/unreadable", what=what, fix=fix)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = "\0"
    if not text:
        what = f"The file that {name}_FILE names is empty."
        return Problem(code="credentials/empty", what=what, fix=f"Put the secret into {path}")
    if len(content) > MAX_BYTES or not text.isprintable():
        what = f"The file that {name}_FILE names holds more than one secret, or none: it is not one line of text."
        return Problem(code="credentials/unusable", what=what, fix=f"Put the secret alone into {path}")
    return text
