"""The place behind a `delivery.to`."""

from __future__ import annotations

from collections.abc import Mapping

from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import masked
from runner.pushing.bucket import BucketPlace
from runner.pushing.hub import HubPlace
from runner.pushing.place import KEY, Place
from runner.pushing.target import is_hub


def open_place(to: str, *, private: bool, environment: Mapping[str, str]) -> Place:
    """The place that a manifest names, not looked at yet; a repository that has to be made is `private` or not."""
    to = to.rstrip("/")
    return HubPlace(to, private=private, environment=environment) if is_hub(to) else BucketPlace(to)


def check_apart(to: str | None, mirror: str | None) -> None:
    """Raises RunnerError (73) where one of the two is in the other: a mirror removes what its run does not have."""
    if to is None or mirror is None:
        return
    first, second = (f"{url.rstrip('/')}/" for url in (to, mirror))
    if first.startswith(second) or second.startswith(first):
        problem = Problem(
            code="delivery/in-mirror",
            what="delivery.to and --out name folders of which one is in the other.",
            where=Where(path=masked(to), key=KEY),
            fix="Name a folder beside it.",
        )
        raise RunnerError(problem, Exit.RUN_DIRECTORY)
