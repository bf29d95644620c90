"""Where delivered weights go: which URLs `delivery.to` may name, and a bucket or a repository of the hub behind one."""

from runner.pushing.place import CARD, KEY, Outgoing, Place, Sent
from runner.pushing.places import check_apart, open_place
from runner.pushing.target import HUB, destination, is_hub, is_owed, of_point, target_fault

__all__ = [
    "CARD",
    "HUB",
    "KEY",
    "Outgoing",
    "Place",
    "Sent",
    "check_apart",
    "destination",
    "is_hub",
    "is_owed",
    "of_point",
    "open_place",
    "target_fault",
]
