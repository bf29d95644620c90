"""Datasets of the hub -> one Parquet file for each commit and split; the only file that loads `datasets`."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.data.reading.failures import source_problem
from runner.errors import Exit, RunnerError
from runner.machine.telemetry import silence

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a client's error means; the texts may name the dataset and its revision."""

    code: str
    exit: Exit
    what: str
    fix: str


REFUSED = "Ask for access on the dataset's page, then set HF_TOKEN to a token of yours."
GATED = Fault(code="data/refused", exit=Exit.CREDENTIALS, what="The dataset {name} is gated.", fix=REFUSED)
UNREACHABLE = Fault(
    code="data/unavailable",
    exit=Exit.UNAVAILABLE,
    what="The dataset {name} is not in the cache, and the hub cannot be reached.",
    fix="Run the same command again with a network (and without HF_HUB_OFFLINE).",
)
UNREADABLE = Fault(
    code="data/corrupt",
    exit=Exit.DATA_REJECTED,
    what="The dataset {name} cannot be read as rows ({error}).",
    fix="Download one of its files, and name that in data.",
)
UNWRITABLE = Fault(
    code="data/cache",
    exit=Exit.IO,
    what="The dataset {name} cannot be kept in the cache ({error}).",
    fix="Make room in the cache, or let the run write there.",
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR)
FAULTS = {
    "GatedRepoError": GATED,
    "RevisionNotFoundError": Fault(
        code="data/missing",
        exit=Exit.INPUT_MISSING,
        what="The dataset {name} has no revision '{revision}'.",
        fix="Write a branch, tag or commit that its page lists, for example {name}@main",
    ),
    "RepositoryNotFoundError": Fault(
        code="data/missing",
        exit=Exit.INPUT_MISSING,
        what="The hub has no dataset {name}, or keeps it private.",
        fix="Check the name; for a private dataset set HF_TOKEN.",
    ),
    "LocalTokenNotFoundError": Fault(
        code="data/refused", exit=Exit.CREDENTIALS, what="The dataset {name} needs a token.", fix="Set HF_TOKEN."
    ),
    "OfflineModeIsEnabled": UNREACHABLE,
    "LocalEntryNotFoundError": UNREACHABLE,
    "ConnectError": UNREACHABLE,
    "ConnectionError": UNREACHABLE,
    "TimeoutException": UNREACHABLE,
    "TransportError": UNREACHABLE,
}


def fetch_dataset(source: str, cache: Path, say: Callable[[str], None], key: str) -> Path:
    """The Parquet file of ``org/name@revision[:split]``, written once for each commit and split.

    Raises RunnerError: 65 no rows can be had, 66 missing, 69 unreachable, 74 the cache cannot be written, 77 refused.
    """
    name, _, rest = source.partition("@")
    revision, _, split = rest.partition(":")

    def refuse(code: str, what: str, fix: str) -> RunnerError:
        return source_problem(code, f"The dataset {name} {what}.", source, key, fix, Exit.DATA_REJECTED)

    try:
        folder = _folder(cache, name)
        path = folder / _commit(name, revision, folder, say) / f"{split or 'train'}.parquet"
        if not path.is_file():
            say(f"downloading the dataset {source}")
            _write(_load(name, path.parent.name, path.stem, cache, refuse), path)
        return path
    except RunnerError:
        raise
    except Exception as error:  # the clients below share no class of errors
        fault = _judged(error)
        said = {"name": name, "revision": revision, "error": type(error).__name__}
        what, fix = fault.what.format(**said), fault.fix.format(**said)
        raise source_problem(fault.code, what, source, key, fix, fault.exit) from error


def commit_in(cache: Path, source: str) -> str | None:
    """The commit that a dataset of the hub was read at last; None where it is not in the cache."""
    name, _, rest = source.partition("@")
    revision = rest.partition(":")[0]
    try:
        return revision if COMMIT.fullmatch(revision) else _ref(_folder(cache, name), revision).read_text("utf-8")
    except OSError:
        return None


def _folder(cache: Path, name: str) -> Path:
    return cache / "hub" / name.replace("/", "--")


def _ref(folder: Path, revision: str) -> Path:
    return folder / "refs" / re.sub(r"[^\w.-]", "--", revision)


def _commit(name: str, revision: str, folder: Path, say: Callable[[str], None]) -> str:
    """The commit that a revision stands for; without a network the one it stood for last."""
    if COMMIT.fullmatch(revision):
        return revision
    silence(os.environ)
    from huggingface_hub import HfApi  # takes half a second

    ref = _ref(folder, revision)
    try:
        commit = str(HfApi().dataset_info(name, revision=revision, timeout=60).sha)
    except Exception as error:
        if _judged(error) is not UNREACHABLE or not ref.is_file():
            raise
        say(f"the hub cannot be reached; {name}@{revision} is taken from the cache")
        return ref.read_text(encoding="utf-8")
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit, encoding="utf-8")
    return commit


def _load(name: str, commit: str, split: str, cache: Path, refuse: Callable[[str, str, str], RunnerError]) -> Any:
    silence(os.environ)
    import datasets  # takes seconds

    datasets.disable_progress_bars()
    own = str(cache / "hub" / "datasets")
    try:
        builder = datasets.load_dataset_builder(name, revision=commit, cache_dir=own)
    except ValueError as error:
        if "Config name is missing" not in str(error):
            raise
        names = ", ".join(datasets.get_dataset_config_names(name, revision=commit)[:12])
        fix = f"Name one of its files: hf://datasets/{name}@{commit[:7]}/..."
        raise refuse("data/several-configurations", f"has several configurations: {names}", fix) from error
    splits = [str(s) for s in (builder.config.data_files or builder.info.splits or ())]
    if splits and split not in splits:
        raise refuse("data/unknown-split", f"has no split '{split}'", f"Use one of: {', '.join(splits)}.")
    return datasets.load_dataset(name, revision=commit, split=split, cache_dir=own)


def _write(rows: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        rows.to_parquet(str(partial))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _judged(error: BaseException) -> Fault:
    """What an error means, by the classes of it and of what led to it."""
    link: BaseException | None = error
    while link is not None:
        if "gated dataset" in str(link):
            return GATED
        status = getattr(getattr(link, "response", None), "status_code", None)
        for kind in type(link).__mro__:
            if kind.__name__ in FAULTS:
                return FAULTS[kind.__name__]
        if isinstance(link, OSError) and link.errno in FULL:
            return UNWRITABLE
        if status in (401, 403):
            return FAULTS["LocalTokenNotFoundError"]
        if status == 429 or (status or 0) >= 500:
            return UNREACHABLE
        link = link.__cause__ or link.__context__
    return UNREADABLE
