"""Object stores: which URLs are theirs, a prefix of one as a flat set of files, and what went wrong with it."""

from runner.stores.failures import in_short, status_of
from runner.stores.store import PACKAGES, Store, as_problem, is_store, open_store, store_problem, url_fault

__all__ = [
    "PACKAGES",
    "Store",
    "as_problem",
    "in_short",
    "is_store",
    "open_store",
    "status_of",
    "store_problem",
    "url_fault",
]
