"""The state of the git repository that a folder is in: its commit, and whether files differ from it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECONDS = 10.0
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What the repository's own settings would run is not run, and nothing of it is written.
COMMAND = ("git", "-c", "core.fsmonitor=false", "--no-optional-locks")


def look_at_repository(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The repository around a file: `commit`; whether the file `tracked` and any file that git knows is `dirty`, with
    the hash of the difference.

    `state` is "repository", "not a repository", or "unknown" where git is not here or does not answer; then `reason`
    says why, and the commit is read from the repository's own files.
    """
    folder = path.absolute().parent
    root = next((one for one in (folder, *folder.parents) if (one / ".git").exists()), None)
    facts: dict[str, Any] = {"state": "repository", **dict.fromkeys(("commit", "dirty", "diff_sha256", "tracked"))}
    if root is None:
        return {**facts, "state": "not a repository", "reason": None}
    try:
        diff = _git(folder, environment, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color")
        tracked = bool(_git(folder, environment, "ls-files", "--", path.name))
        commit = _git(folder, environment, "rev-parse", "HEAD").decode().strip()
    except (OSError, subprocess.SubprocessError) as error:
        return {**facts, "state": "unknown", "commit": _read_commit(root / ".git"), "reason": _reason(error)}
    digest = hashlib.sha256(diff).hexdigest() if diff else None
    found = {"commit": commit, "dirty": bool(diff), "diff_sha256": digest, "tracked": tracked}
    return {**facts, **found, "reason": None}


def _git(folder: Path, environment: Mapping[str, str], *words: str) -> bytes:
    kept = {name: value for name, value in environment.items() if not name.startswith("GIT_")}
    command = [*COMMAND, "-C", str(folder), *words]
    return subprocess.run(
        command,
        env={**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=True,
    ).stdout


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "git is not installed"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"git did not answer within {SECONDS:.0f} s"
    said = getattr(error, "stderr", b"") or str(error).encode()
    return (said.decode(errors="replace").strip().splitlines() or ["git failed"])[0][:200]


def _read_commit(git: Path) -> str | None:
    """HEAD's commit, as it stands in the files of a repository or of a worktree."""
    try:
        if git.is_file():  # a worktree or a submodule
            git = git.parent / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        common = git / (git / "commondir").read_text().strip() if (git / "commondir").is_file() else git
        if not head.startswith("ref:"):
            return head if COMMIT.fullmatch(head) else None
        name = head.removeprefix("ref:").strip()
        loose = common / name
        if os.path.lexists(loose):
            return loose.read_text().strip()
        packed = (line.split() for line in (common / "packed-refs").read_text().splitlines())
        return next((parts[0] for parts in packed if parts[1:] == [name]), None)
    except (OSError, ValueError):
        return None
