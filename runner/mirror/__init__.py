"""The run directory's mirror in an object store: what is committed goes up beside the work, and an empty machine goes
on from there."""

from runner.mirror.fetching import fetch
from runner.mirror.mirror import Mirror
from runner.mirror.opening import finished_in_mirror, look_at_mirror, open_mirror

__all__ = ["Mirror", "fetch", "finished_in_mirror", "look_at_mirror", "open_mirror"]
