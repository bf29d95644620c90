"""Numbers and values as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BINARY = ("KiB", "MiB", "GiB", "TiB")  # powers of 1,024


def percent(share: float) -> str:
    """A share of 1 as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def count(value: float) -> str:
    """A number with thousands separators; one decimal unless it is whole."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def usd(value: float) -> str:
    """Dollars and cents; an amount that rounds to no cents does not read as free."""
    if 0 < abs(value) < 0.005:
        return "less than $0.01"
    return f"{'-' if value < 0 else ''}${abs(value):,.2f}"


def price(value: float) -> str:
    """Dollars for one unit, with as many decimals as a small price needs."""
    decimals = next((d for d in (2, 3, 4, 5) if round(value, d) == value), 6)
    return f"${value:,.{decimals}f}"


def per_1000(value: float) -> str:
    """Dollars for a thousand requests: cents, and two digits of what is less than ten of them."""
    if 0 < value < 0.0001:
        return "less than $0.0001"
    decimals = 2 if value == 0 or value >= 0.0995 else 3 if value >= 0.00995 else 4
    return f"${value:,.{decimals}f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 42 s, 6 min 53 s, 2 h 05 min."""
    if seconds < 0.05:
        return "under 0.1 s"
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def size(num_bytes: float) -> str:
    """Bytes in the largest unit of which there is one at least: 812 bytes, 1.5 MiB, 62.3 GiB."""
    if num_bytes < 1024:
        return f"{num_bytes:,.0f} byte{'' if num_bytes == 1 else 's'}"
    power = 1
    while power < len(BINARY) and round(num_bytes / 1024**power, 1) >= 1024:
        power += 1
    return f"{num_bytes / 1024**power:,.1f} {BINARY[power - 1]}"


def chance(p_value: float) -> str:
    """A p-value; one that rounds to nothing is told as small, not as 0."""
    return "under 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def plain(value: Any) -> str:
    """Any JSON value as a person would write it."""
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, Mapping):
        return " ".join(f"{key}: {plain(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key, in their order."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
