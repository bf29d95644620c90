"""A lock: what a manifest stood on, written for git, and what is not as it was then. All but `making` is light."""

from runner.lock.drift import find_drifts, find_unseen, settle
from runner.lock.facts import canonical_sha256, look
from runner.lock.file import Locked, changes, lock_path, read_lock, write_lock
from runner.lock.opened import find_fetched_drifts, find_opened_drifts, locate_models, read_data
from runner.lock.pinning import pin

__all__ = [
    "Locked",
    "canonical_sha256",
    "changes",
    "find_drifts",
    "find_fetched_drifts",
    "find_opened_drifts",
    "find_unseen",
    "locate_models",
    "lock_path",
    "look",
    "pin",
    "read_data",
    "read_lock",
    "settle",
    "write_lock",
]
